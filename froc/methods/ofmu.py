"""Bi-level unlearning with a stationarity penalty (OFMU)."""

from dataclasses import dataclass
from typing import ClassVar

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._bilevel import ForgetThenRetain, Place, clipped
from froc.methods._combining import norm, plus
from froc.methods.ofmu_first import OFMUFirst
from froc.training.base_statistics import MethodContext
from froc.training.components import dot
from froc.training.phase import Phase
from froc.training.terms import State, Weights

WIDTH = 1e-4
"""Step of the central differences, as a share of the parameters' norm.

At 1e-2 the gradients differ too much, at 1e-5 float32 rounds the difference away. On a two-layer model, before, during
and after forgetting, the cosine's gradient was off by less than 0.5 %, the penalty's by less than 3 %.
"""
MOST = 1e6
"""Upper limit of the penalty weight; its gradient is clipped long before."""


@dataclass(frozen=True)
class Penalised(ForgetThenRetain):
    """Inner Phi = L_f - beta cos(g_f, g_r), outer F = L_r + rho |grad Phi|^2, rho multiplied by `growth` per step (2509.22483).

    grad cos = H_f d cos/d g_f + H_r d cos/d g_r, and grad |grad Phi|^2 = 2 H_Phi grad Phi. Each Hessian product is a
    central difference of gradients; the last one is a difference of differences.
    """

    exact: ClassVar[bool] = True
    beta: float = 0.1
    penalty: float = 1e-4
    growth: float = 1.0
    width: float = WIDTH

    @property
    def n_extra_gradients(self) -> float:
        """grad Phi takes 2 half gradients where gradients are known and 4 for differences; it is needed at each ascent,
        at the end, and twice beside it.
        """
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
        """grad F with the penalty's part clipped; rho grows."""
        rho = state.get("penalty", self.penalty)
        state["penalty"] = min(MOST, rho * self.growth)
        steep = place.slope(self.rise, self.rise(place), self.width)
        return plus((1.0, place.retain), (1.0, clipped(plus((2.0 * rho, steep)))))


@dataclass(frozen=True)
class OFMU(OFMUFirst):
    """Bi-level unlearning: ascend a forget loss kept apart from the retain gradient, then descend under a stationarity penalty.

    Inner: `inner_steps` ascents of Phi = L_f - beta cos(g_f, g_r): theta' += eta grad Phi, its norm clipped to 1.
    Outer: one step down F = L_r + rho |grad Phi|^2: theta <- theta' - eta (g_r + 2 rho H_Phi grad Phi), then rho *=
    growth. L_f and L_r are the NLLs of forget and retain rows.

    inner_steps: 5 to 10 in the paper, by others' notes.
    inner_rate: eta for taking gradients, as a share of the parameters' norm.
    beta: weight of the cosine.
    penalty: initial rho.
    growth: factor on rho per step.
    retain_weight: weight of L_r, ours.

    Our reading (the paper's text could not be read): the outer step starts where the ascents end, since otherwise
    nothing would be forgotten; both loops share one eta, so AdamW receives grad F(theta') - sum of the clipped grad
    Phi; the clips, the penalty gradient's included; growth per step; all ranges.

    Limits: Hessian products are central differences of gradients, so any attention kernel works, and these passes run
    without autocast; parameters in half precision are refused, as rounding would exceed the differences. At a base that
    knows its rows by heart g_f is nearly 0: the cosine's gradient, of the order of 1 / |g_f|, dominates grad Phi, and
    the penalty, which drives grad Phi to zero, pulls back to that base.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "constrained"
    paper: ClassVar[str] = "Asif and Amiri 2509.22483"

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))
    penalty: float = hyperparameter(1e-4, Range(1e-6, 1e-2, log=True))
    growth: float = hyperparameter(1.05, Range(1.0, 1.2))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """As in `ofmu_first`, with another combiner."""
        if context.half:
            raise InputError(
                "ofmu takes differences of gradients, which half precision rounds away; give --dtype float32"
            )
        return super().phases(context)

    def combiner(self) -> Penalised:
        """How both sides become one step."""
        return Penalised(self.inner_steps, self.inner_rate, self.beta, self.penalty, self.growth)
