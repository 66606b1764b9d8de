"""Betting bound for a finite population, sampled without replacement, that does not depend on the order of units."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, per_config, shape, total
from froc.bounds.betting import bets, root
from froc.bounds.betting_over_orders import by_ordered_block, in_random_orders
from froc.bounds.betting_without_replacement import capital_factors
from froc.bounds.hypergeometric import population_size
from froc.hyperparameters import Range, hyperparameter
from froc.loss_table import SCALE


@dataclass(frozen=True)
class BettingOverOrdersWithoutReplacement(Bound):
    """`betting_over_orders` where units are drawn without replacement from a list of N.

    The mean final capital of `betting_without_replacement` over random orders of the losses. It is an e-value: given which
    losses were drawn, every order of drawing was equally likely. Certain conclusions count as there.
    level: see `betting`. population: N; 0: as many as are measured.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> BettingOverOrdersWithoutReplacement(population=200).p_value(losses, alpha=0.1).round(4).tolist()
    [0.0036]
    >>> BettingOverOrdersWithoutReplacement(population=200).upper(losses, delta=0.1).round(4).tolist()
    [0.0766]
    """

    finite: ClassVar[bool] = True
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686 (sampling without replacement), mean over orders"

    level: float = hyperparameter(0.1, Range(1e-6, 0.5, log=True))
    population: int = hyperparameter(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) one over the mean capital; 0 or 1 where the losses decide."""
        risks, listed = per_config(alpha, shape(losses)[0]), population_size(self.population, losses.shape[1])
        p = by_ordered_block(
            losses, lambda b: np.exp(-np.maximum(0.0, _Orders(losses[b], listed, self.level).log_e(risks[b])))
        )
        seen, unseen = total(losses) / SCALE, listed - losses.shape[1]
        # sums of thousandths differ by far more than floating-point error
        p = np.where(seen > listed * risks + 1e-9, 1.0, p)
        return np.asarray(np.where(seen + unseen <= listed * risks + 1e-9, 0.0, p))

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) smallest risks that the mean capital or the losses exclude at delta."""
        listed = population_size(self.population, shape(losses)[1])
        low = total(losses) / (SCALE * listed)
        high = (total(losses) + SCALE * (listed - losses.shape[1])) / (SCALE * listed)
        return np.clip(
            by_ordered_block(losses, lambda b: _Orders(losses[b], listed, delta).upper(delta, low[b], high[b])),
            low,
            high,
        )


class _Orders:
    """(m, n) losses in k orders, with the bets of each."""

    def __init__(self, losses: Losses, population: int, level: float) -> None:
        m, n = losses.shape
        self.values = in_random_orders(losses).reshape(-1, n) / SCALE
        self.stakes = bets(self.values, level)
        self.population, self.shape = population, (m, len(self.values) // m, n)

    def log_e(self, alpha: FloatArray, rows: slice | FloatArray = slice(None)) -> FloatArray:
        """(r,) logarithms of the mean final capital of some rows, at a risk each."""
        at = rows if isinstance(rows, slice) else rows.astype(np.intp)
        k, n = self.shape[1:]
        values, stakes = (array.reshape(self.shape)[at].reshape(-1, n) for array in (self.values, self.stakes))
        gains = np.maximum(capital_factors(values, stakes, self.population, np.repeat(alpha, k)), 1e-300)
        logs = np.log(gains).sum(axis=1).reshape(-1, k)
        return np.asarray(np.logaddexp.reduce(logs, axis=1) - np.log(k))

    def upper(self, delta: float, low: FloatArray, high: FloatArray) -> FloatArray:
        """(m,) where the mean capital passes 1 / delta."""
        return root(lambda a, rows: np.asarray(self.log_e(a, rows) + np.log(delta)), (low, high))
