"""What it takes to certify: how many units before a search, and how far off the closest candidate was after it.

Everything is computed with the certificate's own p-values; nothing is read off a formula. Torch-free.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from froc.bounds import Losses
from froc.claim import Claim, level, p_values, up
from froc.errors import InputError
from froc.losses import SCALE
from froc.procedures import first_levels

MOST_UNITS = 1_000_000
"""Nobody is told to measure more."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def required(claim: Claim, candidates: int) -> dict[str, int]:
    """risk -> smallest number of units with which the first of `candidates` (weights 1 / rank) passes at zero loss.

    Raises InputError where that is more than a million.
    """
    share = float(first_levels(claim.procedure, 1.0 / np.arange(1, candidates + 1), level(claim))[0])
    return {risk: _units_at_zero(claim, risk, candidates, share) for risk in claim.budget}


def closest(rows: Sequence[Mapping[str, Any]], losses: Mapping[str, Losses], claim: Claim) -> dict[str, Any]:
    """The candidate nearest to being certified where none is, the risk that stopped it, and what it would have taken.

    rows: the certificate's candidates. losses: risk -> (m, n). bound: the smallest budget at which that risk would
    have passed at the candidate's own level, the one it has whatever becomes of the others; needs: that budget to 3
    decimals, or about how many units with the same distribution of losses; also: other risks that fell short.
    """
    own = first_levels(claim.procedure, np.array([row["weight"] for row in rows]), level(claim))

    def distance(i: int) -> tuple[float, float]:
        p = float(rows[i]["p_value"])
        return (p / own[i] if p < 1 else math.inf, max(_strain(rows[i], risk, claim) for risk in claim.budget))

    place = min((i for i in range(len(rows)) if own[i] > 0), key=distance)
    row, share = rows[place], float(own[place])
    risk = max(claim.budget, key=lambda name: (row["p_values"][name], _strain(row, name, claim)))
    some = losses[risk][place : place + 1]

    def passes(alpha: float) -> bool:
        return p_values(claim, risk, some, len(rows), alpha)[0] <= share

    budget = _smallest_budget(passes, claim.budget[risk])
    return {
        "config": row["config"],
        "method": row["method"],
        "risk": risk,
        "bound": budget,
        "needs": {
            "units": _units_alike(claim, risk, some, len(rows), share),
            "budget": up(budget, 3) if up(budget, 3) < 1 else None,
        },
        "also": [name for name in claim.budget if name != risk and row["p_values"][name] > share],
    }


def alike(losses: Losses, units: int) -> Losses:
    """(1, units) losses distributed like `losses` (1, n), for any number of units; deterministic.

    Quantiles at multiples of the golden ratio: every stretch of them covers the distribution evenly.
    """
    ranked = np.sort(losses[0])
    places = np.floor((0.5 + np.arange(units) * GOLDEN) % 1.0 * len(ranked)).astype(np.int64)
    return np.asarray(ranked[places][None, :])


def _strain(row: Mapping[str, Any], risk: str, claim: Claim) -> float:
    return float(row["cur"][risk]["pointwise"]) / claim.budget[risk]


def _units_at_zero(claim: Claim, risk: str, candidates: int, share: float) -> int:
    def enough(units: int) -> bool:
        return p_values(claim, risk, np.zeros((1, units), dtype=np.int64), candidates)[0] <= share

    units = _smallest(enough, 1)
    if units is None:
        raise InputError(
            f"budget {risk}={claim.budget[risk]:g} needs more than {MOST_UNITS} calibration units; raise it"
        )
    return units


def _units_alike(claim: Claim, risk: str, losses: Losses, candidates: int, share: float) -> int | None:
    n = losses.shape[1]
    if int(losses.sum()) >= claim.budget[risk] * SCALE * n:
        return None
    return _smallest(lambda units: p_values(claim, risk, alike(losses, units), candidates)[0] <= share, n + 1)


def _smallest(holds: Callable[[int], bool], start: int) -> int | None:
    """Where `holds` begins, from `start` on, by doubling and bisection; None beyond a million.

    The smallest such number where more units never hurt, as at zero loss; near it where p-values are a sawtooth.
    """
    low, high = start - 1, start
    while not holds(high):
        if high >= MOST_UNITS:
            return None
        low, high = high, min(2 * high, MOST_UNITS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _smallest_budget(passes: Callable[[float], bool], low: float) -> float:
    """Smallest budget above `low` that passes, rounded up to 6 decimals; 1 where none does."""
    high = 1.0 - 1e-6
    if not passes(high):
        return 1.0
    while high - low > 1e-8:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if passes(middle) else (middle, high)
    return up(high)
