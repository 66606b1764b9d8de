"""Betting whose bets aim at the level that is left to be reached in the units that are left: what all such bounds share."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, IntArray, Level, Losses, by_block, per_config, shape
from froc.hyperparameters import Range, hyperparameter
from froc.loss_table import SCALE

STAKE = 0.9
"""Largest share of the capital that one loss of 1 takes."""
MOST_CAPITAL = 1e280
"""Capital from which on no more is won."""
REMOVAL_UNITS = 8
"""Units after which risks that are rejected already are taken out of the computation."""
ROWS = 16
"""Configurations whose upper bounds are computed at a time, a thousand risks each."""
UnscaledBets = Callable[[FloatArray], FloatArray]
"""(m,) ln of the factor that is left to be won -> (m,) bets, times sqrt((n - t + 1) V / 2)."""


@dataclass(frozen=True)
class AimedBetting(Bound):
    """Capital of a gambler who bets that R < alpha, K_t(a) = prod_{i<=t} (1 - v_i (L_i - a)), and aims at 1 / level by the last unit.

    v_t = min(.9 / (1 - a), sqrt(2 / ((n - t + 1) V_{t-1})) f(ln(1 / (level K_{t-1})))), f: `unscaled_bets`, V: running variance of the losses. Where the aim is
    reached, the next one is 1 / level times larger. Bets use the past only, so p = 1 / max_t K_t(alpha) by Ville's inequality, at every
    stopping time; e = K_n(alpha). The bets depend on the risk a: `upper` is the smallest of the risks .000, .001, ..., 1 above which all
    are rejected at delta. Assumes independent units in an order that was fixed before losses were known. level: error level that the
    bets of `p_value` aim at; it changes power, never validity (`upper` aims at its own delta). planned: units that are measured unless
    it stops early; 0: those that were measured. That one loss of 1 takes .9 of the capital at most is ours (`docs/statistics.md`).
    """

    order_free: ClassVar[bool] = False
    monotone: ClassVar[bool] = False
    anytime: ClassVar[bool] = True

    level: float = hyperparameter(0.1, Range(1e-6, 0.5, log=True))
    planned: int = hyperparameter(0, Range(0, 10**9))

    @staticmethod
    @abstractmethod
    def unscaled_bets(left: FloatArray) -> FloatArray:
        """(m,) bets before they are scaled and capped. left: (m,) ln of the factor still to be won."""

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) one over the largest capital."""
        m = shape(losses)[0]
        return self.p_values_aimed(losses, per_config(alpha, m), per_config(self.level, m))

    def p_values_aimed(self, losses: Losses, alpha: FloatArray, levels: FloatArray) -> FloatArray:
        """(m,) one over the largest capital, of bets that aim at (m,) levels."""
        return by_block(
            losses, lambda b: 1.0 / capital(losses[b] / SCALE, alpha[b], levels[b], self.unscaled_bets, self.planned)[0]
        )

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) smallest risks in whole thousandths above which all are rejected at delta; 1 where none is."""
        return self.uppers(losses, per_config(delta, shape(losses)[0]))

    def uppers(self, losses: Losses, deltas: FloatArray) -> FloatArray:
        """(m,) the same, each at its own error level."""
        return by_block(
            losses, lambda b: upper_from_losses(losses[b] / SCALE, deltas[b], self.unscaled_bets, self.planned)
        )

    def e_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) capital after the last unit."""
        m = shape(losses)[0]
        risks, levels = per_config(alpha, m), per_config(self.level, m)
        return by_block(
            losses, lambda b: capital(losses[b] / SCALE, risks[b], levels[b], self.unscaled_bets, self.planned)[1]
        )


def capital(
    values: FloatArray, risks: FloatArray, levels: FloatArray, unscaled_bets: UnscaledBets, planned: int = 0
) -> tuple[FloatArray, FloatArray]:
    """(m,) largest capital after any unit, at least 1, and (m,) capital after the last.

    values: (m, n) losses in [0, 1]. risks, levels: (m,) what is bet against, and what error level is aimed at.
    """
    m, n = values.shape
    largest, end = np.ones(m), np.ones(m)
    limits, room = STAKE / (1.0 - risks), -np.log(levels)
    # units one after another in memory
    losses, scale = np.ascontiguousarray(values.T), np.ascontiguousarray(scales(values, planned).T)
    for t in range(n):
        bets = np.minimum(limits, unscaled_bets(to_aim(end, room)) * scale[t])
        end *= 1.0 - bets * (losses[t] - risks)
        # less capital than was won keeps the test valid, and bets need a finite one
        np.minimum(end, MOST_CAPITAL, out=end)
        np.maximum(largest, end, out=largest)
    return largest, end


