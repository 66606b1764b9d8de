"""Hardness-aware multi-objective unlearning (HAMU)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._combining import combined_already, plus, without_retain_side
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, dot
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Weights


@dataclass(frozen=True)
class Guaranteed(Combiner):
    """The step that lowers one objective most among those of its length that lower the other by a set amount.

    With g the gradient of the guaranteed objective and h the other's, both minimised, of unit vectors g' and h': h where
    cos(g, h) >= ratio, else |h| (ratio g' + sqrt(1 - ratio^2) n'), n' the unit vector of h's part orthogonal to g.

    first: the objective that is guaranteed.
    ratio: guaranteed decrease of it, in units of the largest that a step of this length can reach, to first order.
    """

    needs_gradients: ClassVar[bool] = True
    first: Objective = "forget"
    ratio: float = 0.5

    def direction(self, gradients: Mapping[Objective, Weights], state: State) -> Weights:
        """The gradient for the optimiser; where both are parallel and opposed, its part orthogonal to g is left out."""
        second: Objective = "retain" if self.first == "forget" else "forget"
        g, h = gradients[self.first], gradients[second]
        g_length, h_length = dot(g, g).sqrt(), dot(h, h).sqrt()
        cosine = (dot(g, h) / (g_length * h_length)).nan_to_num(0.0, 0.0, 0.0)
        # the length of the unit vector h' without its part along g'
        rest = (1.0 - cosine**2).clamp_min(0.0).sqrt()
        turned = (math.sqrt(1.0 - self.ratio**2) / rest).nan_to_num(0.0, 0.0, 0.0)
        direct = cosine >= self.ratio
        of_h = torch.where(direct, torch.ones_like(turned), turned)
        of_g = torch.where(direct, torch.zeros_like(turned), (self.ratio - turned * cosine) * h_length / g_length)
        of_g = of_g.nan_to_num(0.0, 0.0, 0.0)
        return plus((of_g, g), (of_h, h))


@dataclass(frozen=True)
class HAMU(Wrapper):
    """Guarantee one objective's improvement in each step, at the least cost to the other.

    min <g_r, D> subject to -<g_f, D> >= Q and |D| <= R with R = lr |g_r| and Q = ratio R |g_f| (`quality`, HAMU-Q): D =
    -R g_r / |g_r| where that forgets enough by itself, cos(g_r, g_f) >= ratio, and else D = -R (ratio g_f / |g_f| +
    sqrt(1 - ratio^2) n / |n|), n the part of g_r orthogonal to g_f. `utility` (HAMU-U) guarantees the retain side and
    exchanges g_f and g_r. AdamW receives -D / lr. Gradients are over all parameters.

    guarantee: the side whose improvement is guaranteed.
    ratio: 0 to 0.9 in the authors' sweep, 0.5 in their script. It stands for the inner method's retain_weight, which is
        fixed at 1 and changes no direction.

    The authors ascend the forget rows' NLL, which is hamu(grad_diff), and take plain gradient steps; their per-matrix
    form and their criterion to stop are left out.
    """

    paper: ClassVar[str] = "Chen et al. 2606.02119"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "wrapper"
    fixed: ClassVar[dict[str, float]] = {"retain_weight": 1.0}

    guarantee: str = hyperparameter("quality", Choice(("quality", "utility")))
    ratio: float = hyperparameter(0.5, Range(0.0, 0.9))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase with this combiner."""
        return replace(phase, combiner=Guaranteed("forget" if self.guarantee == "quality" else "retain", self.ratio))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """It needs a retain side in each phase, and an inner method without a combiner of its own."""
        return without_retain_side(inner) or combined_already(inner)
