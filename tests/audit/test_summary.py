"""Page 1 in words and numbers, from a report that is changed in one place."""

from typing import Any

import pytest

from froc.audit.rendering import summary
from tests.audit.conftest import Made


@pytest.fixture
def report(good: Made) -> dict[str, Any]:
    predicate: dict[str, Any] = good.read()["predicate"]
    return predicate


def test_populations_are_named_once_where_they_are_alike_and_apart_where_they_are_not(report: dict[str, Any]) -> None:
    certificate = report["certificate"]
    alike = summary.claim(report, certificate)
    assert "This is about " in alike
    assert "differs" not in alike
    mixed = {**certificate, "population": {"forgetting": "census", "utility": "queries"}}
    words = summary.claim(report, mixed).partition("What this is about differs. ")[2]
    assert words.startswith("Forgetting: ")
    assert "; utility: " in words


def test_each_risk_has_the_number_of_units_that_it_was_measured_on(report: dict[str, Any]) -> None:
    certificate = report["certificate"]
    row = next(row for row in certificate["candidates"] if row["config"] == report["config"])
    assert {risk["name"]: risk["n"] for risk in summary.view(report)["shown"]} == row["n"]


def test_the_base_models_result_stands_beside_each_risk_where_it_was_measured(report: dict[str, Any]) -> None:
    base = report["certificate"]["base"]
    shown = {risk["name"]: risk["before"] for risk in summary.view(report)["shown"]}
    assert shown == {
        risk: {
            "measured": of_risk["before"], "lower": of_risk["lower"], "ceiling": risk == "utility", "vacuous": False,
        }
        for risk, of_risk in base.items()
    }  # fmt: skip
    certificate = {name: value for name, value in report["certificate"].items() if name != "base"}
    without = summary.view({**report, "certificate": certificate})["shown"]
    assert [risk["before"] for risk in without] == [None, None]


@pytest.mark.parametrize(
    ("certified", "bound", "within", "strict"),
    [
        (True, "0.09", True, False), (True, "0.11", True, True), (True, "0.1", True, False),
        (False, "0.09", True, False), (False, "0.1", True, False), (False, "0.11", False, False),
    ],
)  # fmt: skip
def test_a_risk_is_within_budget_by_its_bound_or_by_the_test(
    report: dict[str, Any], certified: bool, bound: str, within: bool, strict: bool
) -> None:
    """A test may certify what the simultaneous bound, which is wider, does not show; the page says where it does."""
    certificate = report["certificate"]
    rows = [
        {
            **row,
            "certified": certified,
            "cur": {**row["cur"], "forgetting": {**row["cur"]["forgetting"], "simultaneous": bound}},
        }
        for row in certificate["candidates"]
    ]
    budget = {**certificate["budget"], "forgetting": "0.1"}
    changed = {**report, "certificate": {**certificate, "candidates": rows, "budget": budget}}
    (shown,) = (risk for risk in summary.view(changed)["shown"] if risk["name"] == "forgetting")
    assert (bool(shown["within"]), bool(shown["strict"])) == (within, strict)


def test_what_forgetting_cost_is_said_where_it_is_known(report: dict[str, Any]) -> None:
    row = next(row for row in report["certificate"]["candidates"] if row["config"] == report["config"])
    none = {**report, "certificate": {**report["certificate"], "candidates": []}}
    without = {**row, "cur": {"forgetting": row["cur"]["forgetting"]}}
    assert summary._cost(report, row, True).startswith("Against its base model, ")
    assert summary._cost(report, None, True).startswith("No configuration was certified: ")
    for silent in (summary._cost(none, None, True), summary._cost(report, None, False)):
        assert silent == "No configuration was tested, so no cost is known."
    assert summary._cost(report, without, True).startswith("Utility was not measured on calibration queries")
