"""The contract of unlearning methods: a frozen dataclass whose fields are hyperparameters, and its phases."""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from froc import fidelity
from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, MethodContext, Role, RowSource
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class Method(ABC):
    """Hyperparameters common to all methods.

    lr: peak learning rate of AdamW, linear warm-up over a tenth of the steps, then linear decay.
    epochs: passes over the forget rows.
    """

    plugin_group: ClassVar[str] = "froc.methods"
    paper: ClassVar[str] = ""
    family: ClassVar[str] = ""
    fidelity: ClassVar[Fidelity] = "reading"
    """How true it is to its paper (`froc.fidelity`)."""
    standard: ClassVar[bool] = False
    """Whether a search tries it by default."""
    loads_retrained: ClassVar[bool] = False
    """Whether the result is the task's retrained model, trained without the forget rows."""
    lr_multiplier: ClassVar[float] = 1.0
    """Factor on a task's learning-rate range; task ranges assume that all parameters train."""

    lr: float = hyperparameter(1e-5, Range(1e-6, 1e-4, log=True))
    epochs: int = hyperparameter(5, Range(1, 10))

    @abstractmethod
    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """The phases of training, in order; their step fractions sum to 1. Empty: the base model unchanged."""

    @classmethod
    def roles(cls) -> tuple[Role, ...]:
        """Roles of the rows that it reads with default hyperparameters; a task must have them."""
        phases = cls().phases(PLACEHOLDER_CONTEXT)
        return tuple(dict.fromkeys(role for phase in phases for role in (*phase.roles, *phase.reads)))

    @classmethod
    def trained_roles(cls) -> tuple[Role, ...]:
        """Roles whose losses it trains on with default hyperparameters; queries, edits and rollouts may read more."""
        return tuple(dict.fromkeys(role for phase in cls().phases(PLACEHOLDER_CONTEXT) for role in phase.roles))

    @classmethod
    def sources(cls) -> dict[Role, RowSource]:
        """role -> what makes its rows, with default hyperparameters."""
        return {role: source for phase in cls().phases(PLACEHOLDER_CONTEXT) for role, source in phase.sources.items()}

    @classmethod
    def needs(cls) -> tuple[str, ...]:
        """Requirements beside a base model and forget rows, with default hyperparameters, in words."""
        words = {"retain": "retain rows", "refusal": "refusals"} | {
            r: source.requirement for r, source in cls.sources().items()
        }
        phases = cls().phases(PLACEHOLDER_CONTEXT)
        needs = [words[role] for role in cls.roles() if role in words]
        numbers = {need for phase in phases for role in phase.roles for need in phase.needs(role)}
        needs += [f"base model's {name.replace('_', ' ')}" for name in sorted(numbers)]
        needs += ["a retrained model"] * cls.loads_retrained
        needs += ["second moments"] * any(part.needs_second_moments for phase in phases for part in phase.filters)
        return tuple(needs)

    @classmethod
    def cost(cls) -> float:
        """Training cost relative to gradient difference, with default hyperparameters; without what is computed once per task."""
        typical = cls()
        phases = typical.phases(PLACEHOLDER_CONTEXT)
        edits = sum(phase.edit.rounds * phase.edit.passes for phase in phases if phase.edit) / (typical.epochs or 5)
        return edits + sum(
            phase.step_fraction * phase.cost(PLACEHOLDER_CONTEXT.layers) for phase in phases if not phase.edit
        )

    @classmethod
    def around(cls, inner: "type[Method]") -> "type[Method]":
        """This method composed with another one; only wrappers can be."""
        raise InputError(f"{cls.__name__} wraps no other method; there are: {', '.join(wrappers())}")

    @property
    def mix(self) -> float:
        """Position of the result on the line from the base parameters (0) to the trained ones (1)."""
        return 1.0

    @property
    def can_stop_early(self) -> bool:
        """Whether an early stop gives a weaker form of the result, so that stops may be tried as candidates."""
        kinds = [phase.edit is None for phase in self.phases(PLACEHOLDER_CONTEXT)]
        return self.mix == 1.0 and kinds == sorted(kinds)

    @property
    def n_feedback_evals(self) -> int:
        """Number of times, evenly through training, that search losses are handed to `Combiner.on_search_losses`."""
        return 0


@dataclass(frozen=True)
class Retaining(Method):
    """A method with a weighted likelihood term on the retain rows.

    retain_weight: weight of the retain rows' negative log-likelihood, relative to 1 for the forget term.
    """

    retain_weight: float = hyperparameter(1.0, Range(0.1, 20.0, log=True))

    def retain_terms(self) -> dict[str, WeightedTerm]:
        """name -> weighted retain term, to be added to the forget terms."""
        return {"retain": WeightedTerm(NLL("retain"), self.retain_weight)}


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another: a mixin that changes each phase of the inner method.

    fixed: field of the inner method that has no meaning here -> its fixed value.
    """

    fixed: ClassVar[dict[str, float]] = {}

    @abstractmethod
    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The changed phase."""

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """Why it cannot wrap a method; None where it can."""
        return None

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """InputError: a wrapper has no phases without an inner method."""
        name = type(self).__module__.rpartition(".")[2]
        raise InputError(f"{name} goes around another method; write {name}(npo), or another name in the brackets")

    @classmethod
    def around(cls, inner: type[Method]) -> type[Method]:
        """Both as one class; InputError where they are incompatible."""
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
        "fidelity": fidelity.least(fidelity.of(outer), fidelity.of(inner)),
        "standard": False,
        "phases": phases,
        **set_,
    }
    # fields of every method keep the inner method's defaults and ranges
    for common_field in (named[name] for name in common):
        body["__annotations__"][common_field.name] = common_field.type
        body[common_field.name] = field(default=common_field.default, metadata=common_field.metadata)
    return dataclass(frozen=True)(type(name, (outer, inner), body))


def wrappers() -> list[str]:
    """Names of the methods that wrap others."""
    from froc.plugins import find, names

    return [name for name in names(Method) if issubclass(find(Method, name), Wrapper)]
