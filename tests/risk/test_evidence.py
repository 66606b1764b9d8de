"""Which rows of a loss table are evidence for a claim, by the population that it is about."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from froc.errors import InputError
from froc.loss_table import SCALE, WEIGHTED, check
from froc.risk.claim import Claim
from froc.risk.evidence import evidence_from_table, of_search, shares_lost

ROWS = [
    # split, unit, query, loss
    ("search", "g0", "q0", 1.0), ("search", "g0", "q1", 0.0),
    ("calibration", "g1", "q2", 1.0), ("calibration", "g1", "q3", 0.5), ("calibration", "g2", "q4", 0.0),
]  # fmt: skip


def table(rows: list[tuple[str, str, str, float]] = ROWS) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["split", "unit", "query", "loss"], orient="row")
    return check(frame.with_columns(config=pl.lit("c0"), risk=pl.lit("r")))


def claim(kind: str = "queries", unit: str = "query", **more: Any) -> Claim:
    bound = {"queries": "betting", "sample": "betting_without_replacement", "census": "census"}[kind]
    return Claim({"r": 0.3}, {"r": bound}, {"r": unit}, population={"r": kind}, **more)


def sums(made: Claim) -> tuple[int, int, int, int]:
    """Number of units and sum of their losses, of the search's and of calibration's that count."""
    evidence = evidence_from_table(table(), "r", ["c0"], made, None)
    return evidence.n_searched, int(evidence.search_sums[0]), evidence.count(0), int(np.asarray(evidence.losses).sum())


@pytest.mark.parametrize(
    ("made", "counted"),
    [
        # what the search saw is no draw; of a list it is known; in a census all are alike
        (claim(), (0, 0, 3, 1500)),
        (claim("sample", listed={"r": 5}), (2, 1000, 3, 1500)),
        (claim("census", listed={"r": 5}), (0, 0, 5, 2500)),
        (claim(unit="group"), (0, 0, 2, 750)),
        (claim("sample", "group", listed={"r": 3}), (1, 500, 2, 750)),
        (claim("census", WEIGHTED, listed={"r": 5}), (0, 0, 5, 2500)),
    ],
)
def test_searched_units_count_by_the_population(made: Claim, counted: tuple[int, int, int, int]) -> None:
    assert sums(made) == counted


@pytest.mark.parametrize(("listed", "fits"), [(5, True), (4, False)])
def test_no_more_units_are_measured_than_are_listed(listed: int, fits: bool) -> None:
    """Three here and two in the search."""
    made = claim("sample", listed={"r": listed})
    if fits:
        assert sums(made)[:1] == (2,)
        return
    with pytest.raises(InputError, match="more units are measured than the 4 that are listed"):
        sums(made)


@pytest.mark.parametrize("unit", ["group", WEIGHTED])
def test_a_group_that_the_search_has_seen_is_refused_unless_nothing_is_drawn(unit: str) -> None:
    seen = table([*ROWS, ("calibration", "g0", "q5", 0.0)])
    with pytest.raises(InputError, match="unit 'g0' has rows in both splits"):
        evidence_from_table(seen, "r", ["c0"], claim(unit=unit, largest={"r": 4}), None)
    everything = claim("census", unit, listed={"r": 6}, largest={"r": 4})
    assert evidence_from_table(seen, "r", ["c0"], everything, None).count(0) == (3 if unit == "group" else 6)


def test_groups_keep_their_mean_over_queries_beside_their_own() -> None:
    """1.5 lost of three queries; where groups are drawn for their queries, with sums and sizes."""
    means = evidence_from_table(table(), "r", ["c0"], claim(unit="group"), None)
    assert means.pooled is not None
    assert means.pooled.tolist() == [0.5]
    weighted = evidence_from_table(table(), "r", ["c0"], claim(unit=WEIGHTED, largest={"r": 2}), None)
    assert weighted.sizes is not None
    assert dict(zip(weighted.sizes.tolist(), np.asarray(weighted.losses)[0].tolist(), strict=True)) == {2: 1500, 1: 0}
    with pytest.raises(InputError, match="a group has 2 queries, more than the 1 that were planned for"):
        evidence_from_table(table(), "r", ["c0"], claim(unit=WEIGHTED, largest={"r": 1}), None)


def test_search_losses_have_the_form_of_calibrations() -> None:
    evidence = of_search(table(), "r", "c0", claim())
    assert sorted(np.asarray(evidence.losses)[0].tolist()) == [0, SCALE]
    assert of_search(table(), "r", "c0", claim(unit="group")).count(0) == 1


def test_of_no_score_all_is_lost() -> None:
    assert shares_lost(np.array([0, 100, 500]), 400).tolist() == [0.0, 0.25, 1.0]
    assert shares_lost(np.array([0, 100]), 0).tolist() == [1.0, 1.0]
