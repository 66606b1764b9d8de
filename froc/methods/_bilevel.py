"""Forgetting as the inner problem, retaining as the outer one: what OFMU and its first-order form share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch.nn import Parameter

from froc.training.components import Combiner, GradientProbe, dot
from froc.training.terms import Objective, State, Weights

CLIP = 1.0
"""Norm of an ascent step's gradient, at most: the forget loss has no upper end."""


def plus(*terms: tuple[float, Weights]) -> Weights:
    """Sum of factors times weights, over all names."""
    total: Weights = {}
    for factor, weights in terms:
        for name, value in weights.items():
            total[name] = total[name] + factor * value if name in total else factor * value
    return total


def norm(weights: Weights) -> float:
    """Over all parameters."""
    return math.sqrt(float(dot(weights, weights)))


class Place:
    """Parameters, and the gradients of both NLLs there, taken at first need: the forget rows' upwards, the retain rows' as weighed."""

    def __init__(self, at: Weights, gradient: Callable[[Weights, Objective], Weights]) -> None:
        self.at, self._gradient = at, gradient

    @cached_property
    def forget(self) -> Weights:
        """Of the forget rows' NLL, which the method's forget term has with a minus."""
        return plus((-1.0, self._gradient(self.at, "forget")))

    @cached_property
    def retain(self) -> Weights:
        """Of the retain term."""
        return self._gradient(self.at, "retain")

    def beside(self, by: Weights, share: float) -> "Place":
        """Another place."""
        return Place(plus((1.0, self.at), (share, by)), self._gradient)

    def slope(self, of: Callable[["Place"], Weights], along: Weights, width: float) -> Weights:
        """Derivative of a gradient along a direction, by a central difference `width` to either side, a share of the parameters' norm."""
        length = norm(along)
        if length == 0.0:
            return {}
        step = width * norm(self.at) / length
        return plus(*((sign / (2 * step), of(self.beside(along, sign * step))) for sign in (1.0, -1.0)))


@dataclass(frozen=True)
class ForgetThenRetain(Combiner):
    """`steps` ascents of the inner objective, clipped, then the outer gradient where they end.

    The ascents and a step down the outer gradient make up one step, as long in both loops: G = outer - sum of ascents. rate: length of
    an ascent by a gradient of norm 1, as a share of the parameters' norm.
    """

    needs_probes: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    steps: int = 1
    rate: float = 1e-3

    @property
    def n_extra_gradients(self) -> float:
        """The forget side after all ascents but the last, the retain side after it."""
        return self.steps / 2

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """G; `parameters` is put back bit by bit."""
        start = {name: p.detach().clone() for name, p in parameters.items()}

        def gradient(at: Weights, objective: Objective) -> Weights:
            for name, p in parameters.items():
                p.copy_(at[name])
            return probe(objective, exact=self.exact)[objective]

        try:
            place = Place(start, gradient)
            # what the step's own passes gave
            place.forget, place.retain = plus((-1.0, gradients["forget"])), dict(gradients["retain"])
            ascents: Weights = {}
            for _ in range(self.steps):
                up = clipped(self.rise(place))
                ascents = plus((1.0, ascents), (1.0, up))
                place = place.beside(up, self.rate * norm(start))
            return plus((1.0, self.fall(place, state)), (-1.0, ascents))
        finally:
            for name, p in parameters.items():
                p.copy_(start[name])

    def rise(self, place: Place) -> Weights:
        """Gradient of the inner objective, to be climbed."""
        return place.forget

    def fall(self, place: Place, state: State) -> Weights:
        """Gradient of the outer objective."""
        return place.retain


def clipped(weights: Weights) -> Weights:
    """The same, of norm `CLIP` at most."""
    return plus((min(1.0, CLIP / max(norm(weights), 1e-30)), weights))