def to_aim(capital: FloatArray, room: FloatArray) -> FloatArray:
    """(m,) ln of the factor from (m,) capitals to their next aims; room: ln of an aim from 1.

    >>> to_aim(np.array([1.0, 5.0, 10.0, 20.0]), np.log([10.0] * 4)).round(3).tolist()
    [2.303, 0.693, 2.303, 1.609]
    """
    held = np.log(np.maximum(capital, 1.0 / MOST_CAPITAL))
    reached = held >= room
    if reached.any():
        # beyond an aim the next one is as far away as the first was
        held[reached] %= room[reached]
    return np.asarray(room - held)


def scales(values: FloatArray, planned: int = 0) -> FloatArray:
    """(m, n) sqrt(2 / (units left times the variance of the losses before each unit))."""
    n = values.shape[1]
    count = np.arange(2.0, n + 2.0)
    means = (values.cumsum(axis=1) + 0.5) / count
    after = (np.square(values - means).cumsum(axis=1) + 0.25) / count
    before = np.concatenate([np.full((len(values), 1), 0.25), after[:, :-1]], axis=1)
    return np.asarray(np.sqrt(2.0 / (before * (max(n, planned) - np.arange(n)))))


def upper_from_losses(
    values: FloatArray, deltas: FloatArray, unscaled_bets: UnscaledBets, planned: int = 0
) -> FloatArray:
    """(m,) smallest whole thousandths above which every one is rejected, at (m,) error levels."""
    scale, room = scales(values, planned), -np.log(deltas)
    parts = [slice(start, start + ROWS) for start in range(0, len(values), ROWS)]
    return np.concatenate(
        [np.zeros(0), *(_upper(values[part], scale[part], room[part], unscaled_bets) for part in parts)]
    )


def _upper(values: FloatArray, scale: FloatArray, room: FloatArray, unscaled_bets: UnscaledBets) -> FloatArray:
    # a risk below the mean is hardly ever rejected
    lowest = np.maximum(1, np.floor(SCALE * values.mean(axis=1)).astype(np.int64))
    highest = np.full(len(values), SCALE - 1)
    reached = np.full(len(values), SCALE)
    rows = np.arange(len(values))
    while len(rows):
        kept = _highest_kept(values[rows], scale[rows], lowest[rows], highest[rows], room[rows], unscaled_bets)
        reached[rows] = np.where(kept >= 0, kept + 1, lowest[rows])
        # where all were rejected, those below are looked at, too
        rows = rows[(kept < 0) & (lowest[rows] > 1)]
        highest[rows], lowest[rows] = lowest[rows] - 1, np.maximum(1, lowest[rows] // 2)
    return np.asarray(reached / SCALE)


def _highest_kept(
    values: FloatArray,
    scale: FloatArray,
    lowest: IntArray,
    highest: IntArray,
    room: FloatArray,
    unscaled_bets: UnscaledBets,
) -> IntArray:
    """(m,) largest of the risks lowest..highest, in thousandths, that the capital does not reject; -1 where all are rejected."""
    row = np.repeat(np.arange(len(values)), highest - lowest + 1)
    risk = np.concatenate([np.arange(low, high + 1) for low, high in zip(lowest, highest, strict=True)])
    before, open_tests = np.ones(len(row)), np.ones(len(row), dtype=bool)
    # units one after another in memory
    losses, scale = np.ascontiguousarray(values.T), np.ascontiguousarray(scale.T)
    for t in range(len(losses)):
        if t % REMOVAL_UNITS == 0:
            row, risk, before = row[open_tests], risk[open_tests], before[open_tests]
            risks, open_tests = risk / SCALE, np.ones(len(row), dtype=bool)
            limits, rooms, aims = STAKE / (1.0 - risks), room[row], np.exp(room)[row]
        bets = np.minimum(limits, unscaled_bets(to_aim(before, rooms)) * scale[t][row])
        before *= 1.0 - bets * (losses[t][row] - risks)
        np.minimum(before, MOST_CAPITAL, out=before)
        open_tests &= before < aims
    kept = np.full(len(values), -1, dtype=np.int64)
    np.maximum.at(kept, row[open_tests], risk[open_tests])
    return kept
