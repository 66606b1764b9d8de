"""Curves of a page, against the numbers of its report."""

from decimal import Decimal

from froc.audit.rendering import curves
from froc.audit.rendering.numbers import up
from tests.audit.conftest import Made


def test_curves_begin_at_the_bound_without_shift_and_rise(good: Made) -> None:
    report = good.read()["predicate"]
    certificate = report["certificate"]
    subject = next(row for row in certificate["candidates"] if row["config"] == report["config"])
    budget = {risk: Decimal(alpha) for risk, alpha in certificate["budget"].items()}
    shown = {curve["risk"]: curve for curve in curves._curves(report, subject, budget)}
    assert shown.keys() == budget.keys()
    for risk, curve in shown.items():
        assert curve["at"][0] == up(subject["cur"][risk]["simultaneous"])
        assert curve["at"] == sorted(curve["at"], key=lambda text: float(text.rstrip("%")))
