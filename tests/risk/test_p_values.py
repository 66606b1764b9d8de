"""p-values of several candidates, each at a level of its own, as the weighted sum of two risks asks for them."""

from dataclasses import replace

import numpy as np
import pytest

from froc.bounds import Bound
from froc.loss_table import SCALE, WEIGHTED
from froc.plugins import make
from froc.risk.claim import Claim, evidence_from_matrix, evidence_of_candidate
from froc.risk.p_values import at_levels, p_values, raw_p

LOSSES = (np.random.default_rng(0).random((3, 60)) < [[0.02], [0.1], [0.3]]).astype(np.int16) * SCALE
LEVELS = np.array([0.05, 0.2, 0.5])


@pytest.mark.parametrize(
    ("procedure", "bound"),
    [("weighted-holm", "binomial"), ("weighted-holm", "betting"), ("e-bh", "mixture"), ("e-bh", "betting")],
)
@pytest.mark.parametrize("radius", [0.0, 0.05])
def test_each_candidate_is_compared_with_its_own_level(procedure: str, bound: str, radius: float) -> None:
    """Also where measuring stopped early, so that candidates have rows of different lengths."""
    claim = Claim({"r": 0.1}, {"r": bound}, {"r": "query"}, procedure=procedure, radius=radius)
    whole = evidence_from_matrix(LOSSES)
    alone = [raw_p(claim, "r", evidence_of_candidate(whole, i), 3, float(alpha))[0] for i, alpha in enumerate(LEVELS)]
    assert raw_p(claim, "r", whole, 3, LEVELS) == pytest.approx(alone, rel=1e-12)
    rows = replace(whole, losses=[LOSSES[i : i + 1, : 40 + 10 * i] for i in range(3)])
    parts = [
        raw_p(claim, "r", evidence_from_matrix(LOSSES[i : i + 1, : 40 + 10 * i]), 3, float(alpha))[0]
        for i, alpha in enumerate(LEVELS)
    ]
    assert raw_p(claim, "r", rows, 3, LEVELS) == pytest.approx(parts, rel=1e-12)


def test_e_values_become_p_values_of_at_most_1() -> None:
    """One over them, where they are above 1."""
    claim = Claim({"r": 0.1}, {"r": "mixture"}, {"r": "query"}, procedure="e-bh")
    e = make(Bound, "mixture").e_value(LOSSES, 0.1)
    assert e[0] > 1 > e[2]
    assert raw_p(claim, "r", evidence_from_matrix(LOSSES), 3, 0.1) == pytest.approx([1 / e[0], min(1, 1 / e[1]), 1.0])


def test_a_census_that_meets_its_budget_has_a_p_value_of_exactly_0() -> None:
    """Nothing is drawn; and any other p-value of 0 is no certainty."""
    listed = Claim({"r": 0.2}, {"r": "census"}, {"r": "query"}, population={"r": "census"}, listed={"r": 60})
    drawn = Claim({"r": 0.9}, {"r": "binomial"}, {"r": "query"})
    evidence = {"r": evidence_from_matrix(LOSSES)}
    assert p_values(listed, "r", evidence, 3)[:1] == [0.0]
    zero = {"r": evidence_from_matrix(np.zeros((1, 5000), dtype=np.int16))}
    assert p_values(drawn, "r", zero, 1) == [1e-300]


def test_ratios_are_compared_as_losses_that_are_tilted_to_the_level() -> None:
    """alpha + (S + alpha A - alpha K) / largest by hand, in thousandths, rounded up; other evidence stays as it is."""
    plain = evidence_from_matrix(np.array([[0, 300, 1000]], dtype=np.int16))
    claim = Claim({"r": 0.1}, {"r": "betting"}, {"r": WEIGHTED}, largest={"r": 4})
    levels = np.array([0.2])
    assert at_levels(claim, "r", plain, levels) is plain
    # sums of groups of 1, 2 and 4 queries, of which none has more than 4
    groups = at_levels(claim, "r", replace(plain, sizes=np.array([1, 2, 4])), levels)
    assert np.asarray(groups.losses).tolist() == [[150, 175, 250]]
    # single queries of which the base model lacks nothing, all and a half; no more than all can be lost
    shares = at_levels(claim, "r", replace(plain, absences=np.array([0, 1000, 500])), levels)
    assert np.asarray(shares.losses).tolist() == [[0, 500, 1000]]
    assert groups.sizes is groups.absences is shares.absences is None
