"""Betting bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise

from froc.bounds import Bound, Level, Losses, Reals, by_block, each, shape
from froc.losses import SCALE
from froc.params import Range, hyper

STRETCH = 1 << 15
"""Steps of capital that are worked on at a time."""
CLOSE = 1e-12
"""How far above a root the search may end, in risk."""


@dataclass(frozen=True)
class Betting(Bound):
    """Capital of a gambler who bets that R < alpha, with bets from the past only (2010.09686).

    K_t(a) = prod_{i<=t} (1 - v_i (L_i - a)); p = 1 / max_t K_t(alpha) by Ville's inequality; the upper bound is
    the smallest a that the capital excludes; e = K_n(alpha), at the last unit and not at the best one, whose
    expectation would exceed 1. Adapts to the variance of the losses. Assumes independent units in an order that was
    fixed before losses were seen; p-value and upper bound hold at every stopping time. level: the error level that
    the bets of `p_value` aim at; it changes power, never validity (`upper` aims at its own delta). planned: units
    that will be measured if nothing stops it early; 0: those that were.
    """

    order_free: ClassVar[bool] = False
    anytime: ClassVar[bool] = True
    theorem: ClassVar[str] = "Waudby-Smith and Ramdas 2010.09686; Bates et al. 2101.02703"

    level: float = hyper(0.1, Range(1e-6, 0.5, log=True))
    planned: int = hyper(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> Reals:
        """(m,) one over the largest capital."""
        risks = each(alpha, shape(losses)[0])
        return by_block(losses, lambda b: tail(losses[b] / SCALE, risks[b], self.level, self.planned))

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) smallest risks that the capital excludes at delta; 1 where it excludes none."""
        shape(losses)
        return by_block(losses, lambda b: ceiling(losses[b] / SCALE, delta, self.planned))

    def e_value(self, losses: Losses, alpha: Level) -> Reals:
        """(m,) capital after the last unit."""
        risks = each(alpha, shape(losses)[0])
        return by_block(losses, lambda b: last(losses[b] / SCALE, risks[b], self.level, self.planned))


def tail(values: Reals, alpha: Level, level: float, planned: int = 0) -> Reals:
    """(m,) p-values of (m, n) losses in [0, 1]."""
    stakes = bets(values, level, planned)
    return np.asarray(1.0 / best(wealth(*parts(values, stakes), each(alpha, len(values)))))


def last(values: Reals, alpha: Level, level: float, planned: int = 0) -> Reals:
    """(m,) e-values of (m, n) losses in [0, 1]."""
    stakes = bets(values, level, planned)
    return wealth(*parts(values, stakes), each(alpha, len(values)))[:, -1]


def ceiling(values: Reals, delta: float, planned: int = 0) -> Reals:
    """(m,) upper bounds: the capital grows with a, and the bets do not depend on it."""
    kept, stakes = parts(values, bets(values, delta, planned))

    def excess(a: Reals, rows: Reals) -> Reals:
        some = rows.astype(np.intp)
        return np.log(np.clip(peak(kept, stakes, a, some), 1e-300, 1e300)) + math.log(delta)

    average, log, n = values.mean(axis=1), math.log(1.0 / delta), values.shape[1]
    # with bets of sqrt(2 log / (n variance)) the capital passes 1 / delta near here
    near, far = np.sqrt(2.0 * values.var(axis=1) * log / n), 4.0 * log / n
    return root(excess, (average + 0.5 * near, average + 1.4 * near + far))


def bets(values: Reals, level: float, planned: int = 0) -> Reals:
    """(m, n) bets in (0, 1]: bet i uses the losses before i only."""
    n = values.shape[1]
    count = np.arange(2.0, n + 2.0)
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
    np.divide(2.0 * math.log(1.0 / level) / max(n, planned), stakes, out=stakes)
    np.sqrt(stakes, out=stakes)
    return np.asarray(np.minimum(stakes, 1.0, out=stakes))


def parts(values: Reals, stakes: Reals) -> tuple[Reals, Reals]:
    """1 - v L and v: what a step of capital is made of, whatever the risk it is held against."""
    return 1.0 - stakes * values, stakes


def wealth(kept: Reals, stakes: Reals, alpha: Reals) -> Reals:
    """(m, n) capital after each unit, against risks (m,)."""
    steps = stakes * alpha[:, None]
    steps += kept
    # beyond the largest float, infinite capital is the right word; underflow only lowers it
    with np.errstate(over="ignore", under="ignore"):
        return np.cumprod(steps, axis=1, out=steps)


def peak(kept: Reals, stakes: Reals, alpha: Reals, rows: NDArray[np.intp]) -> Reals:
    """(len(rows),) largest capital after any unit, worked out a stretch at a time: what is in cache is fast."""
    n, carry, top = kept.shape[1], np.ones(len(rows)), np.zeros(len(rows))
    stretch = max(1, STRETCH // max(1, len(rows)))
    whole = len(rows) == len(kept)
    for start in range(0, n, stretch):
        part = slice(start, start + stretch)
        steps = (stakes[:, part] if whole else stakes[rows, part]) * alpha[:, None]
        steps += kept[:, part] if whole else kept[rows, part]
        steps[:, 0] *= carry
        with np.errstate(over="ignore", under="ignore"):
            np.cumprod(steps, axis=1, out=steps)
        top, carry = np.maximum(top, steps.max(axis=1)), steps[:, -1].copy()
    return top


def best(capital: Reals) -> Reals:
    """(m,) largest capital over time, at least 1: the gambler may stop before the first bet."""
    return np.asarray(np.maximum(1.0, capital.max(axis=1)))


def log_best(capital: Reals) -> Reals:
    """(m,) logarithm of the largest capital after any unit; below 0 too, where a root search needs a slope."""
    return np.asarray(np.log(np.clip(capital.max(axis=1), 1e-300, 1e300)))


def root(excess: Callable[[Reals, Reals], Reals], *guesses: tuple[Reals, Reals]) -> Reals:
    """(m,) where rising functions on [0, 1] pass 0, from above, to CLOSE; 1 where they do not.

    excess(a, rows): values of the functions of these rows (whole numbers) at a. guesses: brackets to try first.
    """
    found = np.ones(len(guesses[0][0]))
    left = np.arange(len(found))
    for low, high in (*guesses, (np.zeros(len(found)), np.ones(len(found)))):
        if not len(left):
            break
        result = elementwise.find_root(
            excess,
            (low[left], np.minimum(1.0, high[left])),
            args=(left.astype(np.float64),),
            tolerances={"xatol": CLOSE / 2, "xrtol": 0.0},
        )
        found[left[result.success]] = np.minimum(1.0, result.x[result.success] + CLOSE / 2)
        left = left[~result.success]
    return found
