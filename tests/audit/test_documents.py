"""Documents of plans whose fields contradict each other, or are out of range, are refused."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from froc.audit.documents import Plan
from tests.audit.conftest import Made


@pytest.mark.parametrize(
    ("population", "listed", "holds"),
    [
        ({"forgetting": "sample", "utility": "queries"}, {"forgetting": 300}, True),
        ({"forgetting": "census", "utility": "queries"}, {"forgetting": 300}, True),
        ({"forgetting": "queries", "utility": "queries"}, {}, True),
        ({"forgetting": "queries", "utility": "queries"}, {"forgetting": 300}, False),
        ({"forgetting": "sample", "utility": "queries"}, {"utility": 300}, False),
        ({"forgetting": "sample", "utility": "queries"}, {"forgetting": 300, "mine": 300}, False),
    ],
)
def test_only_samples_and_censuses_are_of_a_list(
    good: Made, population: dict[str, str], listed: dict[str, int], holds: bool
) -> None:
    document: dict[str, Any] = json.loads((good.run / "plan.json").read_text())
    document |= {"population": population, "listed": listed}
    if holds:
        assert Plan.model_validate(document).claim.listed == listed
        return
    with pytest.raises(ValidationError, match="only samples and censuses are of a list"):
        Plan.model_validate(document)


@pytest.mark.parametrize(("number", "holds"), [(-1, False), (0, True), (10**9, True), (10**9 + 1, False)])
def test_a_number_of_units_is_a_billion_at_most(good: Made, number: int, holds: bool) -> None:
    document: dict[str, Any] = json.loads((good.run / "plan.json").read_text())
    document["split"]["search"]["forgetting"] = number
    if holds:
        assert Plan.model_validate(document).split.search["forgetting"] == number
        return
    with pytest.raises(ValidationError, match="forgetting"):
        Plan.model_validate(document)
