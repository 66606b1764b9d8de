"""Betting bound for a listed population, measured in part, that no order of units enters."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, Level, Losses, Reals, each, shape, total
from froc.bounds.betting import bets, root
from froc.bounds.betting_over_orders import in_blocks, shuffled
from froc.bounds.betting_without_replacement import steps
from froc.bounds.hypergeometric import size
from froc.hyperparameters import Range, hyper
from froc.loss_table import SCALE


@dataclass(frozen=True)
class BettingOverOrdersWithoutReplacement(Bound):
    """`betting_over_orders` where units are drawn without replacement from a list of N.

    The mean final capital of `betting_without_replacement` over random orders of the losses, for the same reason an e-value:
    given which losses were drawn, every order of drawing was equally likely. What is known for certain counts as such, as there.
    level: see `betting`. population: N; 0: as many as are measured.
    """

    finite: ClassVar[bool] = True
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686 (sampling without replacement), mean over orders"

    level: float = hyper(0.1, Range(1e-6, 0.5, log=True))
    population: int = hyper(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> Reals:
        """(m,) one over the mean capital; 0 or 1 where the losses decide."""
        risks, many = each(alpha, shape(losses)[0]), size(self.population, losses.shape[1])
        p = in_blocks(losses, lambda b: np.exp(-np.maximum(0.0, _Orders(losses[b], many, self.level).log_e(risks[b]))))
        seen, unseen = total(losses) / SCALE, many - losses.shape[1]
        # sums of thousandths are far apart compared with what floats add
        p = np.where(seen > many * risks + 1e-9, 1.0, p)
        return np.asarray(np.where(seen + unseen <= many * risks + 1e-9, 0.0, p))

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) smallest risks that the mean capital or the losses exclude at delta."""
        many = size(self.population, shape(losses)[1])
        low = total(losses) / (SCALE * many)
        high = (total(losses) + SCALE * (many - losses.shape[1])) / (SCALE * many)
        return np.clip(
            in_blocks(losses, lambda b: _Orders(losses[b], many, delta).upper(delta, low[b], high[b])), low, high
        )


class _Orders:
    """(m, n) losses in k orders, with the bets of each."""

    def __init__(self, losses: Losses, population: int, level: float) -> None:
        m, n = losses.shape
        self.values = shuffled(losses).reshape(-1, n) / SCALE
        self.stakes = bets(self.values, level)
        self.population, self.shape = population, (m, len(self.values) // m, n)

    def log_e(self, alpha: Reals, rows: slice | Reals = slice(None)) -> Reals:
        """(r,) logarithms of the mean final capital of some rows, at a risk each."""
        at = rows if isinstance(rows, slice) else rows.astype(np.intp)
        k, n = self.shape[1:]
        values, stakes = (array.reshape(self.shape)[at].reshape(-1, n) for array in (self.values, self.stakes))
        gains = np.maximum(steps(values, stakes, self.population, np.repeat(alpha, k)), 1e-300)
        logs = np.log(gains).sum(axis=1).reshape(-1, k)
        return np.asarray(np.logaddexp.reduce(logs, axis=1) - np.log(k))

    def upper(self, delta: float, low: Reals, high: Reals) -> Reals:
        """(m,) where the mean capital passes 1 / delta."""
        return root(lambda a, rows: np.asarray(self.log_e(a, rows) + np.log(delta)), (low, high))
