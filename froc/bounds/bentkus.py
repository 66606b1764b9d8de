"""Bentkus's bound."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, IntArray, Level, Losses, binomial, ceil_sum, shape


@dataclass(frozen=True)
class Bentkus(Bound):
    """p = e P(Bin(n, alpha) <= ceil(n r)), r the mean loss; upper: that tail inverted at delta / e.

    Holds for every loss in [0, 1], at the price of a factor e against the exact binomial test. Assumes independent
    units.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> Bentkus().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0213]
    >>> Bentkus().upper(losses, delta=0.1).round(4).tolist()
    [0.08]
    """

    theorem: ClassVar[str] = "Bentkus 2004; Bates et al. 2101.02703"

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) e times the binomial tail, at most 1."""
        return p_value_from_sum(ceil_sum(losses), shape(losses)[1], alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) inverted tails."""
        return upper_from_sum(ceil_sum(losses), shape(losses)[1], delta)


def p_value_from_sum(k: IntArray, n: int, alpha: Level) -> FloatArray:
    """(m,) min(1, e P(Bin(n, alpha) <= k)), k the sum of losses rounded up to a whole number."""
    return np.minimum(1.0, math.e * binomial.p_value_from_count(k, n, alpha))


def upper_from_sum(k: IntArray, n: int, delta: float) -> FloatArray:
    """(m,) Clopper-Pearson bounds at delta / e."""
    return binomial.upper_from_count(k, n, delta / math.e)
