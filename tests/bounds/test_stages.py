"""Betting that goes on with further stages: bets of earlier stages stay what they were, and the error stays at its level."""

import itertools
import math

import numpy as np
import pytest

from froc.bounds import betting
from froc.bounds.betting import Betting
from froc.loss_table import SCALE
from tests.bounds.test_betting import by_formula

LOSSES = [0.0, 0.4, 1.0, 0.1, 0.0, 0.7]


def test_bets_look_no_further_than_the_end_of_their_own_stage() -> None:
    level = 0.05
    stakes = betting.bets(np.array([LOSSES]), level, ends=(2, 4))[0]
    for first, last in ((0, 2), (2, 4), (4, 6)):
        expected = by_formula(LOSSES[:last], level, last)
        assert stakes[first:last] == pytest.approx(expected[first:last], rel=1e-12)
    # a stage without units of this risk changes nothing
    assert (betting.bets(np.array([LOSSES]), level, ends=(2, 2, 4)) == stakes).all()


def test_a_further_stage_changes_no_earlier_bet_so_that_nothing_is_taken_back() -> None:
    rng = np.random.default_rng(5)
    losses = (rng.random((40, 300)) < 0.08).astype(np.int64) * SCALE
    for first in (100, 200):
        ends = (100,) if first == 200 else ()
        before, after = Betting(ends=ends), Betting(ends=(*ends, first))
        more = losses[:, : first + 100]
        assert (after.p_value(more, 0.1) <= before.p_value(losses[:, :first], 0.1)).all()
        assert (after.upper(more, 0.1) <= before.upper(losses[:, :first], 0.1) + 1e-9).all()


def test_error_is_at_most_the_level_over_all_sequences_with_whatever_rule_to_go_on() -> None:
    """Exactly: all 2^12 sequences of 0-1 losses at the risk itself; who goes on chooses by what was seen, and stops where it passes."""
    risk, level = 0.3, 0.1
    sequences = np.array(list(itertools.product((0, SCALE), repeat=12)), dtype=np.int64)
    ones = (sequences > 0).sum(axis=1)
    chances = risk**ones * (1 - risk) ** (12 - ones)
    passed = np.zeros(len(sequences), dtype=bool)
    bound = {ends: Betting(level=level, ends=ends).p_value(sequences[:, :n], risk) for ends, n in PATHS.items()}
    passed |= bound[()] <= level
    # after four units: two more where many were lost, else eight at once; after six: six more
    many = (sequences[:, :4] > 0).sum(axis=1) >= 2
    passed |= many & ((bound[4,] <= level) | (bound[4, 6] <= level))
    passed |= ~many & (bound[(4, 4)] <= level)
    assert float(chances @ passed) <= level
    assert math.isclose(float(chances.sum()), 1.0)


PATHS: dict[tuple[int, ...], int] = {(): 4, (4,): 6, (4, 6): 12, (4, 4): 12}
