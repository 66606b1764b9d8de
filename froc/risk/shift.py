"""Distribution shift within a Hellinger radius. Torch-free.

For every loss in [0, 1] and every distribution Q with Hellinger distance at most rho from P,
R_Q <= g_rho(R_P) = sin^2(min(pi/2, asin sqrt(R_P) + acos(1 - rho^2))): data processing to a Bernoulli, then
the triangle inequality of angles. Exact for 0-1 losses; rho = 0 changes nothing.
"""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Risk = TypeVar("Risk", float, NDArray[np.float64])


def shifted(upper: Risk, rho: float) -> Risk:
    """g_rho(upper): the bound on every distribution within rho; upper in [0, 1], rho in [0, 1].

    >>> round(float(shifted(0.05, rho=0.1)), 4)
    0.1288
    """
    if rho == 0:
        return upper
    angle = np.minimum(math.pi / 2, np.arcsin(np.sqrt(upper)) + math.acos(1.0 - rho * rho))
    bound: Risk = np.sin(angle) ** 2
    return bound


def shrunk(budget: Risk, rho: float) -> Risk:
    """The budget to test without shift so that `budget` holds within rho; 0 where no test can show that.

    >>> round(float(shrunk(0.1, rho=0.1)), 4)
    0.0321
    """
    if rho == 0:
        return budget
    angle = np.maximum(0.0, np.arcsin(np.sqrt(budget)) - math.acos(1.0 - rho * rho))
    level: Risk = np.sin(angle) ** 2
    return level


def robust_radius(upper: float, budget: float) -> float | None:
    """Largest rho at which `upper` keeps the budget; None where it exceeds it at 0."""
    if upper > budget:
        return None
    angle = math.asin(math.sqrt(budget)) - math.asin(math.sqrt(upper))
    # sqrt(1 - cos angle), without cancellation for small angles
    return math.sqrt(2.0) * math.sin(max(0.0, angle) / 2)
