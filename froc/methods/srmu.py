"""Feature-selective representation misdirection."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc import hashing
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods.rmu import Hold, Steer
from froc.models.forward import Pass
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import WeightedTerm


@dataclass(frozen=True)
class Magnitudes(BaseModelQuery[Tensor]):
    """Mean absolute value of each coordinate of a layer's hidden states, on forget and on retain rows."""

    layer: int

    @torch.no_grad()
    def compute(self, reference: BaseStatistics) -> Tensor:
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
        """Ones."""
        return torch.ones(2, context.width, dtype=torch.float64)


@dataclass(frozen=True)
class SteerFeatures(Steer):
    """`Steer` towards a target with random signs whose coordinates are proportional to their importance.

    importance: (D,) not negative; if all are zero, the target is the origin.
    """

    importance: tuple[float, ...] = ()

    def direction(self, width: int) -> Tensor:
        """(D,) of length 1."""
        size = torch.tensor(self.importance)
        made: Tensor = self.signs(width) * size / size.norm().clamp_min(1e-12)
        return made

    def signs(self, width: int) -> Tensor:
        """(D,) of -1 and 1 with equal probability, drawn by the seed."""
        draw = torch.Generator().manual_seed(hashing.derive_seed("signs", self.seed))
        return 2.0 * torch.randint(2, (width,), generator=draw) - 1.0


@dataclass(frozen=True)
class SRMU(Method):
    """Selective misdirection: steer those coordinates of a layer that forget rows use and retain rows do not.

    Loss: E_f |h - T|^2 + retain_weight E_r |h - h_base|^2 with the fixed target T = c * norm * V I / |I|. V are random
    signs; I is the importance of each coordinate, from v_f and v_r, the base model's means of |h| at the positions that
    predict answers of forget and retain rows. Only the steered layer's weights train.

    lr: one layer trains: a task's range is multiplied by ten.
    c: length of the target relative to the mean hidden norm, as in `rmu`.
    retain_weight: 1200 in the paper; how well retain rows are held depends on retain_weight / c.
    depth: the layer as a share of all layers.
    importance: `ratio` is log(1 + v_f / v_r), `difference` is max(0, v_f - subtract v_r), `product` is v_f v_r (without
        the paper's normalisation, which cancels).
    subtract: factor of v_r in `difference`.

    Our reading (the paper was read second-hand): means of |h|, since the logarithm may not exist for means of h; and
    the length of T, where the paper scales I to a maximum of 1 by a constant that could not be read.
    """

    paper: ClassVar[str] = "Chen et al. 2512.16297"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "representation"
    lr_multiplier: ClassVar[float] = 10.0

    c: float = hyperparameter(10.0, Range(1.0, 50.0, log=True))
    retain_weight: float = hyperparameter(100.0, Range(5.0, 2000.0, log=True))
    depth: float = hyperparameter(0.4, Range(0.2, 0.8))
    importance: str = hyperparameter("ratio", Choice(("ratio", "difference", "product")))
    subtract: float = hyperparameter(0.8, Range(0.5, 1.0), importance=("difference",))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase. The first number in a parameter's name is its layer's."""
        layer = min(context.layers - 1, round(self.depth * (context.layers - 1)))
        important = tuple(self.important(*context.ask(Magnitudes(layer))).tolist())
        parts = {
            "steer": WeightedTerm(SteerFeatures("forget", layer, self.c, context.seed, important)),
            "hold": WeightedTerm(Hold("retain", layer), self.retain_weight),
        }
        return (Phase(parts, trains=rf"^\D*\.{layer}\."),)

    def important(self, forget: Tensor, retain: Tensor) -> Tensor:
        """(D,) importance with a maximum of 1, from the (D,) means on forget and on retain rows."""
        if self.importance == "ratio":
            # the floor keeps unused coordinates at importance 0 however small the divisor
            importance = torch.log1p(forget / (retain + 1e-6 * retain.mean()))
        elif self.importance == "difference":
            importance = (forget - self.subtract * retain).clamp_min(0.0)
        else:
            importance = forget * retain
        return importance / importance.max().clamp_min(1e-12)
