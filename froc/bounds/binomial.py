"""Exact binomial test and Clopper-Pearson bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special

from froc.bounds import Bound, Level, Losses, Reals, Wholes, counts, shape


@dataclass(frozen=True)
class Binomial(Bound):
    """Exact binomial tail for 0-1 losses: p = P(Bin(n, alpha) <= k); upper by Clopper and Pearson (1934).

    Assumes independent units and losses that are 0 or 1.
    """

    binary_only: ClassVar[bool] = True
    theorem: ClassVar[str] = "Clopper and Pearson 1934"

    def p_value(self, losses: Losses, alpha: Level) -> Reals:
        """(m,) P(Bin(n, alpha) <= k), k the number of losses of 1."""
        return tail(counts(losses), shape(losses)[1], alpha)

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) largest risk that k or fewer losses do not exclude at level delta; 1 where all are lost."""
        return ceiling(counts(losses), shape(losses)[1], delta)


def tail(k: Wholes, n: int, alpha: Level) -> Reals:
    """(m,) P(Bin(n, alpha) <= k) for counts k in 0..n."""
    return np.asarray(special.bdtr(k.astype(np.float64), n, alpha), dtype=np.float64)


def ceiling(k: Wholes, n: int, delta: float) -> Reals:
    """(m,) u with P(Bin(n, u) <= k) = delta; 1 for k >= n."""
    inside = k < n
    some = np.where(inside, k, 0)
    return np.where(inside, special.betaincinv(some + 1.0, n - some, 1.0 - delta), 1.0)
