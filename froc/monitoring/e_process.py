"""An e-process against H: at every time, the mean of the next loss given those before is at most the budget. Torch-free.

A gambler bets that losses are larger: each loss L multiplies the capital by 1 + v (L - budget), whose expectation under H is
at most 1. Several bets v are kept constant (as in `froc.bounds.mixture`, which bets the other way), since a stream has
no planned length to tune one for. A drift may begin after a long time without one, when such capital is nearly lost;
therefore a fraction w_j of the capital starts to bet only at time j.

    E_t = mean_b sum_{j < t} w_j prod_{j < i <= t} (1 + v_b (L_i - budget)) + sum_{j >= t} w_j

is a mixture of nonnegative supermartingales that start at 1, so P(E_t >= 1 / level for any t) <= level (Ville), at any
stopping time. w_j = S(j) - S(j + 1) with S(j) = 1 / (1 + ln(1 + j)), so that late drifts are detected with little extra
delay. The sum over starts is one number per bet, A_t = (A_{t-1} + w_{t-1}) (1 + v (L_t - budget)).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from froc.bounds import FloatArray, Losses
from froc.bounds.betting import log, root
from froc.loss_table import SCALE

BETS = 0.9 * 0.5 ** np.arange(9)
"""Bets as fractions of 1 / budget, the largest bet that cannot lose everything."""
BLOCK_LOSSES = 1 << 18
"""Losses processed at a time."""
MAX_LOG_CAPITAL = 600.0
"""Logarithm of capital at which it is clipped."""


@dataclass(frozen=True)
class CapitalState:
    """State of several streams: losses so far, and (streams, bets) ln A, which is minus infinity at first."""

    count: int
    logs: FloatArray


def initial_capital(streams: int = 1) -> CapitalState:
    """Before the first loss."""
    return CapitalState(0, np.full((streams, len(BETS)), -np.inf))


def follow(losses: Losses, budget: float, begun: CapitalState) -> tuple[FloatArray, CapitalState]:
    """(streams, n) ln E after each of (streams, n) losses in thousandths, in order of arrival, and the state after them.

    Several calls give the same as one, up to floating-point error.
    """
    log_e = np.empty(losses.shape)
    for part in _parts(losses):
        log_e[:, part], begun = _block(losses[:, part], budget, begun)
    return log_e, begun


def largest_excluded_budget(counts: FloatArray, threshold: float) -> float:
    """Largest budget that is rejected: a lower bound on the largest conditional mean so far, at any stopping time.

    counts: (SCALE + 1,) how often each loss occurred. All capital bets from the first loss on here, so that the order does
    not matter: mean_b prod_i (1 + v_b (L_i - budget)) reaches the threshold at all smaller budgets.
    """

    def excess(above: FloatArray, rows: FloatArray) -> FloatArray:
        budgets = np.maximum(1.0 - above, 1e-12)
        gains = np.log1p(BETS * (np.arange(SCALE + 1)[:, None, None] / SCALE / budgets[:, None] - 1.0))
        logs = np.einsum("l,lrb->rb", counts, gains)
        return log(np.exp(np.minimum(logs, MAX_LOG_CAPITAL)).mean(axis=1)) - math.log(threshold)

    return 1.0 - float(root(excess, (np.zeros(1), np.ones(1)))[0])


def unstarted_fraction(count: int | FloatArray) -> FloatArray:
    """S: the fraction of the capital that has not started to bet after `count` losses."""
    return np.asarray(1.0 / (1.0 + np.log1p(count)))


def _parts(losses: Losses) -> Iterator[slice]:
    step = max(1, BLOCK_LOSSES // max(1, losses.shape[0]))
    return (slice(start, start + step) for start in range(0, losses.shape[1], step))


def _block(losses: Losses, budget: float, begun: CapitalState) -> tuple[FloatArray, CapitalState]:
    n = losses.shape[1]
    times = begun.count + np.arange(n + 1.0)
    gains = np.log1p(BETS * (np.arange(SCALE + 1)[:, None] / SCALE - budget) / budget)
    grown = gains[losses].cumsum(axis=1)
    starts = np.log(unstarted_fraction(times[:-1]) - unstarted_fraction(times[1:]))[:, None]
    # capital that starts within the block has not been multiplied by earlier losses of it
    played = np.empty_like(grown)
    played[:, :1], played[:, 1:] = starts[0], starts[1:] - grown[:, :-1]
    played[:, 0] = np.logaddexp(played[:, 0], begun.logs)
    logs = grown + np.logaddexp.accumulate(played, axis=1)
    largest = logs.max(axis=2, keepdims=True)
    mean = largest[:, :, 0] + np.log(np.exp(logs - largest).mean(axis=2))
    return np.logaddexp(mean, np.log(unstarted_fraction(times[1:]))), CapitalState(begun.count + n, logs[:, -1])
