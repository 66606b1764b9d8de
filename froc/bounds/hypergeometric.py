"""Exact hypergeometric test and bound for a finite population, sampled without replacement."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import hypergeom

from froc.bounds import Bound, FloatArray, IntArray, Level, Losses, counts, per_config, shape
from froc.errors import InputError
from froc.hyperparameters import Range, hyperparameter


@dataclass(frozen=True)
class Hypergeometric(Bound):
    """Exact tail for 0-1 losses of n units drawn without replacement from a list of N.

    With M losses of 1 in the list, R = M / N: p = P(Hyp(N, M, n) <= k) at the smallest M above alpha N;
    upper = the largest M / N with P(Hyp(N, M, n) <= k) > delta. population: N; 0: as many as are measured.
    Assumes that every set of n units was equally likely to be drawn.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> Hypergeometric(population=200).p_value(losses, alpha=0.1).round(4).tolist()
    [0.0004]
    >>> Hypergeometric(population=200).upper(losses, delta=0.1).round(4).tolist()
    [0.055]
    """

    binary_only: ClassVar[bool] = True
    finite: ClassVar[bool] = True
    theorem: ClassVar[str] = "exact: the hypergeometric tail inverted"

    population: int = hyperparameter(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) hypergeometric tails."""
        n = shape(losses)[1]
        return p_value_from_count(counts(losses), n, population_size(self.population, n), alpha)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) multiples of 1 / N."""
        n = shape(losses)[1]
        return upper_from_count(counts(losses), n, population_size(self.population, n), delta)


def population_size(population: int, n: int) -> int:
    """The population's size; InputError where fewer are listed than measured."""
    if population and population < n:
        raise InputError(f"{n} units are measured, but only {population} are listed; correct the list's size")
    return population or n


def p_value_from_count(k: IntArray, n: int, population: int, alpha: Level) -> FloatArray:
    """(m,) P(Hyp(N, M, n) <= k), M the smallest number of losses with M / N > alpha; 0 where there is none."""
    # alpha N is often a whole number that floats miss by rounding
    least = np.floor(per_config(alpha, len(k)) * population + 1e-9).astype(np.int64) + 1
    possible = (least <= population) & (k <= n)
    p = hypergeom.cdf(k, population, np.clip(least, 0, population), n)
    return np.asarray(np.clip(np.where(possible, p, 0.0), 0.0, 1.0))


def upper_from_count(k: IntArray, n: int, population: int, delta: float) -> FloatArray:
    """(m,) largest M / N that k losses among n do not exclude, by bisection over M: the tail falls as M grows."""
    low, high = k.copy(), population - n + k
    while bool((low < high).any()):
        middle = (low + high + 1) // 2
        kept = hypergeom.cdf(k, population, middle, n) > delta
        low, high = np.where(kept, middle, low), np.where(kept, high, middle - 1)
    return np.asarray(low / population)
