"""A method's feedback and a sweep at the same step: the first queries are observed once."""

from collections.abc import Sequence
from typing import Any

import pytest

from froc.data.splits import Sealed, SearchView
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import observe_probe
from froc.models.base import Base
from froc.plugins import make
from froc.search.trial import runner, sweep
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner

SPEC = TrialSpec("risk_aware", {"lr": 1e-3, "epochs": 9}, 0)
Calls = list[tuple[str, str, list[int]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """(module, risk, queries) of each observation that a trial makes."""
    calls: Calls = []

    def counted(module: str) -> Any:
        def called(base: Base, probe: Any, places: Sequence[int] | None = None, *more: Any) -> Any:
            calls.append((module, probe.risk, list(places or ())))
            return observe_probe(base, probe, places, *more)

        return called

    monkeypatch.setattr(runner, "observe_probe", counted("feedback"))
    monkeypatch.setattr(sweep, "observe_probe", counted("sweep"))
    return calls


@pytest.fixture
def view(parts: tuple[SearchView, Sealed]) -> SearchView:
    """What a search sees of the small task."""
    return parts[0]


def _trial(base: Base, view: SearchView) -> Outcome:
    measures = plain({risk: make(Metric, "extraction_strength") for risk in view.queries})
    (outcome,) = TrialRunner(base, view, measures, batch=8, seed=0, swept=False).run([SPEC], [lambda *_: False])
    assert outcome.status == "complete"
    return outcome


def test_a_rung_reads_what_the_feedback_at_its_step_has_observed(
    base: Base, view: SearchView, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, shared_calls = _trial(base, view), list(calls)
    calls.clear()
    monkeypatch.setattr(TrialRunner, "fed_back", lambda *_: {})
    apart, apart_calls = _trial(base, view), list(calls)
    assert (shared.rungs, shared.queries) == (apart.rungs, apart.queries)
    assert shared.ended[0].means == apart.ended[0].means
    rungs = len(shared.rungs)
    assert rungs == 2
    saved = len(apart_calls) - len(shared_calls)
    assert saved == rungs * len(view.queries)
    assert [call for call in apart_calls if call[0] == "feedback"] == [
        call for call in shared_calls if call[0] == "feedback"
    ]


def test_feedback_of_an_earlier_trial_is_not_read(base: Base, view: SearchView, calls: Calls) -> None:
    measures = plain({risk: make(Metric, "extraction_strength") for risk in view.queries})
    bench = TrialRunner(base, view, measures, batch=8, seed=0, swept=False)
    bench.run([SPEC], [lambda *_: False])
    calls.clear()
    bench.run([TrialSpec("grad_ascent", {"lr": 1e-4, "epochs": 9}, 0)], [lambda *_: False])
    assert {module for module, _, _ in calls} == {"sweep"}
    assert bench.fed_back(0, 3) == {}
