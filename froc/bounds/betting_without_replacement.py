"""Betting bound for a finite population, sampled without replacement."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, by_block, per_config, shape, total
from froc.bounds.betting import bets, log, root
from froc.bounds.hypergeometric import population_size
from froc.hyperparameters import Range, hyperparameter
from froc.loss_table import SCALE


@dataclass(frozen=True)
class BettingWithoutReplacement(Bound):
    """The betting bound where units are drawn without replacement from a list of N.

    Each draw is bet against the mean that the remaining units would have if the list's mean were a,
    a_t = (N a - sum_{j<t} L_j) / (N - t + 1): K_t(a) = prod_{i<=t} (1 - v_i (L_i - a_i)). Measured losses that sum to
    more than N a prove R > a (p = 1); fewer remaining units than losses still allowed prove R <= a (p = 0). For a
    completely measured list p is 0 or 1 and the bound is the mean.
    level: see `betting`. population: N; 0: as many as are measured. Assumes that every order of drawing was equally
    likely, and an order of units that was fixed before losses were seen.

    >>> losses = np.array([3 * (32 * [0] + [1000])])
    >>> BettingWithoutReplacement(population=200).p_value(losses, alpha=0.1).round(4).tolist()
    [0.0006]
    >>> BettingWithoutReplacement(population=200).upper(losses, delta=0.1).round(4).tolist()
    [0.0645]
    """

    order_free: ClassVar[bool] = False
    finite: ClassVar[bool] = True
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686 (sampling without replacement)"

    level: float = hyperparameter(0.1, Range(1e-6, 0.5, log=True))
    population: int = hyperparameter(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) one over the largest capital; 0 or 1 where the losses decide."""
        risks, many = per_config(alpha, shape(losses)[0]), population_size(self.population, losses.shape[1])
        return by_block(losses, lambda b: p_value_from_losses(losses[b] / SCALE, many, risks[b], self.level))

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) smallest risks that the bets or the measured losses reject at delta."""
        many = population_size(self.population, shape(losses)[1])
        upper_by_capital = by_block(losses, lambda b: upper_from_losses(losses[b] / SCALE, many, delta))
        unseen = SCALE * (many - losses.shape[1])
        return np.asarray(np.minimum(upper_by_capital, (total(losses) + unseen) / (SCALE * many)))


def p_value_from_losses(values: FloatArray, population: int, alpha: FloatArray, level: float) -> FloatArray:
    """(m,) p-values of (m, n) losses in [0, 1] at risks (m,)."""
    n, seen = values.shape[1], values.sum(axis=1)
    p = 1.0 / np.maximum(1.0, largest_capital(values, bets(values, level), population, alpha))
    # sums of thousandths differ by far more than floating-point error
    p = np.where(seen > population * alpha + 1e-9, 1.0, p)
    return np.asarray(np.where(seen + (population - n) <= population * alpha + 1e-9, 0.0, p))


def upper_from_losses(values: FloatArray, population: int, delta: float) -> FloatArray:
    """(m,) upper bounds; at least the mean of a list whose unseen losses are all 0."""
    stakes = bets(values, delta)

    def excess(a: FloatArray, rows: FloatArray) -> FloatArray:
        selected = rows.astype(np.intp)
        return log(largest_capital(values[selected], stakes[selected], population, a)) + math.log(delta)

    n, seen = values.shape[1], values.sum(axis=1)
    low, high = seen / population, (seen + population - n) / population
    roots = root(excess, (low, high))
    return np.clip(roots, low, high)


def largest_capital(values: FloatArray, stakes: FloatArray, population: int, alpha: FloatArray) -> FloatArray:
    """(m,) largest capital after any draw, against risks (m,); never below 0."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.cumprod(capital_factors(values, stakes, population, alpha), axis=1).max(axis=1))


def capital_factors(values: FloatArray, stakes: FloatArray, population: int, alpha: FloatArray) -> FloatArray:
    """(m, n) factors by which each draw multiplies the capital, against risks (m,); never below 0."""
    n = values.shape[1]
    before = np.zeros_like(values)
    np.cumsum(values[:, :-1], axis=1, out=before[:, 1:])
    rest = (population * alpha[:, None] - before) / (population - np.arange(n))
    # the remaining mean cannot be below 0: R > alpha is certain, and the capital is 0
    return np.asarray(np.maximum(np.where(rest < 0, 0.0, 1.0 - stakes * (values - np.minimum(rest, 1.0))), 0.0))
