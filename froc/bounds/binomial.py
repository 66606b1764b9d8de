"""Exact binomial test and Clopper-Pearson bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special

from froc.bounds import Bound, FloatArray, IntArray, Level, Losses, counts, shape


@dataclass(frozen=True)
class Binomial(Bound):
    """Exact binomial tail for 0-1 losses: p = P(Bin(n, alpha) <= k); upper by Clopper and Pearson (1934).

    Assumes independent units and losses that are 0 or 1.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> Binomial().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0078]
    >>> Binomial().upper(losses, delta=0.1).round(4).tolist()
    [0.0656]
    """

    binary_only: ClassVar[bool] = True
    theorem: ClassVar[str] = "Clopper and Pearson 1934"

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) P(Bin(n, alpha) <= k), k the number of losses of 1."""
        return p_value_from_count(counts(losses), shape(losses)[1], alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) largest risks that are not rejected at delta; 1 where all losses are 1."""
        return upper_from_count(counts(losses), shape(losses)[1], delta)


def p_value_from_count(k: IntArray, n: int, alpha: Level) -> FloatArray:
    """(m,) P(Bin(n, alpha) <= k) for counts k in 0..n."""
    return np.asarray(special.bdtr(k.astype(np.float64), n, alpha), dtype=np.float64)


def upper_from_count(k: IntArray, n: int, delta: float) -> FloatArray:
    """(m,) u with P(Bin(n, u) <= k) = delta; 1 for k >= n."""
    inside = k < n
    # of the upper tail, since 1 - delta has lost the digits of a small delta
    count = np.where(inside, k, 0)
    return np.where(inside, special.betainccinv(count + 1.0, n - count, delta), 1.0)
