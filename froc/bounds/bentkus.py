"""Bentkus's bound."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, Level, Losses, Reals, Wholes, binomial, shape, whole


@dataclass(frozen=True)
class Bentkus(Bound):
    """p = e P(Bin(n, alpha) <= ceil(n r)), r the mean loss; upper: that tail inverted at delta / e.

    Holds for every loss in [0, 1]: the factor e is the price against the exact binomial test. Assumes independent
    units.
    """

    theorem: ClassVar[str] = "Bentkus 2004; Bates et al. 2101.02703"

    def p_value(self, losses: Losses, alpha: Level) -> Reals:
        """(m,) e times the binomial tail, at most 1."""
        return tail(whole(losses), shape(losses)[1], alpha)

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) inverted tails."""
        return ceiling(whole(losses), shape(losses)[1], delta)


def tail(k: Wholes, n: int, alpha: Level) -> Reals:
    """(m,) min(1, e P(Bin(n, alpha) <= k)), k the sum of losses rounded up to a whole number."""
    return np.minimum(1.0, math.e * binomial.tail(k, n, alpha))


def ceiling(k: Wholes, n: int, delta: float) -> Reals:
    """(m,) Clopper-Pearson bounds at delta / e."""
    return binomial.ceiling(k, n, delta / math.e)
