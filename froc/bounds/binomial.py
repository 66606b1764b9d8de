"""Exact binomial test and Clopper-Pearson bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import special

from froc.bounds import Bound, Losses, Reals, shape, whole
from froc.errors import InputError


@dataclass(frozen=True)
class Binomial(Bound):
    """Exact binomial tail for 0-1 losses: p = P(Bin(n, alpha) <= k); upper by Clopper and Pearson (1934).

    Assumes independent units and losses that are 0 or 1.
    """

    binary_only: ClassVar[bool] = True
    theorem: ClassVar[str] = "Clopper and Pearson 1934"

    def p_value(self, losses: Losses, alpha: float) -> Reals:
        """(m,) P(Bin(n, alpha) <= k), k the number of losses of 1."""
        _, n = shape(_binary(losses))
        return np.asarray(special.bdtr(whole(losses).astype(np.float64), n, alpha), dtype=np.float64)

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) largest risk that k or fewer losses do not exclude at level delta; 1 where all are lost."""
        _, n = shape(_binary(losses))
        return inverse(whole(losses), n, delta)


def inverse(k: np.ndarray[tuple[int, ...], np.dtype[np.int64]], n: int, delta: float) -> Reals:
    """(m,) u with P(Bin(n, u) <= k) = delta; 1 for k >= n."""
    inside = k < n
    some = np.where(inside, k, 0)
    return np.where(inside, special.betaincinv(some + 1.0, n - some, 1.0 - delta), 1.0)


def _binary(losses: Losses) -> Losses:
    if not bool(np.isin(losses, (0, 1000)).all()):
        raise InputError("the exact binomial bound needs losses of 0 or 1; take --bound betting or hoeffding_bentkus")
    return losses
