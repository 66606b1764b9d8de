"""Each candidate's bets and CUR at its own share of the level, and what older plans keep."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from froc.bounds import Bound
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.plugins import make
from froc.risk.certificate import Candidate, Claim, decide
from froc.risk.claim import automatic, own_levels, simultaneous_levels
from froc.risk.weighted_sum import COMBINED

BUDGET = {"forgetting": 0.1, "utility": 0.1}
CLAIM = Claim(
    dict(BUDGET), dict.fromkeys(BUDGET, "normal_test_betting"), dict.fromkeys(BUDGET, "query"), own_levels=True
)
CANDIDATES = [Candidate(f"c{place}", "npo", {}, 1.0 / place) for place in range(1, 5)]
WEIGHTS = np.array([candidate.weight for candidate in CANDIDATES])


def drawn(risk: float, units: int = 300, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.int16]]]:
    """Losses of four candidates that are 1 with a probability."""
    draw = np.random.default_rng(seed)
    return {name: ((draw.random((4, units)) < risk) * SCALE).astype(np.int16) for name in BUDGET}


def test_levels_by_hand() -> None:
    """Weights 1, 1/2, 1/3, 1/4 add up to 25/12; two risks share each candidate's part."""
    assert own_levels(CLAIM, WEIGHTS) == pytest.approx([0.048, 0.024, 0.016, 0.012])
    assert simultaneous_levels(CLAIM, WEIGHTS) == pytest.approx([0.024, 0.012, 0.008, 0.006])
    assert simultaneous_levels(replace(CLAIM, own_levels=False), WEIGHTS) == pytest.approx([0.0125] * 4)


def test_a_candidate_that_is_tested_only_after_others_aims_at_the_whole_level() -> None:
    assert own_levels(replace(CLAIM, procedure="fixed-sequence"), WEIGHTS) == pytest.approx([0.1] * 4)


def test_bets_and_bounds_are_each_candidates_own() -> None:
    losses = drawn(0.05)
    rows = decide(losses, CANDIDATES, CLAIM)["candidates"]
    for place, row in enumerate(rows):
        own, risks_level = own_levels(CLAIM, WEIGHTS)[place], simultaneous_levels(CLAIM, WEIGHTS)[place]
        for risk in BUDGET:
            mine = losses[risk][place : place + 1]
            p = make(Bound, "normal_test_betting", {"level": float(own)}).p_value(mine, 0.1)[0]
            assert row["p_values"][risk] == pytest.approx(p, rel=1e-4)
            upper = make(Bound, "normal_test_betting").upper(mine, float(risks_level))[0]
            assert row["cur"][risk]["simultaneous"] == pytest.approx(upper, abs=1.1e-6)


def test_the_first_candidate_is_bounded_lower_and_the_last_higher_than_with_equal_shares() -> None:
    alike = {risk: np.repeat(losses[:1], 4, axis=0) for risk, losses in drawn(0.05).items()}
    own, equal = (
        [
            row["cur"]["utility"]["simultaneous"]
            for row in decide(alike, CANDIDATES, replace(CLAIM, own_levels=flag))["candidates"]
        ]
        for flag in (True, False)
    )
    assert own[0] < equal[0] == equal[-1] < own[-1]


def test_only_joint_statements_cut_a_bound_at_the_budget() -> None:
    """A certified configuration is within its budgets; where that holds together with the bounds, no bound need be above it."""
    losses = drawn(0.05, 200, seed=6)
    alone, joint = (decide(losses, CANDIDATES, replace(CLAIM, joint=joint))["candidates"] for joint in (False, True))
    cut = [(row["certified"], row["cur"][risk]["simultaneous"]) for row in joint for risk in BUDGET]
    assert all(bound <= 0.1 for certified, bound in cut if certified)
    assert any(bound == 0.1 for certified, bound in cut if certified)
    assert any(bound > 0.1 for certified, bound in cut if not certified)
    assert any(row["certified"] and row["cur"][risk]["simultaneous"] > 0.1 for row in alone for risk in BUDGET)


def test_a_screening_cuts_no_bound() -> None:
    """Its rejections may be false one by one."""
    losses = drawn(0.05, 200, seed=6)
    screened = replace(CLAIM, joint=True, procedure="benjamini-yekutieli")
    rows = decide(losses, CANDIDATES, screened)["candidates"]
    assert all(row["cur"][risk]["simultaneous"] != 0.1 for row in rows for risk in BUDGET)


def test_a_combined_risk_takes_bounds_whose_p_values_never_rise_with_the_risk() -> None:
    """The test of a sum follows one part's p-value down as the other's goes up; STaR bets have a sawtooth."""
    words: dict[str, Any] = {"binary": False, "unit": "query", "population": "queries", "sequential": False}
    assert automatic(**words, procedure="weighted-holm") == "normal_test_betting"
    assert automatic(**words, procedure="weighted-holm", combined=True) == "betting"
    combined = replace(CLAIM, budget={COMBINED: 0.1}, weights=dict.fromkeys(BUDGET, 0.5))
    with pytest.raises(
        InputError, match="never rise with the risk, which normal_test_betting has not; take --bound betting"
    ):
        decide(drawn(0.01), CANDIDATES, combined)
    monotone = replace(combined, bound=dict.fromkeys(BUDGET, "betting"))
    assert decide(drawn(0.01), CANDIDATES, monotone)["certified"]
