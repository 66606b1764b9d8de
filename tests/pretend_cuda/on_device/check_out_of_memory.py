"""Too little memory at every stage: fewer rows, a trial that ends `out-of-memory`, or one sentence; what comes after has all memory."""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from froc.data.splits import SearchView, split
from froc.data.task import Task
from froc.errors import InputError
from froc.measuring.measurement import measurement, plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import measured, probes
from froc.models import memory
from froc.models.base import Base
from froc.models.compute import Engine
from froc.plugins import make
from froc.search.executors import attempt
from froc.search.executors.inline import Inline
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import CheckPrompt, Measure, MeasureBase, Work
from tests.attacks.test_attacks import QUICK
from tests.pretend_cuda import device


@pytest.fixture
def view(parts: tuple[SearchView, Any]) -> SearchView:
    """A few of the small task's queries, whose looks are over soon."""
    return replace(parts[0], queries={risk: queries[:10] for risk, queries in parts[0].queries.items()})


def _runner(base: Base, view: SearchView, metric: str = "rouge_l") -> TrialRunner:
    """A metric that generates for one risk: looks are passes and generations."""
    measures = plain({"forgetting": make(Metric, metric), "utility": make(Metric, "probability")})
    return TrialRunner(base, view, measures, batch=16, seed=0, engine=Engine())


@pytest.fixture
def runner(on_cuda: Base, view: SearchView) -> TrialRunner:
    return _runner(on_cuda, view)


def _trial(runner: TrialRunner, method: str = "npo") -> Outcome:
    (outcome,) = runner.run([TrialSpec(method, {"lr": 1e-3, "epochs": 1}, 1)], [lambda *_: False])
    return outcome


def _forget_rows(runner: TrialRunner) -> None:
    """Let the next trial take as many rows at once as the first did."""
    runner._fitting_rows.clear()
    memory._ROWS.clear()


def _held() -> int:
    gc.collect()
    return device.allocated()


def _allocations(work: Callable[[], object]) -> int:
    device.reset_counts()
    work()
    return device.counts()["allocations"]


@pytest.fixture
def same_afterwards(runner: TrialRunner) -> Callable[[], None]:
    """Whether what a trial makes of a device with all its memory is what it was before, and nothing else is held."""
    expected, held = _trial(runner), _held()

    def check() -> None:
        device.limit(None)
        device.refuse(0)
        assert device.allocated() == held
        _forget_rows(runner)
        after = _trial(runner)
        assert (after.status, after.ended[0].means) == (expected.status, expected.ended[0].means)

    return check


def _points(count: int, every: int) -> list[int]:
    """Numbers of allocations, evenly spread."""
    return sorted(set(np.linspace(1, every, count).astype(int).tolist()))


def test_a_trial_leaves_nothing_on_the_device(runner: TrialRunner) -> None:
    """Not even until Python collects garbage: the next trial needs the memory."""
    _trial(runner)
    held = _held()
    gc.disable()
    try:
        assert _trial(runner).status == "complete"
        assert device.allocated() == held
        device.refuse(1000)
        _trial(runner)
        assert device.allocated() == held
    finally:
        gc.enable()


def test_wherever_one_allocation_of_a_trial_fails_it_has_an_end_of_its_own(
    runner: TrialRunner, same_afterwards: Callable[[], None]
) -> None:
    every = _allocations(lambda: _trial(runner))
    ends = []
    for number in _points(12, every):
        _forget_rows(runner)
        device.refuse(number)
        outcome = _trial(runner)
        assert outcome.status in ("complete", "out-of-memory"), (number, every, outcome.reason)
        ends.append(outcome.status)
    print(f"{every} allocations: {ends}")
    # a step or a look is done with fewer rows; the copy of a stop cannot be
    assert ends.count("complete") > 6
    same_afterwards()


