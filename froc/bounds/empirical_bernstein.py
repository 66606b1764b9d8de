"""Empirical Bernstein bound."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, mean, shape, total
from froc.loss_table import SCALE


@dataclass(frozen=True)
class EmpiricalBernstein(Bound):
    """upper = r + sqrt(2 V ln(2 / delta) / n) + 7 ln(2 / delta) / (3 (n - 1)), V the unbiased variance of losses.

    The p-value is the smallest delta at which the bound meets alpha. Holds for every loss in [0, 1]; weak below a
    few thousand units, where betting needs fewer. Assumes independent units.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> EmpiricalBernstein().p_value(losses, alpha=0.1).round(4).tolist()
    [0.3845]
    >>> EmpiricalBernstein().upper(losses, delta=0.1).round(4).tolist()
    [0.1426]
    """

    theorem: ClassVar[str] = "Maurer and Pontil 0907.3740"

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) levels at which the bound meets alpha."""
        return p_value_from_moments(mean(losses), variance(losses), shape(losses)[1], alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) bounds, at most 1; 1 for a single unit, which has no variance."""
        return upper_from_moments(mean(losses), variance(losses), shape(losses)[1], delta)


def variance(losses: Losses) -> FloatArray:
    """(m,) unbiased variances of the losses; 0 for a single unit."""
    n = losses.shape[1]
    first = total(losses).astype(np.float64)
    squares = np.array([np.dot(row := line.astype(np.float64), row) for line in losses]).reshape(len(losses))
    return np.asarray(np.maximum(0.0, (squares - first * first / max(1, n)) / max(1, n - 1)) / SCALE**2)


def p_value_from_moments(average: FloatArray, spread: FloatArray, n: int, alpha: Level) -> FloatArray:
    """(m,) min(1, 2 exp(-x^2)), x the root of b x^2 + a x = alpha - r with a = sqrt(2 V / n), b = 7 / (3 (n - 1))."""
    if n < 2:
        return np.ones(len(average))
    gap = np.maximum(0.0, alpha - average)
    a, b = np.sqrt(2.0 * spread / n), 7.0 / (3.0 * (n - 1))
    # the root in a form without cancellation
    with np.errstate(invalid="ignore"):
        x = np.where(gap > 0, 2.0 * gap / (a + np.sqrt(a * a + 4.0 * b * gap)), 0.0)
    return np.asarray(np.minimum(1.0, 2.0 * np.exp(-x * x)))


def upper_from_moments(average: FloatArray, spread: FloatArray, n: int, delta: float) -> FloatArray:
    """(m,) upper bounds from means and unbiased variances."""
    if n < 2:
        return np.ones(len(average))
    log = math.log(2.0 / delta)
    return np.minimum(1.0, average + np.sqrt(2.0 * spread * log / n) + 7.0 * log / (3.0 * (n - 1)))
