"""Betting bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import elementwise

from froc.bounds import Bound, FloatArray, Level, Losses, by_block, per_config, shape
from froc.hyperparameters import Range, hyperparameter
from froc.loss_table import SCALE

CHUNK_STEPS = 1 << 15
"""Capital steps processed at a time."""
ROOT_TOLERANCE = 1e-12
"""How far above the root the search may end, in units of risk."""


@dataclass(frozen=True)
class Betting(Bound):
    """Capital of a gambler who bets that R < alpha, with bets from the past only (2010.09686).

    K_t(a) = prod_{i<=t} (1 - v_i (L_i - a)); p = 1 / max_t K_t(alpha) by Ville's inequality; the upper bound is
    the smallest a with max_t K_t(a) >= 1 / delta; e = K_n(alpha), the last capital, as the largest has expectation above 1. Adapts to the variance of the losses. Assumes independent units in an order that was
    fixed before losses were known; p-value and upper bound hold at every stopping time. level: error level for which the
    bets of `p_value` are tuned; it changes power, never validity (`upper` is tuned for its own delta). planned: units
    that are measured unless it stops early; 0: those that were measured. ends: numbers of units after which earlier stages ended,
    where measuring went on with further ones: bets of a stage look no further than its own end, so that they stay what they were.

    >>> losses = np.array([3 * (32 * [0] + [1000])])
    >>> Betting().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0129]
    >>> Betting().upper(losses, delta=0.1).round(4).tolist()
    [0.0799]
    """

    order_free: ClassVar[bool] = False
    anytime: ClassVar[bool] = True
    extendable: ClassVar[bool] = True
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686; Bates et al. 2101.02703"

    level: float = hyperparameter(0.1, Range(1e-6, 0.5, log=True))
    planned: int = hyperparameter(0, Range(0, 10**9))
    ends: tuple[int, ...] = ()

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) one over the largest capital."""
        risks = per_config(alpha, shape(losses)[0])
        plan = self.planned, self.ends
        return by_block(losses, lambda b: p_value_from_losses(losses[b] / SCALE, risks[b], self.level, *plan))

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) smallest risks that are rejected at delta; 1 where none is."""
        shape(losses)
        return by_block(losses, lambda b: upper_from_losses(losses[b] / SCALE, delta, self.planned, self.ends))

    def e_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) capital after the last unit."""
        risks = per_config(alpha, shape(losses)[0])
        plan = self.planned, self.ends
        return by_block(losses, lambda b: e_value_from_losses(losses[b] / SCALE, risks[b], self.level, *plan))


def p_value_from_losses(
    values: FloatArray, alpha: Level, level: float, planned: int = 0, ends: tuple[int, ...] = ()
) -> FloatArray:
    """(m,) p-values of (m, n) losses in [0, 1]."""
    largest, _ = capital(values, bets(values, level, planned, ends), per_config(alpha, len(values)))
    return np.asarray(1.0 / np.maximum(1.0, largest))


def e_value_from_losses(
    values: FloatArray, alpha: Level, level: float, planned: int = 0, ends: tuple[int, ...] = ()
) -> FloatArray:
    """(m,) e-values of (m, n) losses in [0, 1]."""
    return capital(values, bets(values, level, planned, ends), per_config(alpha, len(values)))[1]


def upper_from_losses(values: FloatArray, delta: float, planned: int = 0, ends: tuple[int, ...] = ()) -> FloatArray:
    """(m,) upper bounds: the capital grows with a, and the bets do not depend on it."""
    stakes = bets(values, delta, planned, ends)
    kept = 1.0 - stakes * values

    def excess(a: FloatArray, rows: FloatArray) -> FloatArray:
        # a slice, since indexing would copy the table
        selected = slice(None) if len(rows) == len(kept) else rows.astype(np.intp)
        return log(capital_from_kept(kept[selected], stakes[selected], a)[0]) + math.log(delta)

    average, room, n = values.mean(axis=1), math.log(1.0 / delta), values.shape[1]
    # with bets of sqrt(2 room / (n variance)) the capital reaches 1 / delta near here
    variance = np.maximum(0.0, np.einsum("ij,ij->i", values, values) / n - average**2)
    deviation, linear = np.sqrt(2.0 * variance * room / n), 4.0 * room / n
    return root(excess, (average + 0.5 * deviation, average + 1.4 * deviation + linear))


