"""Candidates that were measured on fewer units than planned: their certificate, from the losses by hand."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from froc.bounds import betting
from froc.errors import InputError
from froc.loss_table import check, place
from froc.risk.certificate import Candidate, certify
from froc.risk.claim import Claim
from froc.risk.rounding import up_p

QUERIES = sorted((f"q{i}" for i in range(60)), key=place)
"""In the sealed order."""
CLAIM = Claim({"r": 0.3}, {"r": "betting"}, {"r": "query"}, procedure="bonferroni", sequential=True)
CANDIDATES = [Candidate("short", "", {}, 1.0), Candidate("whole", "", {}, 0.5)]
ORDER = pl.DataFrame({"risk": "r", "query": QUERIES, "unit": QUERIES})
LOST = {"short": [i % 8 == 0 for i in range(40)], "whole": [i % 2 == 0 for i in range(60)]}
"""Whether the first units lose all: five of 40, thirty of 60."""


def table() -> pl.DataFrame:
    parts = [
        pl.DataFrame({"config": name, "risk": "r", "query": QUERIES[: len(lost)], "loss": [float(x) for x in lost]})
        for name, lost in LOST.items()
    ]
    # each is complete by itself; together they are not, which `check` refuses where nothing stopped early
    return pl.concat([check(part) for part in parts]).sort("query")


def test_each_is_judged_by_the_units_it_was_measured_on() -> None:
    document = certify(table(), CANDIDATES, CLAIM, ORDER)
    assert document["sequential"] == {"planned": 120, "measured": 100, "saved": 20}
    assert document["n"] == {"r": 60}
    for row, name in zip(document["candidates"], LOST, strict=True):
        assert row["n"] == {"r": len(LOST[name])}
        assert row["empirical"]["r"] == pytest.approx(sum(LOST[name]) / len(LOST[name]), abs=1e-6)
        # bets aim at a half of the level, which is each one's share, and at all units that were planned
        values = np.array([LOST[name]], dtype=np.float64)
        p = float(betting.p_value_from_losses(values, 0.3, 0.05, planned=60)[0])
        assert row["p_values"]["r"] == up_p(p)
        assert row["certified"] == (p <= 0.05)
        upper = betting.upper_from_losses(values, 0.1, planned=60)[0]
        assert row["cur"]["r"]["pointwise"] == pytest.approx(float(upper), abs=2e-6)


def test_what_was_not_measured_at_all_is_a_loss_of_one() -> None:
    document = certify(table(), [*CANDIDATES, Candidate("none", "", {}, 0.3)], CLAIM, ORDER)
    row = document["candidates"][2]
    assert (row["n"], row["p_value"], row["empirical"]) == ({"r": 0}, 1.0, {"r": 1.0})
    assert row["cur"]["r"] == {"pointwise": 1.0, "simultaneous": 1.0}
    assert not row["certified"]


def test_a_sequential_claim_needs_the_sealed_order() -> None:
    with pytest.raises(InputError, match="needs the list of everything that was to be measured"):
        certify(table(), CANDIDATES, CLAIM)


def test_no_share_is_claimed_beside_a_combined_budget() -> None:
    rows = pl.concat([table(), table().with_columns(risk=pl.lit("s"))])
    changed = replace(
        CLAIM, sequential=False, budget={"r": 0.3, "combined": 0.3}, weights={"r": 0.5, "s": 0.5}, relative=("r",),
        bound=dict.fromkeys("rs", "betting"), unit=dict.fromkeys("rs", "query"),
    )  # fmt: skip
    with pytest.raises(InputError, match="leave combined budgets out"):
        certify(rows, CANDIDATES, changed)
