"""Ratios of means, tested as means of losses in [0, 1] that are tilted to the tested level. Torch-free.

Two risks are ratios: the mean over queries where groups are drawn, E[S] / E[K], and a loss as a fraction of the base model's
score, E[L] / E[B]. A ratio exceeds a level exactly where the mean of losses that are tilted to this level does, so every bound
for losses in [0, 1] can test it. Bounds under distribution shift do not extend to ratios.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from froc.loss_table import SCALE, WEIGHTED

NANO = 10**9
"""Fixed-point resolution of risk levels in integer arithmetic."""
LEVELS_PER_STEP = 64
"""Levels tested at a time when a test is inverted."""


def is_ratio(risk: str, unit: Mapping[str, str], population: Mapping[str, str], relative: Sequence[str]) -> bool:
    """Whether a risk is a ratio of two unknown means."""
    return risk in relative or (unit.get(risk) == WEIGHTED and population.get(risk) != "census")


def certifies_ratio(certificate: Mapping[str, Any], risk: str) -> bool:
    """`is_ratio` for a risk of a certificate, of any version."""
    relative = certificate.get("relative", ())
    parts = [risk] if risk in certificate["unit"] else list(certificate["weights"])
    return any(is_ratio(part, certificate["unit"], certificate["population"], relative) for part in parts)


def tilted(
    sums: NDArray[np.int64],
    sizes: NDArray[np.int64],
    largest: int,
    alpha: NDArray[np.float64],
    absences: NDArray[np.int64] | None = None,
) -> NDArray[np.int16]:
    """(m, n) losses in thousandths, rounded up, whose mean is below alpha exactly where the ratio is.

    A group of K queries with losses that add up to S has alpha + (S - alpha K) / largest. That is in [0, 1] since
    0 <= S <= K <= largest, and its expectation is at least alpha exactly where E[S] >= alpha E[K], so every bound for losses
    in [0, 1] tests the query-weighted mean E[S] / E[K] with it. Where the base model's absences on these queries add up to A,
    it is alpha + (S + alpha A - alpha K) / largest: the test of E[S] >= alpha E[K - A], of a share of what the base model scored.
    Still in [0, 1]: no more than its score K - A can be lost, and what rounding or a query without a score adds to that is cut
    off at S + alpha A = K, which is the most that any scores could have come to. Single queries: sizes and largest are 1.
    sums: (m, n) thousandths; sizes, absences: (n,); alpha: (m,) levels.
    """
    # integer arithmetic, so that every machine rounds alike
    level = np.ceil(alpha * NANO - 1e-6).astype(np.int64)[:, None]
    lost = sums * (NANO // SCALE)
    if absences is not None:
        lost = np.minimum(lost - (-level * absences // SCALE), NANO * sizes)
    losses = -(-(level * (largest - sizes) + lost) // (NANO // SCALE * largest))
    return np.asarray(losses, dtype=np.int16)


def inverted(rejected: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> float:
    """The smallest multiple of 1/1000 above which every level is rejected; 1 where none is.

    rejected: (k,) levels -> (k,) whether each is. Tilted losses change with the level, so that p-values need not be monotone:
    a level counts only if all above it are rejected too. The first level below the true risk is a fixed one, so it is wrongly
    rejected with the error probability of one test.
    """
    for last in range(SCALE - 1, 0, -LEVELS_PER_STEP):
        levels = np.arange(max(1, last - LEVELS_PER_STEP + 1), last + 1) / SCALE
        kept = np.flatnonzero(~rejected(levels))
        if len(kept):
            return float(levels[kept[-1]]) + 1 / SCALE
    return 1 / SCALE