def test_however_little_memory_there_is_a_trial_has_an_end_of_its_own(
    runner: TrialRunner, same_afterwards: Callable[[], None]
) -> None:
    held = _held()
    device.reset_peak()
    assert _trial(runner).status == "complete"
    needed, ends = device.peak() - held, []
    for share in (0.0, 0.4, 0.8, 1.0):
        _forget_rows(runner)
        device.limit(held + int(share * needed))
        ends.append((_trial(runner).status, runner.engine.rows))
        device.limit(None)
    print(f"{needed} bytes: {ends}")
    assert {status for status, _ in ends} == {"complete", "out-of-memory"}
    assert ends[0][0] == "out-of-memory"
    assert ends[-1] == ("complete", None)
    assert any(status == "complete" and rows is not None for status, rows in ends)
    same_afterwards()


def test_a_run_that_cannot_begin_is_one_sentence(on_cuda: Base, view: SearchView) -> None:
    held = _held()
    every = _allocations(lambda: _runner(on_cuda, view))
    refusals = []
    for number in _points(4, every):
        executor = Inline(lambda: _runner(on_cuda, view))
        executor.submit(0, CheckPrompt())
        device.refuse(number)
        refusals.append(_refusal(executor))
        del executor
        assert _held() == held
    assert any(refusals)
    assert all(text.startswith("not enough memory for ") for text in refusals if text)


def _refusal(executor: Inline) -> str:
    """Why its first piece of work could not be done; empty where it was."""
    try:
        (report,) = executor.wait()
    except InputError as error:
        return str(error)
    return "" if report.error is None else str(report.error)


def _works(runner: TrialRunner, queries: Any) -> list[Work]:
    places = {risk: range(len(of_risk)) for risk, of_risk in queries.items()}
    weights = {name: value.cpu() for name, value in runner.base.trainable.snapshot().items()}
    return [MeasureBase("search", queries), Measure("search", "t0", weights, queries, places), CheckPrompt()]


def test_measuring_takes_fewer_rows_or_says_in_one_sentence_what_did_not_fit(runner: TrialRunner) -> None:
    queries = runner.view.queries
    held = _held()
    for work in _works(runner, queries):
        runner._opened = None
        every = _allocations(partial(attempt, 0, work, runner))
        for number in _points(4, every):
            runner._opened = None
            device.refuse(number)
            _one_sentence(attempt(0, work, runner), type(work).activity)
            device.refuse(0)
    runner._opened = None
    assert _held() == held


def _one_sentence(report: Any, activity: str) -> None:
    if report.error is not None:
        assert isinstance(report.error, InputError), report.error
        assert str(report.error).startswith(f"not enough memory for {activity}; free some")


@pytest.mark.parametrize(
    "name", ["relearning", "quantization", "soft_prompt", "coordinate_suffix", "logit_lens", "in_context"]
)
def test_an_attack_that_does_not_fit_leaves_the_model_as_it_was(
    name: str, on_cuda: Base, task: Task, runner: TrialRunner
) -> None:
    attacked = measurement(
        f"extraction_strength@{name}:{QUICK[name]}" if name in QUICK else f"extraction_strength@{name}"
    )
    view, _ = split(task, 0.3, sources={"risk": attacked.source})
    (probe,) = probes(on_cuda, {"risk": view.queries["risk"][:12]}, {"risk": attacked}, view)

    class Attacked(Work):
        def __call__(self, runner: TrialRunner) -> Any:
            return measured(runner.base, [probe])["risk"]

    held, expected = _held(), attempt(0, Attacked(), runner).result
    digest = {key: value.clone() for key, value in on_cuda.trainable.snapshot().items()}
    held = _held()
    for number in _points(3, _allocations(lambda: attempt(0, Attacked(), runner))):
        device.refuse(number)
        _one_sentence(attempt(0, Attacked(), runner), Work.activity)
        device.refuse(0)
        assert all(bool((value == digest[key]).all()) for key, value in on_cuda.trainable.snapshot().items())
    assert _held() == held
    assert (attempt(0, Attacked(), runner).result == expected).all()
