"""Hoeffding-Bentkus bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import (
    Bound,
    FloatArray,
    IntArray,
    Level,
    Losses,
    bentkus,
    ceil_thousandths,
    hoeffding_kl,
    per_config,
    total,
)
from froc.loss_table import SCALE


@dataclass(frozen=True)
class HoeffdingBentkus(Bound):
    """The smaller of the Hoeffding-KL and Bentkus p-values, valid for every loss in [0, 1].

    p = min(exp(-n kl(min(r, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n r))), r the mean loss: both bound the same
    tail, so the smaller one does. Assumes independent units.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> HoeffdingBentkus().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0213]
    >>> HoeffdingBentkus().upper(losses, delta=0.1).round(4).tolist()
    [0.08]
    """

    theorem: ClassVar[str] = "Hoeffding 1963; Bentkus 2004; Bates et al. 2101.02703"

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) p-values, MAPIE's."""
        sums, n = total(losses), losses.shape[1]
        return p_value_from_mean(sums / (SCALE * n), ceil_thousandths(sums), n, alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) the smaller of the two inverted parts."""
        sums, n = total(losses), losses.shape[1]
        return upper_from_mean(sums / (SCALE * n), ceil_thousandths(sums), n, delta)


def p_value_from_mean(average: FloatArray, k: IntArray, n: int, alpha: Level) -> FloatArray:
    """(m,) p-values by MAPIE for mean losses with k = ceil(n mean), k known exactly."""
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    # MAPIE computes ceil(n * mean) in floats: step back where rounding would give k + 1
    average = np.where(np.ceil(average * n) > k, np.nextafter(average, 0.0), average)
    if isinstance(alpha, float):
        return np.asarray(np.minimum(1.0, compute_hoeffding_bentkus_p_value(average, int(n), alpha)[:, 0]))
    p = np.ones(len(average))
    for level in np.unique(alpha):
        at_level = per_config(alpha, len(average)) == level
        p[at_level] = compute_hoeffding_bentkus_p_value(average[at_level], int(n), float(level))[:, 0]
    return np.clip(p, 0.0, 1.0)


def upper_from_mean(average: FloatArray, k: IntArray, n: int, delta: float) -> FloatArray:
    """(m,) upper bounds at delta for mean losses with k = ceil(n mean)."""
    return np.minimum(bentkus.upper_from_sum(k, n, delta), hoeffding_kl.upper_from_mean(average, n, delta))
