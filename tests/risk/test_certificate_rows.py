"""Numbers in a candidate's row of a certificate that only some claims have."""

from dataclasses import replace

import polars as pl
import pytest

from froc.loss_table import WEIGHTED
from froc.risk.certificate import _radius, certify
from froc.risk.positive_control import BASE, Control
from froc.risk.shift import shifted
from tests.risk.test_certificate import RISKS, claim, listed, table


@pytest.mark.parametrize(("lost", "radius"), [((2, 1), True), ((60, 40), False)])
def test_a_combined_risk_has_a_radius_where_its_budget_holds(lost: tuple[int, int], radius: bool) -> None:
    weighted = claim(budget={"combined": 0.2}, weights=dict.fromkeys(RISKS, 0.5))
    weighted = replace(weighted, bound=dict.fromkeys(RISKS, "binomial"), unit=dict.fromkeys(RISKS, "query"))
    row = certify(table({"forgetting": lost[:1], "utility": lost[1:]}), listed(1), weighted)["candidates"][0]
    if not radius:
        assert row["robust_radius"]["combined"] is None
        return
    # where the mean of the two shifted bounds meets the budget
    bounds = [row["cur"][risk]["simultaneous"] for risk in RISKS]
    parts = [shifted(bound, row["robust_radius"]["combined"]) for bound in bounds]
    assert sum(parts) / 2 == pytest.approx(0.2, abs=1e-4)


def test_the_mean_of_a_relative_risk_is_the_share_of_the_score_that_was_lost() -> None:
    """A base model that scores 0.8 of 150 queries; 12 of them are lost: a tenth."""
    relative = claim("betting", ("utility",), relative=("utility",))
    absences = table({"utility": (30,)}).with_columns(config=pl.lit(BASE))
    base = Control(absences.with_columns(loss=pl.lit(200, pl.Int16)), {"utility": "ceiling"})
    row = certify(table({"utility": (12,)}), listed(1), relative, control=base)["candidates"][0]
    assert row["empirical"]["utility"] == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("units", "ratio"), [(("query", "query"), False), ((WEIGHTED, "query"), True), (("query", WEIGHTED), True)]
)
def test_a_sum_with_a_ratio_in_it_has_no_radius(units: tuple[str, str], ratio: bool) -> None:
    """What a shift of the queries does to a ratio is not known."""
    weighted = claim(
        "betting", budget={"combined": 0.2}, weights=dict.fromkeys(RISKS, 0.5), largest=dict.fromkeys(RISKS, 9)
    )
    weighted = replace(weighted, unit=dict(zip(RISKS, units, strict=True)))
    radius = _radius({"forgetting": [0.05], "utility": [0.05], "combined": [0.05]}, "combined", 0, weighted)
    assert (radius is None) is ratio
