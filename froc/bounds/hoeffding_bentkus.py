"""Hoeffding-Bentkus bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, Level, Losses, Reals, Wholes, bentkus, each, hoeffding_kl, rounded, total
from froc.loss_table import SCALE


@dataclass(frozen=True)
class HoeffdingBentkus(Bound):
    """The smaller of the Hoeffding-KL and Bentkus p-values, valid for every loss in [0, 1].

    p = min(exp(-n kl(min(r, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n r))), r the mean loss: both bound the same
    tail, so the smaller one does. Assumes independent units.
    """

    theorem: ClassVar[str] = "Hoeffding 1963; Bentkus 2004; Bates et al. 2101.02703"

    def p_value(self, losses: Losses, alpha: Level) -> Reals:
        """(m,) p-values, MAPIE's."""
        sums, n = total(losses), losses.shape[1]
        return tail(sums / (SCALE * n), rounded(sums), n, alpha)

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) the smaller of the two inverted parts."""
        sums, n = total(losses), losses.shape[1]
        return ceiling(sums / (SCALE * n), rounded(sums), n, delta)


def tail(average: Reals, k: Wholes, n: int, alpha: Level) -> Reals:
    """(m,) p-values by MAPIE for mean losses with k = ceil(n mean), k known exactly."""
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    # MAPIE takes ceil(n * mean) in floats: step back where that would slip over the whole number k
    average = np.where(np.ceil(average * n) > k, np.nextafter(average, 0.0), average)
    if isinstance(alpha, float):
        return np.asarray(np.minimum(1.0, compute_hoeffding_bentkus_p_value(average, int(n), alpha)[:, 0]))
    found = np.ones(len(average))
    for one in np.unique(alpha):
        some = each(alpha, len(average)) == one
        found[some] = compute_hoeffding_bentkus_p_value(average[some], int(n), float(one))[:, 0]
    return np.clip(found, 0.0, 1.0)


def ceiling(average: Reals, k: Wholes, n: int, delta: float) -> Reals:
    """(m,) upper bounds at delta for mean losses with k = ceil(n mean)."""
    return np.minimum(bentkus.ceiling(k, n, delta), hoeffding_kl.ceiling(average, n, delta))
