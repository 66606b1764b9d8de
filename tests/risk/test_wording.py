"""What a certificate says of the mean that it is about."""

from typing import Any

import pytest

from froc.risk.claim import Claim, estimands
from froc.risk.wording import estimand_warnings


def row(mean: float, certified: bool = True) -> dict[str, Any]:
    return {"certified": certified, "empirical_queries": {"r": mean}}


@pytest.mark.parametrize(
    ("rows", "unit", "warned"),
    [
        ([row(0.12), row(0.15), row(0.3, certified=False)], "group", "0.15"),
        ([row(0.1)], "group", None),
        ([row(0.3, certified=False)], "group", None),
        ([row(0.3)], "query", None),
        ([{"certified": True}], "group", None),
        ([], "group", None),
    ],
)
def test_a_mean_over_queries_above_the_budget_is_warned_of_where_groups_are_certified(
    rows: list[dict[str, Any]], unit: str, warned: str | None
) -> None:
    plain = Claim({"r": 0.1}, {"r": "betting"}, {"r": unit})
    claim = Claim({"r": 0.1}, {"r": "betting"}, {"r": unit}, estimand=estimands(plain))
    lines = estimand_warnings(rows, claim)
    if warned is None:
        assert lines == []
        return
    (line,) = lines
    assert line.startswith("r: what is certified is the mean of group means; ")
    assert f"the mean was up to {warned}, above the budget of 0.1" in line
    # older plans named no estimand
    assert estimand_warnings(rows, plain) == []
