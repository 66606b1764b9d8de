"""Fewest queries with which any bets pass: the best strategy for a known distribution of losses, by dynamic programming.

A strategy sees the capital and the number of queries left, and chooses its next bet in [0, 1 / (1 - alpha)]; V_n(k) is the largest
probability with which a capital k reaches 1 / level within n further queries:

    V_0(k) = [k >= 1 / level],    V_n(k) = max_v E V_{n-1}(k (1 - v (L - alpha))).

No bets that depend on the past alone, of whatever kind, do better on that distribution. The logarithm of the capital lies on a grid of width
WIDTH; between two of its points V is interpolated, which moves no expectation of the logarithm.
"""

import math
from typing import Any

import numpy as np
import scipy.sparse

WIDTH, LOWEST = 0.01, -9.0
BETS = 41
POINTS = 160
"""Losses that a distribution is merged into, of equal probability; the mean of each stays."""
MOST = 5000
Array = np.ndarray[Any, np.dtype[Any]]


def fewest_queries(losses: Array, alpha: float, level: float, power: float) -> int:
    """Smallest n with V_n(1) >= power.

    losses: (many,) in [0, 1], a sample that stands for the distribution. MOST where no n is enough.
    """
    values, weights = merged(losses)
    aim = math.log(1 / level)
    grid = aim + WIDTH * np.arange(math.floor((LOWEST - aim) / WIDTH), 1)
    steps = scipy.sparse.vstack([transition(grid, values, weights, alpha, bet) for bet in stakes(alpha)]).tocsr()
    reached = (grid >= aim).astype(float)
    for n in range(1, MOST):
        reached = np.maximum((steps @ reached).reshape(BETS, len(grid)).max(axis=0), reached)
        if np.interp(0.0, grid, reached) >= power:
            return n
    return MOST


def stakes(alpha: float) -> Array:
    """(BETS,) from 0 to the bet with which a loss of 1 takes everything."""
    return np.linspace(0.0, 1.0 / (1.0 - alpha), BETS)


def merged(losses: Array) -> tuple[Array, Array]:
    """(k,) losses and (k,) probabilities; values that are frequent stay as they are, others are merged with their neighbours."""
    values, counts = np.unique(losses, return_counts=True)
    share = counts / counts.sum()
    part = np.floor((np.cumsum(share) - share / 2) * POINTS).astype(np.int64)
    frequent = share > 1 / POINTS
    part[frequent] = POINTS + np.arange(frequent.sum())
    weights = np.bincount(part, share)
    means = np.bincount(part, share * values)[weights > 0] / weights[weights > 0]
    return means, weights[weights > 0]


def transition(grid: Array, values: Array, weights: Array, alpha: float, bet: float) -> scipy.sparse.csr_array:
    """(G, G) probabilities of the next point of the grid, for one bet."""
    factor = np.maximum(1.0 - bet * (values - alpha), math.exp(2 * LOWEST))
    place = np.clip((grid[:, None] + np.log(factor) - grid[0]) / WIDTH, 0, len(grid) - 1)
    low = np.minimum(np.floor(place + 1e-9).astype(np.int64), len(grid) - 2)
    upper_share = np.clip(place - low, 0.0, 1.0)
    rows = np.broadcast_to(np.arange(len(grid))[:, None], low.shape)
    columns = np.concatenate([low.ravel(), low.ravel() + 1])
    entries = np.concatenate([((1 - upper_share) * weights).ravel(), (upper_share * weights).ravel()])
    return scipy.sparse.csr_array((entries, (np.tile(rows.ravel(), 2), columns)), shape=(len(grid), len(grid)))
