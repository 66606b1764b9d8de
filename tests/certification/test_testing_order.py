"""Which configuration of a table is tested first."""

import polars as pl
import pytest

from froc.certification.certify import candidates
from froc.errors import InputError
from froc.risk.claim import Claim
from froc.risk.weighted_sum import COMBINED

MEANS = {"a": {"forgetting": 300, "utility": 10}, "b": {"forgetting": 20, "utility": 60}}
BOUND, UNIT = dict.fromkeys(MEANS["a"], "betting_over_orders"), dict.fromkeys(MEANS["a"], "query")


def table(split: str, means: dict[str, dict[str, int]] = MEANS) -> pl.DataFrame:
    """One query per configuration and risk."""
    rows = [
        {"config": config, "risk": risk, "split": split, "unit": "u", "query": "q", "loss": loss}
        for config, losses in means.items()
        for risk, loss in losses.items()
    ]
    return pl.DataFrame(rows)


def order(claim: Claim) -> list[str]:
    both = pl.concat([table("search"), table("calibration")])
    return [candidate.config for candidate in candidates(both, claim)]


def test_the_largest_risk_over_its_own_budget_decides() -> None:
    """.3 of .5 is .6 of the budget, .06 of .05 is 1.2 of it; with equal budgets .06 comes before .3."""
    assert order(Claim({"forgetting": 0.5, "utility": 0.05}, BOUND, UNIT)) == ["a", "b"]
    assert order(Claim({"forgetting": 0.1, "utility": 0.1}, BOUND, UNIT)) == ["b", "a"]


def test_risks_without_a_budget_do_not_count_and_a_sum_does() -> None:
    assert order(Claim({"utility": 0.1}, BOUND, UNIT)) == ["a", "b"]
    weights = {"forgetting": 0.1, "utility": 0.9}
    # .039 against .056
    assert order(Claim({COMBINED: 0.1}, BOUND, UNIT, weights=weights)) == ["a", "b"]
    weights = {"forgetting": 0.5, "utility": 0.5}
    # .155 against .04
    assert order(Claim({COMBINED: 0.1}, BOUND, UNIT, weights=weights)) == ["b", "a"]


def test_a_configuration_needs_search_rows_of_every_risk() -> None:
    claim = Claim({"forgetting": 0.5, "utility": 0.05}, BOUND, UNIT)
    searched = table("search").filter((pl.col("config") == "a") | (pl.col("risk") == "utility"))
    with pytest.raises(InputError, match="b has calibration rows but no search rows"):
        candidates(pl.concat([searched, table("calibration")]), claim)
