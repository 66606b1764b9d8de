"""Bi-level unlearning with a stationarity penalty."""

from dataclasses import dataclass
from typing import ClassVar

from froc.errors import InputError
from froc.hyperparameters import Range, hyperparameter
from froc.methods._bilevel import ForgetThenRetain, Place, clipped, norm, plus
from froc.methods.ofmu_first import OFMUFirst
from froc.training.base_statistics import MethodContext
from froc.training.components import dot
from froc.training.phase import Phase
from froc.training.terms import State, Weights

WIDTH = 1e-4
"""Of differences, to either side, as a share of the parameters' norm: at a hundredth gradients are others altogether, at a
hundred-thousandth float32 rounds the difference away. On a two-layer model, before, amid and after forgetting, the cosine's gradient
was off by less than 0.5 %, the penalty's by less than 3 %."""
MOST = 1e6
"""Penalty at which it grows no further; its gradient is clipped long before."""


@dataclass(frozen=True)
class Penalised(ForgetThenRetain):
    """Inner Phi = L_f - beta cos(g_f, g_r), outer F = L_r + rho |grad Phi|^2, rho growing by `growth` a step (2509.22483).

    grad cos = H_f d cos/d g_f + H_r d cos/d g_r and grad |grad Phi|^2 = 2 H_Phi grad Phi: each product with a Hessian is a central
    difference of gradients, the last one of differences.
    """

    exact: ClassVar[bool] = True
    beta: float = 0.1
    penalty: float = 1e-4
    growth: float = 1.0
    width: float = WIDTH

    @property
    def n_extra_gradients(self) -> float:
        """grad Phi takes 2 halves where gradients are known, 4 of differences; it is wanted at each ascent, at their end, beside it twice."""
        return 3.0 * (self.steps + 3) - 1.0

    def rise(self, place: Place) -> Weights:
        """grad Phi."""
        f, r = place.forget, place.retain
        lengths = norm(f), norm(r)
        if min(lengths) == 0.0:
            return f
        product, cos = lengths[0] * lengths[1], float(dot(f, r)) / (lengths[0] * lengths[1])
        by_f = plus((1 / product, r), (-cos / lengths[0] ** 2, f))
        by_r = plus((1 / product, f), (-cos / lengths[1] ** 2, r))
        bent_f = place.slope(lambda at: at.forget, by_f, self.width)
        bent_r = place.slope(lambda at: at.retain, by_r, self.width)
        return plus((1.0, f), (-self.beta, bent_f), (-self.beta, bent_r))

    def fall(self, place: Place, state: State) -> Weights:
        """grad F, the penalty's part clipped; rho grows."""
        rho = state.get("penalty", self.penalty)
        state["penalty"] = min(MOST, rho * self.growth)
        steep = place.slope(self.rise, self.rise(place), self.width)
        return plus((1.0, place.retain), (1.0, clipped(plus((2.0 * rho, steep)))))


@dataclass(frozen=True)
class OFMU(OFMUFirst):
    """Bi-level unlearning: climb a forget loss that keeps away from the retain gradient, then descend under a stationarity penalty.

    Inner, `inner_steps` ascents of Phi = L_f - beta cos(g_f, g_r): theta' += eta grad Phi, its norm clipped to 1. Outer, one step down
    F = L_r + rho |grad Phi|^2: theta <- theta' - eta (g_r + 2 rho H_Phi grad Phi), rho *= growth. L_f, L_r: NLL of forget and retain rows.
    The paper's text could not be read. Our reading: the outer step starts where the ascents end (else nothing would be forgotten);
    both loops have one eta, so what AdamW is handed is grad F(theta') - sum of the clipped grad Phi; the clips, of the penalty's
    gradient too; growth per step; all ranges. inner_rate: eta where gradients are taken, as a share of the parameters' norm.
    penalty: the first rho. inner_steps: 5 to 10 in the paper, by others' notes. retain_weight: of L_r, ours.

    Products with Hessians are central differences of gradients, so any attention kernel will do, and the passes are made without
    autocast; where parameters are in half precision rounding would outweigh the differences: refused. At a base that knows its rows
    by heart g_f is nearly 0: the cosine's gradient, of the order of 1 / |g_f|, is then most of grad Phi, and the penalty, which wants
    grad Phi to vanish, pulls back to that base.
    """

    family: ClassVar[str] = "constrained"
    paper: ClassVar[str] = "Asif and Amiri 2509.22483"

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))
    penalty: float = hyperparameter(1e-4, Range(1e-6, 1e-2, log=True))
    growth: float = hyperparameter(1.05, Range(1.0, 1.2))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """As to first order, with another combiner."""
        if context.half:
            raise InputError(
                "ofmu takes differences of gradients, which half precision rounds away; give --dtype float32"
            )
        return super().phases(context)

    def combiner(self) -> Penalised:
        """How the two sides become one step."""
        return Penalised(self.inner_steps, self.inner_rate, self.beta, self.penalty, self.growth)
