"""Circuit-aware unlearning (CURE)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._combining import combined_already
from froc.models.process_group import divided, is_divided, replicated, whole
from froc.training.base_statistics import MethodContext
from froc.training.causal_tracing import Component, Piece, Trace, Traced
from froc.training.components import Combiner, UpdateFilter, UpdateInputs
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Weights


class Rule(IntEnum):
    """Which side's gradient a module follows."""

    FORGET = 0
    RETAIN = 1
    SHARED = 2
    FROZEN = 3


@dataclass(frozen=True)
class Circuit:
    """Modules, the rule of each, and its parameters; the last module stands for everything outside, which is frozen."""

    rules: tuple[Rule, ...]
    pieces: tuple[tuple[Piece, int], ...]
    _places: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, parts: Sequence[Component], rules: Mapping[int, Rule]) -> "Circuit":
        """The circuit of these components.

        rules: index of a component in the circuit -> its rule.

        Parameters that several heads share train only if all of these heads are in the circuit: by their common rule,
        or as shared where their rules differ.
        """
        owners: dict[Piece, list[int]] = {}
        for index, part in enumerate(parts):
            for piece in part.pieces:
                owners.setdefault(piece, []).append(index)
        inside = {
            piece: tuple(indices) for piece, indices in owners.items() if all(index in rules for index in indices)
        }
        modules = {indices: number for number, indices in enumerate(dict.fromkeys(inside.values()))}
        owner_rules = [{rules[index] for index in indices} for indices in modules]
        agreed = [candidates.pop() if len(candidates) == 1 else Rule.SHARED for candidates in owner_rules]
        return cls((*agreed, Rule.FROZEN), tuple((piece, modules[indices]) for piece, indices in inside.items()))

    @property
    def trains(self) -> str:
        """Pattern of the parameters that have a part in the circuit."""
        return "^(" + "|".join(re.escape(prefix) for prefix in dict.fromkeys(p.prefix for p, _ in self.pieces)) + ")"

    def place(self, name: str, like: Tensor) -> Tensor:
        """Module index of each element, int64, of a shape that broadcasts to the parameter's."""
        if name not in self._places:
            self._places[name] = self._place(name, like)
        return self._places[name]

    def _place(self, name: str, like: Tensor) -> Tensor:
        outside = len(self.rules) - 1
        mine = [(piece, module) for piece, module in self.pieces if name.startswith(piece.prefix)]
        axes = {piece.axis for piece, _ in mine}
        if not mine or None in axes:
            return torch.tensor(mine[0][1] if mine else outside, device=like.device)
        (axis,) = axes
        assert axis is not None
        modules = torch.full((like.shape[axis],), outside)
        for piece, module in mine:
            modules[piece.start : piece.stop] = module
        return modules.to(like.device).view([-1 if dim == axis else 1 for dim in range(like.dim())])

    def sums(self, values: Weights) -> Tensor:
        """(modules,) float64 sums over each module's elements."""
        first = next(iter(values.values()))
        total = torch.zeros(len(self.rules), dtype=torch.float64, device=first.device)
        for name, value in values.items():
            place = self.place(name, value)
            others = [dim for dim in range(value.dim()) if place.dim() == 0 or place.shape[dim] == 1]
            summed = whole(value.double().sum(others)).flatten()
            total.index_add_(0, place.flatten().to(total.device), summed.to(total.device))
        return total

    def spread(self, factors: Tensor, name: str, like: Tensor) -> Tensor:
        """The (modules,) factors of a parameter's elements, of a shape that broadcasts to it, in its type, divided as it is."""
        each = factors.to(like.device, like.dtype)[self.place(name, like)]
        if not is_divided(like):
            return each
        return divided(each, like) if each.dim() and each.shape[0] > 1 else replicated(each)

    def factors(self, of: Mapping[Rule, float]) -> Tensor:
        """(modules,) float64 factor of each module, by its rule; 0 for rules without one."""
        return torch.tensor([of.get(rule, 0.0) for rule in self.rules], dtype=torch.float64)


