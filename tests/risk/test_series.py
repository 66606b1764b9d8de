"""A declared series of attempts with fresh queries: each at its share of the level, and what is said of it."""

from typing import Any

import numpy as np
import pytest

from froc.errors import InputError
from froc.risk.certificate import Candidate, decide
from froc.risk.claim import Claim, level

BUDGET = {"r": 0.1}


def claim(**more: Any) -> Claim:
    return Claim(BUDGET, {"r": "binomial"}, {"r": "query"}, **more)


def test_each_attempt_has_its_share_of_the_level() -> None:
    assert level(claim(series=4)) == pytest.approx(0.025)
    assert level(claim(series=4, openings=2, joint=True)) == pytest.approx(0.00625)
    # 0 of 28 losses of 1: .9^28 = .052 passes alone, and not as one of two
    losses = {"r": np.zeros((1, 28), dtype=np.int16)}
    assert decide(losses, [Candidate("c0000", "", {}, 1.0)], claim())["certified"] == ["c0000"]
    document = decide(losses, [Candidate("c0000", "", {}, 1.0)], claim(series=2))
    assert document["certified"] == []
    assert document["level"] == pytest.approx(0.05)
    statement = document["opening"]["statement"]
    assert "one of 2 attempts with fresh queries that were declared beforehand" in statement
    assert "all of them together hold with confidence 0.9" in statement


def test_a_further_opening_of_one_attempt_costs_the_whole_series() -> None:
    """Each opening of each of two attempts errs with .05 at most: two of two make .2."""
    document = decide(
        {"r": np.zeros((1, 90), dtype=np.int16)}, [Candidate("c0000", "", {}, 1.0)], claim(series=2, opening=2)
    )
    assert "jointly 0.8, not 0.9" in document["opening"]["statement"]


def test_a_series_of_none_is_refused() -> None:
    with pytest.raises(InputError, match="holds none"):
        decide({"r": np.zeros((1, 28), dtype=np.int16)}, [Candidate("c0000", "", {}, 1.0)], claim(series=0))


def test_who_needs_hardly_any_confidence_still_bets() -> None:
    """500 losses of 0 say much, whatever level is asked for."""
    losses = {"r": np.zeros((1, 500), dtype=np.int16)}
    for bound in ("normal_test_betting", "betting"):
        low = Claim(
            BUDGET, {"r": bound}, {"r": "query"}, confidence=0.0001, procedure="fixed-sequence", own_levels=True
        )
        assert decide(losses, [Candidate("c0000", "", {}, 1.0)], low)["candidates"][0]["p_value"] < 1e-3
