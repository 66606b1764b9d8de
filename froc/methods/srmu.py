"""Feature-selective representation misdirection."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from froc import hashing
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods.rmu import Hold, Steer
from froc.models.forward import Pass
from froc.training.base_statistics import BaseModelQuery, MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import WeightedTerm

if TYPE_CHECKING:
    from froc.training.base_statistics import BaseStatistics


@dataclass(frozen=True)
class Magnitudes(BaseModelQuery[Tensor]):
    """How large each coordinate of a layer's hidden states is on forget and on retain rows."""

    layer: int

    @torch.no_grad()
    def compute(self, reference: "BaseStatistics") -> Tensor:
        """(2, D) float64 on the CPU: mean |h| over the states that predict answers (`Batch.answer_states`); forget rows first."""
        means = []
        for role in ("forget", "retain"):
            sums, count = [], 0
            for _, batch in reference.batches(role):
                hidden = Pass(reference.base.model, batch, hidden_at=(self.layer,), logits=False).hidden[self.layer]
                sums.append(hidden.abs()[batch.answer_states].double().sum(0).cpu())
                count += int(batch.answer_states.sum())
            means.append(torch.stack(sums).sum(0) / count)
        return torch.stack(means)

    def placeholder(self, context: MethodContext) -> Tensor:
        """All alike."""
        return torch.ones(2, context.width, dtype=torch.float64)


@dataclass(frozen=True)
class SteerFeatures(Steer):
    """`Steer` whose target is as large in each coordinate as the coordinate is important, with random signs.

    importance: (D,) not negative. Where it is zero throughout, the target is the origin.
    """

    importance: tuple[float, ...] = ()

    def direction(self, width: int) -> Tensor:
        """(D,) of length 1."""
        size = torch.tensor(self.importance)
        made: Tensor = self.signs(width) * size / size.norm().clamp_min(1e-12)
        return made

    def signs(self, width: int) -> Tensor:
        """(D,) of -1 and 1, each as likely, by the seed."""
        draw = torch.Generator().manual_seed(hashing.derive_seed("signs", self.seed))
        return 2.0 * torch.randint(2, (width,), generator=draw) - 1.0


@dataclass(frozen=True)
class SRMU(Method):
    """Feature-selective misdirection: steer a layer's hidden states where forget rows use it and retain rows do not.

    L = E_f |h - T|^2 + retain_weight E_r |h - h_base|^2, T = c * norm * V I / |I|: V random signs, fixed before
    training; I the importance of each coordinate, from the base model's means v_f and v_r of |h| on forget and retain
    rows, where answers are predicted: ratio: log(1 + v_f / v_r). difference: max(0, v_f - subtract v_r). product: v_f v_r (its normalisation falls
    away). c: length of the target relative to the mean hidden norm, as in rmu. retain_weight: 1200 in the paper; what
    is held depends on retain_weight / c. depth: the layer as a share of all layers. Only that layer's weights move.
    The paper was read second-hand: means of |h| (of h, the logarithm may not exist) and the length of T (the paper
    scales I to a maximum of 1, by a constant that could not be read) are our reading.
    """

    paper: ClassVar[str] = "Chen et al. 2512.16297"
    family: ClassVar[str] = "representation"

    c: float = hyperparameter(10.0, Range(1.0, 50.0, log=True))
    retain_weight: float = hyperparameter(100.0, Range(5.0, 2000.0, log=True))
    depth: float = hyperparameter(0.4, Range(0.2, 0.8))
    importance: str = hyperparameter("ratio", Choice(("ratio", "difference", "product")))
    subtract: float = hyperparameter(0.8, Range(0.5, 1.0), importance=("difference",))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase; the first number in a parameter's name is its layer's."""
        layer = min(context.layers - 1, round(self.depth * (context.layers - 1)))
        important = tuple(self.important(*context.ask(Magnitudes(layer))).tolist())
        parts = {
            "steer": WeightedTerm(SteerFeatures("forget", layer, self.c, context.seed, important)),
            "hold": WeightedTerm(Hold("retain", layer), self.retain_weight),
        }
        return (Phase(parts, trains=rf"^\D*\.{layer}\."),)

    def important(self, forget: Tensor, retain: Tensor) -> Tensor:
        """(D,) of the means (D,) on either side, 1 at most."""
        if self.importance == "ratio":
            # a coordinate that is never used has no importance, however small its divisor
            importance = torch.log1p(forget / (retain + 1e-6 * retain.mean()))
        elif self.importance == "difference":
            importance = (forget - self.subtract * retain).clamp_min(0.0)
        else:
            importance = forget * retain
        return importance / importance.max().clamp_min(1e-12)
