"""Bi-level training, forgetting inside and retaining outside: what `ofmu` and `ofmu_first` share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch.nn import Parameter

from froc.methods._combining import norm, plus, restored
from froc.training.components import Combiner, GradientProbe
from froc.training.terms import Objective, State, Weights

CLIP = 1.0
"""Largest norm of an ascent step's gradient: the forget loss is unbounded above."""


class Place:
    """A point in parameter space and both NLL gradients there, computed on first use.

    The forget gradient is that of +NLL(forget); the retain gradient includes the retain term's weight.
    """

    def __init__(self, at: Weights, gradient: Callable[[Weights, Objective], Weights]) -> None:
        self.at, self._gradient = at, gradient

    @cached_property
    def forget(self) -> Weights:
        """Gradient of the forget rows' NLL; the method's forget term has the opposite sign."""
        return plus((-1.0, self._gradient(self.at, "forget")))

    @cached_property
    def retain(self) -> Weights:
        """Gradient of the retain term."""
        return self._gradient(self.at, "retain")

    def beside(self, by: Weights, share: float) -> "Place":
        """The point at `self.at + share * by`."""
        return Place(plus((1.0, self.at), (share, by)), self._gradient)

    def slope(self, of: Callable[["Place"], Weights], along: Weights, width: float) -> Weights:
        """Derivative of a gradient along a direction, by a central difference.

        width: step to either side, as a share of the parameters' norm.
        """
        length = norm(along)
        if length == 0.0:
            return {}
        step = width * norm(self.at) / length
        return plus(*((sign / (2 * step), of(self.beside(along, sign * step))) for sign in (1.0, -1.0)))


@dataclass(frozen=True)
class ForgetThenRetain(Combiner):
    """`steps` clipped ascents on the inner objective, then the outer gradient at the point they reach.

    Both loops have one step size, so the optimiser receives G = outer gradient - sum of ascents.

    rate: length of an ascent by a gradient of norm 1, as a share of the parameters' norm.
    """

    needs_probes: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    steps: int = 1
    rate: float = 1e-3

    @property
    def n_extra_gradients(self) -> float:
        """The forget side after all ascents but the last, the retain side after the last; in units of one gradient of both sides."""
        return self.steps / 2

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """G; `parameters` are restored bit by bit."""

        def gradient(at: Weights, objective: Objective) -> Weights:
            for name, p in parameters.items():
                p.copy_(at[name])
            return probe(objective, exact=self.exact)[objective]

        with restored(parameters) as start:
            place = Place(start, gradient)
            # the step has already computed the gradients at its start
            place.forget, place.retain = plus((-1.0, gradients["forget"])), dict(gradients["retain"])
            ascents: Weights = {}
            for _ in range(self.steps):
                up = clipped(self.rise(place))
                ascents = plus((1.0, ascents), (1.0, up))
                place = place.beside(up, self.rate * norm(start))
            return plus((1.0, self.fall(place, state)), (-1.0, ascents))

    def rise(self, place: Place) -> Weights:
        """Gradient of the inner objective, to be ascended."""
        return place.forget

    def fall(self, place: Place, state: State) -> Weights:
        """Gradient of the outer objective."""
        return place.retain


def clipped(weights: Weights) -> Weights:
    """The same direction, scaled down to norm `CLIP` at most."""
    return plus((min(1.0, CLIP / max(norm(weights), 1e-30)), weights))
