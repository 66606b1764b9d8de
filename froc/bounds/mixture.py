"""Mixture e-value."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, by_block, per_config, shape
from froc.bounds.betting import root
from froc.loss_table import SCALE

BET_FRACTIONS = (np.arange(12) + 0.5) / 12
"""Constant bets, as fractions of the largest bet that cannot lose everything."""
LOSS_VALUES = np.arange(SCALE + 1) / SCALE
"""All possible losses, in [0, 1]."""


@dataclass(frozen=True)
class Mixture(Bound):
    """Mean capital of gamblers who keep one bet each: e = mean_b prod_i (1 - v_b (L_i - alpha)), v_b = c_b / (1 - alpha).

    Each product is an e-value for H: R > alpha, and so is their mean; p = min(1, 1 / e) by Markov's inequality. A
    product does not depend on the order of units, so none has to be fixed beforehand; weaker than betting.
    The shares c_b are 12 even steps in (0, 1). Assumes independent units.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> Mixture().p_value(losses, alpha=0.1).round(4).tolist()
    [0.06]
    >>> Mixture().e_value(losses, alpha=0.1).round(2).tolist()
    [16.68]
    >>> Mixture().upper(losses, delta=0.1).round(4).tolist()
    [0.0923]
    """

    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686 (constant bets, mixed)"

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) one over the e-value, at most 1."""
        return np.exp(-np.maximum(0.0, self._logs(losses, alpha)))

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) smallest risks with e-value 1 / delta or more; 1 where there is none."""
        shape(losses)
        return by_block(losses, lambda b: upper_from_histogram(histogram(losses[b]), delta))

    def e_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) mean capital; the largest float where it is beyond that."""
        return np.exp(np.minimum(700.0, self._logs(losses, alpha)))

    def _logs(self, losses: Losses, alpha: Level) -> FloatArray:
        risks = per_config(alpha, shape(losses)[0])
        return by_block(losses, lambda b: log_e(histogram(losses[b]), risks[b]))


def histogram(losses: Losses) -> FloatArray:
    """(m, SCALE + 1) how often each loss occurs in each row."""
    m = len(losses)
    places = losses.astype(np.int64)
    places += np.arange(m)[:, None] * (SCALE + 1)
    return np.bincount(places.ravel(), minlength=m * (SCALE + 1)).reshape(m, SCALE + 1).astype(np.float64)


def log_e(count: FloatArray, alpha: FloatArray) -> FloatArray:
    """(m,) logarithms of e-values at risks (m,) in [0, 1), from histograms."""
    # 1 - c (L - a) / (1 - a) is (1 - c) + c (1 - L) / (1 - a): it grows with a
    gain = (1.0 - LOSS_VALUES)[None, :] / (1.0 - alpha)[:, None]
    capital = np.empty((len(BET_FRACTIONS), len(count)))
    for place, share in enumerate(BET_FRACTIONS):
        capital[place] = (count * np.log1p(share * (gain - 1.0))).sum(axis=1)
    return np.asarray(np.logaddexp.reduce(capital, axis=0) - np.log(len(BET_FRACTIONS)))


def upper_from_histogram(count: FloatArray, delta: float) -> FloatArray:
    """(m,) upper bounds from histograms."""

    def excess(a: FloatArray, rows: FloatArray) -> FloatArray:
        # at a = 1 the capital is infinite unless all losses are 1
        return np.asarray(log_e(count[rows.astype(np.intp)], np.minimum(a, 1.0 - 1e-12)) + np.log(delta))

    average = count @ LOSS_VALUES / count.sum(axis=1)
    return root(excess, (average, np.ones(len(count))))
