"""Hoeffding-Serfling bound for a finite population, sampled without replacement."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, mean, shape
from froc.bounds.hypergeometric import population_size
from froc.hyperparameters import Range, hyperparameter


@dataclass(frozen=True)
class HoeffdingSerfling(Bound):
    """upper = r + sqrt(kappa ln(1 / delta) / (2 n)), r the mean of n units drawn without replacement from N.

    kappa = 1 - (n - 1) / N up to half of the list, (1 - n / N)(1 + 1 / n) beyond: it falls to 0 at the whole list.
    Holds for every loss in [0, 1]; plain, but blind to small variance. population: N; 0: as many as are measured.
    Assumes that every order of drawing was equally likely.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> HoeffdingSerfling(population=200).p_value(losses, alpha=0.1).round(4).tolist()
    [0.1436]
    >>> HoeffdingSerfling(population=200).upper(losses, delta=0.1).round(4).tolist()
    [0.1062]
    """

    finite: ClassVar[bool] = True
    theorem: ClassVar[str] = "Serfling 1974; Bardenet and Maillard 1309.4029"

    population: int = hyperparameter(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) exp(-2 n (alpha - r)^2 / kappa)."""
        n = shape(losses)[1]
        return p_value_from_mean(mean(losses), n, population_size(self.population, n), alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) upper bounds, at most 1; the mean itself for the whole list."""
        n = shape(losses)[1]
        return upper_from_mean(mean(losses), n, population_size(self.population, n), delta)


def kappa(n: int, population: int) -> float:
    """The factor by which drawing without replacement shrinks Hoeffding's variance."""
    if 2 * n <= population:
        return 1.0 - (n - 1) / population
    return (1.0 - n / population) * (1.0 + 1.0 / n)


def p_value_from_mean(average: FloatArray, n: int, population: int, alpha: Level) -> FloatArray:
    """(m,) p-values; 0 or 1 for the whole list."""
    factor = kappa(n, population)
    if factor <= 0:
        return np.where(average <= np.asarray(alpha) + 1e-12, 0.0, 1.0)
    gap = np.maximum(0.0, alpha - average)
    return np.asarray(np.exp(-2.0 * n * gap * gap / factor))


def upper_from_mean(average: FloatArray, n: int, population: int, delta: float) -> FloatArray:
    """(m,) upper bounds from means."""
    return np.minimum(1.0, average + math.sqrt(kappa(n, population) * math.log(1.0 / delta) / (2.0 * n)))
