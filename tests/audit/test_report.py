"""What follows from the facts of a run: the limits that a report must state, and how its trials ended."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import report
from froc.audit.report import LIMITS, Facts
from tests.audit.conftest import Made


@pytest.fixture(scope="module")
def facts(good: Made) -> Facts:
    return good.facts()


@pytest.mark.parametrize(
    ("files", "tokenizer", "more"),
    [
        (True, None, []),
        (True, "from-the-data", ["tokenizer-from-the-data"]),
        # without a model there is no tokenizer, either
        (False, "from-the-data", ["no-model-covered"]),
        (False, None, ["no-model-covered"]),
    ],
)
def test_limits_of_a_model_are_stated_where_there_is_one(
    facts: Facts, files: bool, tokenizer: str | None, more: list[str]
) -> None:
    changed = replace(
        facts, files=facts.files if files else {}, plan=facts.plan.model_copy(update={"tokenizer": tokenizer})
    )
    stated = report.limits(changed, 1)
    assert stated[: len(LIMITS)] == list(LIMITS)
    assert [name for name in stated[len(LIMITS) :] if "model" in name or "tokenizer" in name] == more


@pytest.mark.parametrize(("opening", "stated"), [(1, False), (2, True)])
def test_an_opening_beyond_the_planned_ones_is_stated(facts: Facts, opening: int, stated: bool) -> None:
    assert ("unplanned-opening" in report.limits(facts, opening)) is stated


@pytest.mark.parametrize(("measured", "stated"), [(None, False), (True, False), (False, True)])
def test_earlier_requests_that_were_not_measured_are_stated(facts: Facts, measured: bool | None, stated: bool) -> None:
    after = None if measured is None else SimpleNamespace(measured=measured)
    changed = replace(facts, plan=facts.plan.model_copy(update={"after": after}))
    assert ("earlier-not-measured" in report.limits(changed, 1)) is stated


def test_trials_are_counted_by_how_they_ended() -> None:
    ends = ["complete", "complete", "pruned", "diverged", "out-of-memory", "timed-out", "failed", "interrupted"]
    trials: Any = [SimpleNamespace(status=status) for status in ends]
    plan: Any = SimpleNamespace(search=SimpleNamespace(trials=9))
    assert report.effort(plan, trials) == {
        "planned": 9, "started": 8, "completed": 2, "pruned": 1, "failed": 4, "interrupted": 1,
    }  # fmt: skip
