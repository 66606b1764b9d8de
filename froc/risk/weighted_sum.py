"""The combined risk: a weighted sum of two risks, such as w_f forgetting + w_u utility. Torch-free.

For weights w > 0 that sum to at most 1 the combined risk w_1 R_1 + w_2 R_2 is again in [0, 1]. The two need not be
measured independently of each other: each is bounded at delta / 2.

* upper: w_1 U_1(delta / 2) + w_2 U_2(delta / 2).
* p-value for H: w_1 R_1 + w_2 R_2 > c: the largest, over all splits w_1 r_1 + w_2 r_2 = c, of 2 min(p_1(r_1), p_2(r_2)).
  If H holds, some split has r_1 <= R_1 and r_2 <= R_2, and there Bonferroni's inequality makes twice the smaller a
  p-value. It is at most delta exactly where upper bounds from the same test are at most c together.
"""

from collections.abc import Callable

import numpy as np

from froc.bounds import FloatArray

COMBINED = "combined"
"""Its name among budgets."""
PValueFunction = Callable[[FloatArray], FloatArray]
"""(m,) p-values of one risk at levels (m,) in (0, 1); they fall as the level grows."""
BISECTIONS = 50


def p_value(
    first: tuple[float, PValueFunction], second: tuple[float, PValueFunction], budget: float, m: int
) -> FloatArray:
    """(m,) p-values of the combined risk, not below the exact ones, from (weight, p-value function) of each part.

    Along the splits one p-value falls and the other grows, so the largest minimum is where they cross.
    """
    low, high = np.zeros(m), np.ones(m)
    p_low, p_high = np.ones(m), np.ones(m)
    for _ in range(BISECTIONS):
        share = 0.5 * (low + high)
        p, q = _at(*first, share * budget), _at(*second, (1.0 - share) * budget)
        before = p >= q
        low, p_low = np.where(before, share, low), np.where(before, p, p_low)
        high, p_high = np.where(before, high, share), np.where(before, p_high, q)
    # between low and high the first is at most its value at low, the second at most its value at high
    return np.minimum(1.0, 2.0 * np.minimum(p_low, p_high))


def _at(weight: float, tail: PValueFunction, cost: FloatArray) -> FloatArray:
    level = cost / weight
    # no risk is above 1
    return np.where(level >= 1.0, 0.0, tail(np.clip(level, 1e-12, 1.0 - 1e-12)))
