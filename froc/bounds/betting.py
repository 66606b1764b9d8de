"""Betting bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, Losses, Reals, shape
from froc.losses import SCALE
from froc.params import Range, hyper

STEPS = 50
"""Halvings of [0, 1] in the search for the upper bound: to 1e-15."""


@dataclass(frozen=True)
class Betting(Bound):
    """Capital of a gambler who bets that R < alpha, with bets from the past only (2010.09686).

    K_t(a) = prod_{i<=t} (1 - v_i (L_i - a)); p = 1 / max_t K_t(alpha) by Ville's inequality; the upper bound is
    the smallest a that the capital excludes. Adapts to the variance of the losses. Assumes independent units in
    an order that was fixed before losses were seen. level: the error level that the bets of `p_value` aim at;
    it changes power, never validity (`upper` aims at its own delta).
    """

    order_free: ClassVar[bool] = False
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686; Bates et al. 2101.02703"

    level: float = hyper(0.1, Range(1e-6, 0.5, log=True))

    def p_value(self, losses: Losses, alpha: float) -> Reals:
        """(m,) one over the largest capital."""
        shape(losses)
        return tail(losses / SCALE, alpha, self.level)

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) smallest risks that the capital excludes at delta; 1 where it excludes none."""
        shape(losses)
        return ceiling(losses / SCALE, delta)


def tail(values: Reals, alpha: float, level: float) -> Reals:
    """(m,) p-values of (m, n) losses in [0, 1]."""
    return np.asarray(1.0 / capital(values, bets(values, level), np.full(len(values), alpha)))


def ceiling(values: Reals, delta: float) -> Reals:
    """(m,) upper bounds by bisection from above: capital grows with a, and the bets do not depend on it."""
    stakes = bets(values, delta)
    low, high = np.zeros(len(values)), np.ones(len(values))
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        excluded = capital(values, stakes, middle) > 1.0 / delta
        low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
    return high


def bets(values: Reals, level: float) -> Reals:
    """(m, n) bets in (0, 1]: bet i uses the losses before i only."""
    n = values.shape[1]
    count = np.arange(1, n + 1)
    mean = (0.5 + values.cumsum(axis=1)) / (count + 1)
    variance = (0.25 + ((values - mean) ** 2).cumsum(axis=1)) / (count + 1)
    past = np.concatenate([np.full((len(values), 1), 0.25), variance[:, :-1]], axis=1)
    return np.asarray(np.minimum(1.0, np.sqrt(2.0 * np.log(1.0 / level) / (n * past))))


def capital(values: Reals, stakes: Reals, alpha: Reals) -> Reals:
    """(m,) largest capital over time, at least 1: the gambler may stop before the first bet."""
    # beyond the largest float, infinite capital is the right word; underflow only lowers it
    with np.errstate(over="ignore", under="ignore"):
        wealth = np.cumprod(1.0 - stakes * (values - alpha[:, None]), axis=1)
    return np.asarray(np.maximum(1.0, wealth.max(axis=1)))
