"""Small rules of the cross-checks, case by case; what they refuse in whole bundles is in test_checks."""

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from froc.audit import cross_checks, ranking
from froc.audit.bundle_files import Trial
from froc.errors import VerificationError
from froc.risk.positive_control import BASE
from tests.audit.conftest import Made


@pytest.mark.parametrize(
    ("config", "is_of"),
    [
        ("c0007", True),
        ("c0007-s21-m0750", True),
        ("c0008", False),
        ("c0008-s7-m0007", False),
        # no search gives these names
        ("c007", False),
        ("c0007-", False),
        ("c0007-m0750", False),
        ("base", False),
        ("", False),
    ],
)
def test_a_name_is_of_the_trial_whose_number_it_has(config: str, is_of: bool) -> None:
    assert cross_checks._is_of(config, 7) is is_of


def test_a_trial_has_its_end_and_each_stop_as_configurations() -> None:
    stop: Any = SimpleNamespace(config="c0007-s21-m0750", stop=21, mix="0.75")
    line: Any = SimpleNamespace(config="c0007", params={"lr": "0.1"}, variants=[stop])
    assert cross_checks._configurations(line) == [
        ("c0007", {"lr": "0.1"}),
        ("c0007-s21-m0750", {"lr": "0.1", "stop": 21, "mix": "0.75"}),
    ]


@pytest.mark.parametrize(
    ("metrics", "earlier"),
    [
        ({"forgetting": "rouge_l", "utility": "rouge_l/utility"}, False),
        ({"forgetting": "rouge_l", "earlier": "rouge_l/earlier"}, True),
        ({"forgetting": "rouge_l", "earlier-2": "rouge_l@drift/earlier-2"}, True),
        ({}, False),
    ],
)
def test_a_plan_measures_earlier_requests_where_any_metric_has_their_queries(
    metrics: dict[str, str], earlier: bool
) -> None:
    plan: Any = SimpleNamespace(metrics=metrics)
    assert cross_checks._measures_earlier(plan) is earlier


def test_rows_of_the_base_model_stand_apart() -> None:
    losses = pl.DataFrame({"config": ["c0000", BASE, "c0001"], "loss": [1, 2, 3]})
    candidates, base = cross_checks._divided(losses)
    assert candidates["loss"].to_list() == [1, 3]
    assert base is not None
    assert base["loss"].to_list() == [2]
    assert cross_checks._divided(candidates)[1] is None


@pytest.mark.parametrize(("search", "in_order"), [(["a", "b"], True), (["a", "c"], False), (["a", "d"], False)])
def test_units_of_older_plans_are_searched_before_the_others_in_the_order_of_their_names(
    search: list[str], in_order: bool
) -> None:
    units = [*search, "c", "e"]
    rows = pl.DataFrame({"split": ["search"] * 2 + ["calibration"] * 2, "unit": units})
    if in_order:
        cross_checks._draw(rows, "forgetting")
    else:
        with pytest.raises(VerificationError, match="the forgetting units were not divided in the order"):
            cross_checks._draw(rows, "forgetting")


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        (["1"], [1], False),
        ([1, 2], [2, 1], False),
    ],
)
def test_documents_are_the_same_as_json(first: Any, second: Any, alike: bool) -> None:
    assert cross_checks.same(first, second) is alike


def test_step_by_step_is_said_what_was_compared(originals: dict[str, Made]) -> None:
    """A sequential plan measures the first units of the order; rows of the search are counted apart."""
    seen = {
        name: {check.name: check.seen for check in originals[name].verify().checks}
        for name in ("good", "early", "drawn")
    }
    assert "every candidate on every sealed query, once" in seen["good"]["losses"]
    assert "of the search" not in seen["good"]["losses"]
    assert (
        "on the first units of the sealed order, as many as each candidate was measured on, once"
        in seen["early"]["losses"]
    )
    assert ", and " in seen["drawn"]["losses"]
    assert seen["drawn"]["losses"].partition(";")[0].endswith(" of the search")
    assert "none before one that lost less under every risk" in seen["good"]["trials"]


def test_an_order_that_the_log_cannot_show_is_not_called_compared(good: Made) -> None:
    facts = good.facts()
    assert ranking.check(facts.seal, facts.trials, ["forgetting", "utility"]) == []
    assert ranking.check(facts.seal, facts.trials, ["forgetting", "utility", "jailbreak"]) == ["jailbreak"]


@pytest.mark.parametrize("text", ["audited and approved", "x" * 201, "", "a\nb"])
def test_hyperparameters_are_words_and_no_sentences(good: Made, text: str) -> None:
    line = good.facts().trials[0].model_dump()
    Trial.model_validate({**line, "params": {"schedule": "cosine", "lr": "0.001"}})
    for params in ({"schedule": text}, {text: 1}):
        with pytest.raises(ValidationError):
            Trial.model_validate({**line, "params": params})


def _line(trial: int, status: str = "complete") -> Any:
    """A line of the log, of a trial under the plan."""
    return SimpleNamespace(
        trial=trial, attempt=1, config=f"c{trial:04d}", method="npo", params={}, variants=[], steps=9, plan="p", status=status,
        search=None, averages=None,
    )  # fmt: skip


@pytest.mark.parametrize(("counted", "holds"), [(0, False), (1, False), (2, True), (3, True), (4, False)])
def test_a_seal_counts_no_fewer_trials_than_were_complete_and_no_more_than_ended(counted: int, holds: bool) -> None:
    """Two complete ones, one that was pruned and one that was interrupted."""
    log = [_line(0), _line(1, "pruned"), _line(2), _line(3, "interrupted")]
    search: Any = SimpleNamespace(methods=["npo"], trials=9)
    plan: Any = SimpleNamespace(extends=[], search=search, claim=SimpleNamespace(risks=[]))
    seal: Any = SimpleNamespace(candidates=[], trials=counted)
    if holds:
        cross_checks._trials(log, plan, seal, "p")
        return
    with pytest.raises(VerificationError, match="trial-count"):
        cross_checks._trials(log, plan, seal, "p")


@pytest.mark.parametrize(
    ("risk", "measurement", "kind", "holds"),
    [
        ("refusals", "refusal/utility", "none", True),
        ("refusals", "refusal/utility", "exceeds", False),
        ("forgetting", "exact_memorization", "exceeds", True),
        ("forgetting", "exact_memorization", "ceiling", False),
        ("forgetting", "their_own", "none", False),
        # nobody else knows what a metric of theirs asks of the base model
        ("mine", "their_own", "none", True),
    ],
)
def test_a_plan_asks_of_the_base_model_what_its_metrics_demand(
    risk: str, measurement: str, kind: str, holds: bool
) -> None:
    plan: Any = SimpleNamespace(metrics={risk: measurement}, control={risk: kind}, sequential=False)
    if holds:
        cross_checks._control(plan, None)
        return
    with pytest.raises(VerificationError, match="plan-control"):
        cross_checks._control(plan, None)
