"""Hoeffding's bound in its relative-entropy form."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, mean, shape

MAX_NEWTON_STEPS = 100
"""Newton steps at most; a dozen are common."""


@dataclass(frozen=True)
class HoeffdingKL(Bound):
    """p = exp(-n kl(min(r, alpha), alpha)), r the mean loss; upper: the largest u with n kl(r, u) <= ln(1 / delta).

    Holds for every loss in [0, 1]. Assumes independent units.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> HoeffdingKL().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0259]
    >>> HoeffdingKL().upper(losses, delta=0.1).round(4).tolist()
    [0.0816]
    """

    theorem: ClassVar[str] = "Hoeffding 1963; Learn then Test 2110.01052"

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) Chernoff tails."""
        return p_value_from_mean(mean(losses), shape(losses)[1], alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) inverted tails."""
        return upper_from_mean(mean(losses), shape(losses)[1], delta)


def p_value_from_mean(average: FloatArray, n: int, alpha: Level) -> FloatArray:
    """(m,) exp(-n kl(min(r, alpha), alpha)) for mean losses r in [0, 1]."""
    return np.exp(-n * kl(np.minimum(average, alpha), np.asarray(alpha, dtype=np.float64)))


def upper_from_mean(average: FloatArray, n: int, delta: float) -> FloatArray:
    """(m,) largest u with n kl(r, u) <= ln(1 / delta), for mean losses r; 1 - delta**(1/n) at r = 0.

    Newton's method from above: kl(r, .) is convex and grows to the right of r, so that no step goes below u.
    """
    room = math.log(1.0 / delta) / n
    low = np.minimum(average, 1.0)
    left = 1.0 - low
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(low > 0, low * np.log(low), 0.0) - np.where(left > 0, left * np.log(left), 0.0)
        # kl is at least 2 (u - r)^2, and at least the part of it that holds ln(1 - u): two starts above u
        start = np.where(left > 0, -np.expm1(-(room + entropy) / np.where(left > 0, left, 1.0)), 1.0)
        high = np.minimum(low + math.sqrt(room / 2.0), start)
        for _ in range(MAX_NEWTON_STEPS):
            step = (kl(low, high) - room) * high * (1.0 - high) / (high - low)
            moved = np.where((step > 0) & (high < 1), high - step, high)
            if not bool((moved < high).any()):
                break
            high = moved
    return np.asarray(high)


def kl(a: FloatArray, b: FloatArray) -> FloatArray:
    """Relative entropy of Bernoulli(a) from Bernoulli(b) in nats, 0 log 0 = 0; infinite where b excludes a."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(a > 0, a * np.log(a / b), 0.0)
        second = np.where(a < 1, (1 - a) * (np.log1p(-a) - np.log1p(-b)), 0.0)
    return np.asarray(first + second)