def bets(values: FloatArray, level: float, planned: int = 0, ends: tuple[int, ...] = ()) -> FloatArray:
    """(m, n) bets in (0, 1]: bet i uses the losses before i only, and the number of units at the end of its own stage."""
    n = values.shape[1]
    count = np.arange(2.0, n + 2.0)
    # in place: temporaries of this size cost more than the arithmetic
    mean = values.cumsum(axis=1)
    mean += 0.5
    mean /= count
    np.subtract(values, mean, out=mean)
    np.square(mean, out=mean)
    variance = np.cumsum(mean, axis=1, out=mean)
    variance += 0.25
    variance /= count
    stakes = np.empty_like(variance)
    stakes[:, 0], stakes[:, 1:] = 0.25, variance[:, :-1]
    np.divide(2.0 * math.log(1.0 / level) / horizons(n, planned, ends), stakes, out=stakes)
    np.sqrt(stakes, out=stakes)
    return np.asarray(np.minimum(stakes, 1.0, out=stakes))


def horizons(n: int, planned: int, ends: tuple[int, ...]) -> FloatArray:
    """(n,) number of units at the end of the stage of each unit; the last stage ends with the last unit or the planned one."""
    units = np.full(n, float(max(n, planned)))
    for end in reversed(ends):
        units[:end] = end
    return units


def capital(values: FloatArray, stakes: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(m,) largest capital after any unit, and (m,) capital after the last, against risks (m,)."""
    return capital_from_kept(1.0 - stakes * values, stakes, alpha)


def capital_from_kept(kept: FloatArray, stakes: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`capital` from kept = 1 - v L, which does not depend on the risk; in chunks that fit into the cache."""
    m, n = kept.shape
    largest, end = np.zeros(m), np.ones(m)
    stretch = max(1, CHUNK_STEPS // max(1, m))
    for start in range(0, n, stretch):
        part = slice(start, start + stretch)
        steps = stakes[:, part] * alpha[:, None]
        steps += kept[:, part]
        steps[:, 0] *= end
        # overflow to infinity is right, underflow only lowers the capital
        with np.errstate(over="ignore", under="ignore"):
            np.cumprod(steps, axis=1, out=steps)
        largest, end = np.maximum(largest, steps.max(axis=1)), steps[:, -1].copy()
    return largest, end


def log(capital: FloatArray) -> FloatArray:
    """Logarithm of a capital, clipped to finite numbers for the root search."""
    return np.asarray(np.log(np.clip(capital, 1e-300, 1e300)))


def root(excess: Callable[[FloatArray, FloatArray], FloatArray], *guesses: tuple[FloatArray, FloatArray]) -> FloatArray:
    """(m,) roots of increasing functions on [0, 1], at most ROOT_TOLERANCE above them; 1 where a function has none.

    excess(a, rows): values at a of the functions with these row numbers. guesses: brackets to try before [0, 1].
    """
    roots = np.ones(len(guesses[0][0]))
    open_rows = np.arange(len(roots))
    for low, high in (*guesses, (np.zeros(len(roots)), np.ones(len(roots)))):
        if not len(open_rows):
            break
        result = elementwise.find_root(
            excess,
            (low[open_rows], np.minimum(1.0, high[open_rows])),
            args=(open_rows.astype(np.float64),),
            tolerances={"xatol": ROOT_TOLERANCE / 2, "xrtol": 0.0},
        )
        roots[open_rows[result.success]] = np.minimum(1.0, result.x[result.success] + ROOT_TOLERANCE / 2)
        open_rows = open_rows[~result.success]
    return roots
