"""The table of risks in a summary."""

import pytest

from froc.audit.exports import markdown
from froc.audit.rendering.words import ABOVE


@pytest.mark.parametrize(
    ("certified", "bound", "explained"),
    [(True, "0.12", True), (True, "0.1", False), (True, "0.09", False), (False, "0.12", False)],
)
def test_a_certified_risk_whose_bound_is_above_its_budget_is_explained(
    certified: bool, bound: str, explained: bool
) -> None:
    """The bounds hold together and are wider than the test, which decides."""
    row = {"certified": certified, "empirical": {"r": "0.05"}, "cur": {"r": {"simultaneous": bound}}}
    lines = markdown._table({"certificate": {"budget": {"r": "0.1"}}}, row)
    assert lines[2] == f"| r | 5.00% | {float(bound):.2%} | 10% |"
    assert lines[3:] == (["", ABOVE, ""] if explained else [""])
