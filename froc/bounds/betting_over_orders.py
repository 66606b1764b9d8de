"""Betting bound that does not depend on the order of units."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.bounds import Bound, FloatArray, Level, Losses, mixture, per_config, shape
from froc.bounds.betting import bets, root
from froc.bounds.mixture import histogram
from froc.hyperparameters import Range, hyperparameter
from froc.loss_table import SCALE

MAX_ORDERS = 16
"""Orders that the capital is averaged over; fewer for long rows, at least MIN_ORDERS, as their capitals differ less."""
MIN_ORDERS = 4
MAX_ORDERED_LOSSES = 1 << 17
"""Losses of a row in all its orders; longer rows get fewer orders."""
CONSTANT_BETS_FRACTION = 0.1
"""Fraction of the initial capital for constant bets. It costs the other bets ln(1 / 0.9), 2 % of a bound's width, and helps where
they fail."""
BLOCK_LOSSES = 1 << 16
"""Losses, in all orders, processed at a time."""


@dataclass(frozen=True)
class BettingOverOrders(Bound):
    """Mean final capital of gamblers who bet that R < alpha, each on another random order of the losses; a tenth on constant bets.

    e(a) = 0.9 mean_k K_n(a; pi_k L) + 0.1 m(a) with K_n(a; L) = prod_i (1 - v_i (L_i - a)), the bets v of `betting`, which see the
    past only, and the e-value m of `mixture`, whose bets are constant; p = min(1, 1 / e) by Markov's inequality; the upper bound is
    the smallest a with e(a) = 1 / delta or more. A mean of e-values with weights that were fixed beforehand is one.
    Given which losses there are, independent units stand in every order alike, so that a uniformly random order pi
    of the sorted losses has their law and K_n(R; pi L) has expectation at most 1; so has its mean over several. The final
    capital, not the largest: a mean of running maxima is no e-value. The orders are drawn with the SHA-256 of the sorted losses
    for a seed, which makes p a function of what was measured alone: no name of a unit and no order of rows can
    change it, and nobody can try several. Constant bets are better where losses are large and alike, or rare; weaker elsewhere, which
    a tenth of the capital costs little. Weaker than one order that was fixed beforehand, by what the largest capital
    gains over the last. Assumes independent units. level: see `betting`.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> BettingOverOrders().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0588]
    >>> BettingOverOrders().upper(losses, delta=0.1).round(4).tolist()
    [0.0946]
    """

    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686; a mean of e-values is one (Vovk and Wang 1912.06116)"

    level: float = hyperparameter(0.1, Range(1e-6, 0.5, log=True))

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) one over the mean capital, at most 1."""
        return np.asarray(np.exp(-np.maximum(0.0, self._logs(losses, alpha))))

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) smallest risks that the mean capital excludes at delta; 1 where it excludes none."""
        shape(losses)
        return by_ordered_block(losses, lambda b: _Orders(losses[b], delta).upper(delta))

    def e_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) mean capital; the largest float where it is beyond that."""
        return np.asarray(np.exp(np.minimum(700.0, self._logs(losses, alpha))))

    def _logs(self, losses: Losses, alpha: Level) -> FloatArray:
        risks = per_config(alpha, shape(losses)[0])
        return by_ordered_block(losses, lambda b: _Orders(losses[b], self.level).log_e(risks[b]))


class _Orders:
    """(m, n) losses in k orders, with the bets of each order; they do not depend on the risk that is tested."""

    def __init__(self, losses: Losses, level: float) -> None:
        m, n = losses.shape
        values = in_random_orders(losses).reshape(-1, n) / SCALE
        self.stakes = bets(values, level)
        self.kept = 1.0 - self.stakes * values
        self.count = histogram(losses)
        self.average = losses.mean(axis=1) / SCALE
        self.shape = (m, len(values) // m, n)

    def log_e(self, alpha: FloatArray, rows: slice | NDArray[np.intp] = slice(None)) -> FloatArray:
        """(r,) logarithms of the mean final capital of some rows, at a risk each."""
        kept, stakes = self.kept.reshape(self.shape)[rows], self.stakes.reshape(self.shape)[rows]
        steps = stakes * alpha[:, None, None]
        steps += kept
        # capital of 0 stays 0
        np.maximum(steps, 1e-300, out=steps)
        logs = np.log(steps, out=steps).sum(axis=2)
        ordered = np.logaddexp.reduce(logs, axis=1) - np.log(self.shape[1])
        steady = mixture.log_e(self.count[rows], np.minimum(alpha, 1.0 - 1e-12))
        return np.asarray(
            np.logaddexp(ordered + np.log1p(-CONSTANT_BETS_FRACTION), steady + np.log(CONSTANT_BETS_FRACTION))
        )

    def upper(self, delta: float) -> FloatArray:
        """(m,) where the mean capital passes 1 / delta: it grows with the risk."""

        def excess(a: FloatArray, rows: FloatArray) -> FloatArray:
            all_rows = len(rows) == self.shape[0]
            return np.asarray(self.log_e(a, slice(None) if all_rows else rows.astype(np.intp)) + np.log(delta))

        return root(excess, (self.average, np.ones(self.shape[0])))


def n_orders(n: int) -> int:
    """Number of orders for rows of n losses."""
    return max(MIN_ORDERS, min(MAX_ORDERS, MAX_ORDERED_LOSSES // max(1, n)))


def in_random_orders(losses: Losses) -> Losses:
    """(m, k, n) every row in k orders, which depend only on how often each loss occurs."""
    ranked = np.sort(np.asarray(losses, dtype=np.int16), axis=1)
    k, n = n_orders(ranked.shape[1]), ranked.shape[1]
    ordered = np.empty((len(ranked), k, n), dtype=np.int16)
    for i, row in enumerate(ranked):
        draw = np.random.Generator(np.random.PCG64(_seed(row)))
        for place in range(k):
            ordered[i, place] = row[np.argsort(draw.random(n), kind="stable")]
    return ordered


def _seed(row: NDArray[np.int16]) -> int:
    return int.from_bytes(hashlib.sha256(b"froc orders\0" + row.astype("<i2").tobytes()).digest(), "big")


def by_ordered_block(losses: Losses, work: Callable[[slice], FloatArray]) -> FloatArray:
    """(m,) results of `work` on slices of rows with about BLOCK_LOSSES losses in all their orders."""
    n = losses.shape[1]
    step = max(1, BLOCK_LOSSES // (n * n_orders(n)))
    return np.concatenate([np.zeros(0), *(work(slice(at, at + step)) for at in range(0, len(losses), step))])
