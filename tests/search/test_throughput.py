"""What `froc bench` times, and how little of it."""

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest

from froc.data.splits import Sealed, SearchView
from froc.errors import InputError
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.models.base import Base
from froc.plugins import make
from froc.search.trial import throughput
from froc.search.trial.runner import TrialRunner
from froc.search.trial.sweep import FIRST_QUERIES


def _clock(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float], steps: int) -> tuple[Any, int]:
    """A clock after a run whose steps take these seconds, and the number of steps that it let the run make."""
    readings = list(accumulate(seconds, initial=100.0))
    times = iter(readings)
    monkeypatch.setattr(time, "perf_counter", lambda: next(times, readings[-1]))
    monkeypatch.setattr(throughput, "_settle", lambda _: None)
    no_runner: Any = None
    clock = throughput._Clock(no_runner, steps, lambda _: None)
    clock.start()
    callbacks = clock.callbacks(0)
    for step in range(1, len(seconds) + 1):
        if callbacks[step]():
            return clock, step
    return clock, len(seconds)


def test_fast_steps_are_timed_after_two_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = _clock(monkeypatch, [0.9, 0.5, 0.1, 0.1, 0.1, 0.1, 7.0], steps=4)
    assert done == 6
    assert clock.per_step == pytest.approx(0.1)


def test_slow_steps_are_timed_after_one_and_until_ten_seconds_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = _clock(monkeypatch, [9.0, 7.0, 5.0, 6.0], steps=8)
    assert done == 3
    assert clock.per_step == pytest.approx(6.0)


def test_two_slow_steps_are_timed_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = _clock(monkeypatch, [90.0, 70.0, 50.0, 60.0], steps=8)
    assert done == 3
    assert clock.per_step == pytest.approx(60.0)


@pytest.mark.parametrize(("seconds", "per_step"), [([0.4], 0.4), ([0.4, 0.2], 0.2), ([3.0, 2.0], 2.0)])
def test_a_training_of_few_steps_is_timed_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float], per_step: float
) -> None:
    clock, done = _clock(monkeypatch, seconds, steps=8)
    assert done == len(seconds)
    assert clock.per_step == pytest.approx(per_step)


def test_the_others_of_a_pack_end_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, _ = _clock(monkeypatch, [0.1, 0.1, 0.1], steps=2)
    second = clock.callbacks(1)
    assert not second[3]()
    assert clock.callbacks(0)[4]()
    assert second[4]()


@pytest.fixture
def runner(base: Base, parts: tuple[SearchView, Sealed]) -> TrialRunner:
    """Trials on the small task."""
    measures = plain({risk: make(Metric, "extraction_strength") for risk in parts[0].queries})
    return TrialRunner(base, parts[0], measures, batch=8, seed=0)


@pytest.mark.parametrize(("slow", "whole"), [(0.0, False), (1e6, True)])
def test_of_a_slow_model_the_first_queries_are_measured(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch, slow: float, whole: bool
) -> None:
    measured: list[Sequence[int] | None] = []
    monkeypatch.setattr(throughput, "observe_probe", lambda _base, _probe, places=None: measured.append(places))
    monkeypatch.setattr(throughput, "SLOW", slow)
    taken = throughput.look_seconds(runner)
    first = [range(min(FIRST_QUERIES, len(probe.rows))) for probe in runner.probes]
    assert measured == [*first, *([None] * len(first) if whole else [])]
    assert taken > 0


def test_timing_measures_no_query(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "observe_probe", lambda *_: pytest.fail("a query is measured"))
    shown: list[str] = []
    speed = throughput.measure(runner, "npo", 3, look=2.0, progress=shown.append)
    assert len(shown) == throughput.WARM + 3
    assert speed.look == 2.0
    assert speed.trial > speed.steps * speed.step + 2.0
    assert speed.outside == pytest.approx(1 - speed.steps * speed.step / speed.trial)


def test_a_method_without_steps_is_timed_as_a_whole(runner: TrialRunner) -> None:
    speed = throughput.measure(runner, "none", 3, look=2.0)
    assert speed.steps == 0
    assert 0 < speed.step < 60


def test_too_little_memory_for_one_row_is_one_sentence(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any) -> None:
        raise RuntimeError("can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(throughput, "train_pack", train)
    with pytest.raises(InputError, match="npo: not enough memory; try --train lora"):
        throughput.measure(runner, "npo", 3, look=1.0)
