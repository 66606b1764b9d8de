"""The contract of unlearning methods: a frozen dataclass whose fields are hyperparameters, and its phases."""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from froc.errors import InputError
from froc.hyperparameters import Range, hyperparameter
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, MethodContext, Role, RowSource
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class Method(ABC):
    """Hyperparameters that every method has.

    lr: peak learning rate of AdamW, linear warm-up over a tenth of the steps, then linear decay.
    epochs: passes over the forget rows.
    """

    plugin_group: ClassVar[str] = "froc.methods"
    paper: ClassVar[str] = ""
    family: ClassVar[str] = ""
    standard: ClassVar[bool] = False
    """Whether a search tries it where no methods are named."""
    loads_retrained: ClassVar[bool] = False
    """Whether the result is a model that the task brings, trained without the forget rows."""
    lr_multiplier: ClassVar[float] = 1.0
    """What a task's learning rates are multiplied by: they are said of methods that move all parameters."""

    lr: float = hyperparameter(1e-5, Range(1e-6, 1e-4, log=True))
    epochs: int = hyperparameter(5, Range(1, 10))

    @abstractmethod
    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """The phases of training, in order; shares add up to 1. None at all: the base model as it is."""

    @classmethod
    def roles(cls) -> tuple[Role, ...]:
        """Rows it reads, with the defaults: a task that lacks them cannot run it."""
        phases = cls().phases(PLACEHOLDER_CONTEXT)
        return tuple(dict.fromkeys(role for phase in phases for role in (*phase.roles, *phase.reads)))

    @classmethod
    def trained_roles(cls) -> tuple[Role, ...]:
        """Rows whose losses it trains on, with the defaults; surveys, edits and rollouts may read others beside them."""
        return tuple(dict.fromkeys(role for phase in cls().phases(PLACEHOLDER_CONTEXT) for role in phase.roles))

    @classmethod
    def sources(cls) -> dict[Role, RowSource]:
        """role -> what makes its rows, with the defaults."""
        return {role: one for phase in cls().phases(PLACEHOLDER_CONTEXT) for role, one in phase.sources.items()}

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        """What it takes beside a base model and forget rows, with the defaults."""
        words = {"retain": "retain rows", "refusal": "refusals"} | {
            r: one.requirement for r, one in cls.sources().items()
        }
        phases = cls().phases(PLACEHOLDER_CONTEXT)
        found = [words[role] for role in cls.roles() if role in words]
        numbers = {need for phase in phases for role in phase.roles for need in phase.needs(role)}
        found += [f"base model's {name.replace('_', ' ')}" for name in sorted(numbers)]
        found += ["a retrained model"] * cls.loads_retrained
        found += ["second moments"] * any(one.needs_second_moments for phase in phases for one in phase.filters)
        return tuple(found)

    @classmethod
    def cost(cls) -> float:
        """Of training, relative to gradient difference's, with the defaults; what is computed once per task is not in it."""
        typical = cls()
        phases = typical.phases(PLACEHOLDER_CONTEXT)
        edits = sum(one.edit.rounds * one.edit.passes for one in phases if one.edit) / (typical.epochs or 5)
        return edits + sum(one.step_fraction * one.cost(PLACEHOLDER_CONTEXT.layers) for one in phases if not one.edit)

    @classmethod
    def around(cls, inner: "type[Method]") -> "type[Method]":
        """The method that this one makes of another: wrappers alone do."""
        raise InputError(f"{cls.__name__} wraps no other method; there are: {', '.join(wrappers())}")

    @property
    def mix(self) -> float:
        """Where the result lies on the line from the base parameters (0) to the trained ones (1)."""
        return 1.0

    @property
    def can_stop_early(self) -> bool:
        """Whether stopping on the way gives a weaker form of the result: not where the end differs in kind from the way."""
        kinds = [phase.edit is None for phase in self.phases(PLACEHOLDER_CONTEXT)]
        return self.mix == 1.0 and kinds == sorted(kinds)

    @property
    def n_feedback_evals(self) -> int:
        """How often, evenly through training, its combiners are told the search losses."""
        return 0


@dataclass(frozen=True)
class Retaining(Method):
    """Methods that hold the retain rows with a weighted likelihood term.

    retain_weight: weight of the retain rows' negative log-likelihood against the forget term's 1.
    """

    retain_weight: float = hyperparameter(1.0, Range(0.1, 20.0, log=True))

    def retain_terms(self) -> dict[str, WeightedTerm]:
        """The retain part."""
        return {"retain": WeightedTerm(NLL("retain"), self.retain_weight)}


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another: a mixin, whose `change` is made to each phase of the other.

    fixed: fields of the other method that lose their meaning, and what they are then.
    """

    fixed: ClassVar[dict[str, float]] = {}

    @abstractmethod
    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """What becomes of a phase."""

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """Why it cannot go around a method; None where it can."""
        return None

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """By itself it has none."""
        name = type(self).__module__.rpartition(".")[2]
        raise InputError(f"{name} goes around another method; write {name}(npo), or another name in the brackets")

    @classmethod
    def around(cls, inner: type[Method]) -> type[Method]:
        """The two as one class; InputError where they do not go together."""
        return _around(cls, inner)


@cache
def _around(outer: type[Wrapper], inner: type[Method]) -> type[Method]:
    name = f"{outer.__name__}({inner.__name__})"
    if all(phase.edit for phase in inner().phases(PLACEHOLDER_CONTEXT)):
        raise InputError(f"{name}: {inner.__name__} trains nothing that could be changed")
    reason = outer.incompatibility(inner)
    common = {f.name for f in dataclasses.fields(Method)}
    named = {f.name: f for f in dataclasses.fields(inner)}
    twice = {f.name for f in dataclasses.fields(outer)} & set(named) - common
    if reason is None and twice:
        reason = f"both have a hyperparameter {min(twice)}"
    if reason is not None:
        raise InputError(f"{name}: {reason}")
    set_ = {name: value for name, value in outer.fixed.items() if name in named}

    def phases(self: Any, context: MethodContext) -> tuple[Phase, ...]:
        made = inner.phases(self, context)
        return tuple(phase if phase.edit else outer.change(self, phase, context) for phase in made)

    body: dict[str, Any] = {
        "__doc__": f"{inspect.getdoc(outer)}\n\nAround {inner.__name__}:\n\n{inspect.getdoc(inner)}",
        "__module__": outer.__module__,
        "__annotations__": dict.fromkeys(set_, float),
        "paper": f"{outer.paper}; {inner.paper}",
        "family": outer.family,
        "standard": False,
        "phases": phases,
        **set_,
    }
    # what every method has is as the inner method has it
    for one in (named[name] for name in common):
        body["__annotations__"][one.name] = one.type
        body[one.name] = field(default=one.default, metadata=one.metadata)
    return dataclass(frozen=True)(type(name, (outer, inner), body))


def wrappers() -> list[str]:
    """Names of the methods that go around others."""
    from froc.plugins import find, names

    return [name for name in names(Method) if issubclass(find(Method, name), Wrapper)]
