"""Betting bound."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, Losses, Reals, shape
from froc.params import Range, hyper


@dataclass(frozen=True)
class Betting(Bound):
    """Capital of a gambler who bets against R >= alpha, with bets from the past only (Waudby-Smith and Ramdas 2010.09686).

    K_t(a) = prod_{i<=t} (1 - v_i (L_i - a)); p = 1 / max_t K_t(alpha) by Ville's inequality; the upper bound is the
    smallest a that the capital excludes. Adapts to the variance of the losses. Depends on the order of units, which must
    be fixed before losses are seen. level: the error level the bets aim at; it changes power, never validity.
    """

    order_free: ClassVar[bool] = False
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686; Bates et al. 2101.02703"

    level: float = hyper(0.1, Range(1e-6, 0.5, log=True))

    def p_value(self, losses: Losses, alpha: float) -> Reals:
        """(m,) one over the largest capital."""
        shape(losses)
        values = losses / 1000.0
        return np.minimum(1.0, 1.0 / _capital(values, _bets(values, self.level), np.full(len(values), alpha)))

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) by bisection: the capital grows with a, and the bets do not depend on it."""
        shape(losses)
        values = losses / 1000.0
        bets = _bets(values, delta)
        low, high = np.zeros(len(values)), np.ones(len(values))
        for _ in range(50):
            middle = 0.5 * (low + high)
            excluded = _capital(values, bets, middle) > 1.0 / delta
            low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
        return high


def _bets(values: Reals, level: float) -> Reals:
    """(m, n) bets in (0, 1]: bet i uses losses before i only."""
    n = values.shape[1]
    count = np.arange(1, n + 1)
    mean = (0.5 + values.cumsum(axis=1)) / (count + 1)
    variance = (0.25 + ((values - mean) ** 2).cumsum(axis=1)) / (count + 1)
    past = np.concatenate([np.full((len(values), 1), 0.25), variance[:, :-1]], axis=1)
    return np.minimum(1.0, np.sqrt(2.0 * np.log(1.0 / level) / (n * past)))


def _capital(values: Reals, bets: Reals, alpha: Reals) -> Reals:
    """(m,) largest capital over time, at least 1: the gambler may stop before the first bet."""
    wealth = np.cumprod(1.0 - bets * (values - alpha[:, None]), axis=1)
    return np.maximum(1.0, wealth.max(axis=1))