@dataclass(frozen=True)
class ByFunction(Combiner):
    """Per module: g_f, g_r, or g_f' + g_r with g_f' = g_f - min(0, <g_f, g_r>) / |g_r|^2 g_r within the module."""

    needs_gradients: ClassVar[bool] = True
    circuit: Circuit

    def direction(self, gradients: Mapping[Objective, Weights], state: State) -> Weights:
        """The combined gradient; zero outside the circuit."""
        forget, retain = gradients.get("forget", {}), gradients.get("retain", {})
        of_forget = self.circuit.factors({Rule.FORGET: 1.0, Rule.SHARED: 1.0})
        of_retain = self.circuit.factors({Rule.RETAIN: 1.0, Rule.SHARED: 1.0})
        common = {name: grad for name, grad in forget.items() if name in retain}
        if common:
            against = self.circuit.sums({name: grad * retain[name] for name, grad in common.items()}).clamp_max(0.0)
            size = self.circuit.sums({name: retain[name].square() for name in common})
            off = (against / size).nan_to_num(0.0, 0.0, 0.0)
            of_retain = of_retain.to(off) - off * self.circuit.factors({Rule.SHARED: 1.0}).to(off)
        made = self._scaled(forget, of_forget)
        for name, grad in self._scaled(retain, of_retain).items():
            made[name] = made[name] + grad if name in made else grad
        return made

    def _scaled(self, objective: Weights, factors: Tensor) -> Weights:
        return {name: grad * self.circuit.spread(factors, name, grad) for name, grad in objective.items()}


@dataclass(frozen=True)
class Outside(UpdateFilter):
    """Keeps everything outside the circuit bit by bit, against weight decay and momentum, too."""

    runs_last: ClassVar[bool] = True
    circuit: Circuit

    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """The update, zero where no gradient is followed."""
        moves = self.circuit.factors(dict.fromkeys((Rule.FORGET, Rule.RETAIN, Rule.SHARED), 1.0))
        return {
            name: torch.where(self.circuit.spread(moves, name, change) > 0, change, torch.zeros_like(change))
            for name, change in update.items()
        }


@dataclass(frozen=True)
class CURE(Wrapper):
    """Train only the circuit that holds the answers, each part of it by the side that it serves.

    Causal tracing gives each attention head and feed-forward m its effect on forget answers (e_f) and retain answers
    (e_r), as shares of the total effect. The circuit is the share `circuit` of all parts with the largest |e|;
    everything else is frozen. With s = |e_f| / (|e_f| + |e_r|): where s > `specific`, m follows the forget gradient
    alone; where s < 1 - `specific`, the retain gradient alone, or nothing (`retaining`); in between both, and if <g_f,
    g_r> < 0 in m, g_f first loses its component along g_r. A head's parameters are its rows of the query matrix and its
    columns of the output matrix; the keys and values of a group train where all of its heads are in the circuit.
    Architectures with fused projections, and adapters, have whole attentions in place of heads.

    circuit: share of the parts that train.
    specific: threshold of s.
    retaining: `train` or `freeze` the parts that serve retain answers.

    Our reading (the paper was read second-hand, and is about item recommendation): noise on all tokens of a question in
    place of counterfactual users, effects as shares, the larger of both effects as the circuit's criterion, and losses
    that come from the inner method.
    """

    paper: ClassVar[str] = "Chen et al. 2604.04982"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "wrapper"

    circuit: float = hyperparameter(0.4, Range(0.1, 0.8))
    specific: float = hyperparameter(0.6, Range(0.5, 0.9))
    retaining: str = hyperparameter("train", Choice(("train", "freeze")))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """Another combiner, one more filter, fewer trained parameters."""
        forget, retain = (context.ask(Trace(role, heads=True)) for role in ("forget", "retain"))
        circuit = self.build_circuit(forget, retain)
        within = rf"(?=.*(?:{phase.trains}))" if phase.trains else ""
        filters = (*phase.filters, Outside(circuit))
        return replace(phase, combiner=ByFunction(circuit), filters=filters, trains=rf"(?={circuit.trains}){within}")

    def build_circuit(self, forget: Traced, retain: Traced) -> Circuit:
        """The circuit and its rules."""
        own, others = (_shares(objective.effects.abs()) for objective in (forget, retain))
        count = max(1, round(self.circuit * len(own)))
        inside = torch.maximum(own, others).sort(descending=True, stable=True).indices[:count].tolist()
        shares = (own / (own + others)).nan_to_num(0.5).tolist()
        return Circuit.of(forget.parts, {index: self._rule(shares[index]) for index in inside})

    def _rule(self, share: float) -> Rule:
        if share > self.specific:
            return Rule.FORGET
        if share < 1.0 - self.specific:
            return Rule.RETAIN if self.retaining == "train" else Rule.FROZEN
        return Rule.SHARED

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """It needs a retain side, and an inner method without a combiner of its own."""
        if "retain" not in inner.trained_roles():
            return "needs a method that trains on retain rows"
        return combined_already(inner)


def _shares(effects: Tensor) -> Tensor:
    return effects / effects.sum().clamp_min(1e-12)
