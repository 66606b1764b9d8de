"""What a claim says of itself."""

import pytest

from froc.loss_table import WEIGHTED
from froc.risk.claim import Claim, estimands


@pytest.mark.parametrize(
    ("unit", "kind", "words"),
    [
        ("query", "queries", "mean over queries"),
        ("group", "queries", "mean of group means"),
        (WEIGHTED, "queries", "mean over queries, drawn by group"),
        ("query", "sample", "mean over queries of a list that is measured in part"),
        ("group", "census", "mean of group means of a list that is measured completely"),
        # where all are measured nothing is drawn
        (WEIGHTED, "census", "mean over queries of a list that is measured completely"),
    ],
)
def test_what_is_bounded_is_named_by_unit_and_population(unit: str, kind: str, words: str) -> None:
    claim = Claim({"r": 0.1}, {"r": "betting"}, {"r": unit}, population={"r": kind})
    assert estimands(claim) == {"r": words}
    assert Claim({"r": 0.1}, {"r": "betting"}, {"r": "query"}).kind("r") == "queries"
