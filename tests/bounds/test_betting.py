"""The bets themselves, unit by unit, from the formula of the paper (2010.09686, with the estimates of its section on betting)."""

import math

import numpy as np
import pytest

from froc.bounds import betting

LOSSES = [0.3, 0.0, 1.0, 0.25, 0.0, 0.7]


def by_formula(losses: list[float], level: float, planned: int) -> list[float]:
    """v_i = min(1, sqrt(2 log(1 / level) / (n s_{i-1}))): s is (1/4 + sum (L - mean)^2) / (i + 1), mean (1/2 + sum L) / (i + 1)."""
    stakes, variance, total, squares = [], 0.25, 0.5, 0.25
    for seen, loss in enumerate(losses, start=1):
        stakes.append(min(1.0, math.sqrt(2.0 * math.log(1.0 / level) / (planned * variance))))
        total += loss
        squares += (loss - total / (seen + 1)) ** 2
        variance = squares / (seen + 1)
    return stakes


def test_first_bets_by_hand() -> None:
    """log(1 / level) is 2, 400 units: the variance of a quarter gives sqrt(4 / 100); then (1/4 + (1 - 3/4)^2) / 2 = 5/32."""
    stakes = betting.bets(np.array([[1.0, 0.0]]), math.exp(-2), planned=400)[0]
    assert stakes == pytest.approx([0.2, math.sqrt(4 / (400 * 5 / 32))], rel=1e-12)


@pytest.mark.parametrize("planned", [6, 60, 10_000])
@pytest.mark.parametrize("level", [1e-6, 0.1, 0.4])
def test_bets_by_formula(level: float, planned: int) -> None:
    stakes = betting.bets(np.array([LOSSES]), level, planned)[0]
    assert stakes == pytest.approx(by_formula(LOSSES, level, planned), rel=1e-12)
    # units that were planned count, and never fewer than there are
    assert (betting.bets(np.array([LOSSES]), level, 3) == betting.bets(np.array([LOSSES]), level, 6)).all()
    assert (betting.bets(np.array([LOSSES]), level) == betting.bets(np.array([LOSSES]), level, 6)).all()
