"""Too little memory: recognised, met with fewer rows at a time, and said in one sentence."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from froc.attacks import _training
from froc.data.splits import Sealed, SearchView
from froc.errors import InputError
from froc.measuring import model_observation
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import losses
from froc.models import memory
from froc.models.base import Base
from froc.models.device_room import host_room
from froc.models.generation import greedy_answers
from froc.models.memory import FEWER_PASSES, measured_in_rows, out_of_memory, with_fewer_rows
from froc.plugins import make
from froc.search.executors import attempt
from froc.search.executors.inline import Inline
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import MeasureBase, Work


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    ],
)  # fmt: skip
def test_every_devices_words_for_it_are_known(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape"), ValueError("out of memory"), KeyError("CUDA out of memory")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not out_of_memory(error)


def _holding(rows: int, tried: list[int]) -> Callable[[int], int]:
    """Work that has memory for so many rows at once."""

    def work(size: int) -> int:
        tried.append(size)
        if size > rows:
            raise torch.OutOfMemoryError
        return size

    return work


def test_rows_are_halved_until_they_fit() -> None:
    tried: list[int] = []
    undone: list[int] = []
    assert with_fewer_rows(20, _holding(4, tried), lambda: undone.append(len(tried))) == 2
    assert tried == [20, 10, 5, 2]
    assert undone == [1, 2, 3]


def test_one_row_that_does_not_fit_and_other_errors_are_raised() -> None:
    tried: list[int] = []
    with pytest.raises(torch.OutOfMemoryError):
        with_fewer_rows(4, _holding(0, tried))
    assert tried == [4, 2, 1]

    def fails(size: int) -> int:
        tried.append(size)
        raise RuntimeError("shape")

    with pytest.raises(RuntimeError, match="shape"):
        with_fewer_rows(4, fails)
    assert tried == [4, 2, 1, 4]


def test_a_model_that_did_not_fit_once_begins_with_what_fitted() -> None:
    class Model:
        pass

    tight, roomy = Model(), Model()
    tried: list[int] = []
    assert measured_in_rows(tight, 16, _holding(5, tried)) == 4
    assert measured_in_rows(tight, 16, _holding(5, tried)) == 4
    assert measured_in_rows(tight, 2, _holding(5, tried)) == 2
    assert measured_in_rows(roomy, 16, _holding(50, tried)) == 16
    assert tried == [16, 8, 4, 4, 2, 16]


def test_rows_come_back_once_the_memory_does() -> None:
    class Model:
        pass

    model = Model()
    tried: list[int] = []
    assert measured_in_rows(model, 16, _holding(5, tried)) == 4
    sizes = [measured_in_rows(model, 16, _holding(50, tried)) for _ in range(FEWER_PASSES + 2)]
    assert sizes == [4] * FEWER_PASSES + [16, 16]


@pytest.fixture
def view(parts: tuple[SearchView, Sealed]) -> SearchView:
    """What a search sees of the small task."""
    return parts[0]


def _runner(base: Base, view: SearchView, metric: str) -> TrialRunner:
    return TrialRunner(base, view, plain({risk: make(Metric, metric) for risk in view.queries}), batch=16, seed=0)


class Tight:
    """Memory for the passes and generations of few rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.rows, self.refused = rows, 0
        tokens, greedy = model_observation._tokens, greedy_answers

        def limited(function: Callable[..., Any], place: int) -> Callable[..., Any]:
            def called(*args: Any, **kwargs: Any) -> Any:
                if args[place] > self.rows:
                    self.refused += 1
                    raise torch.OutOfMemoryError
                return function(*args, **kwargs)

            return called

        monkeypatch.setattr(model_observation, "_tokens", limited(tokens, 2))
        monkeypatch.setattr(model_observation, "greedy_answers", limited(greedy, 3))


@pytest.fixture
def _fresh_rows() -> Iterator[None]:
    """What one test found to fit is not known to others."""
    memory._ROWS.clear()
    yield
    memory._ROWS.clear()


@pytest.mark.usefixtures("_fresh_rows")
@pytest.mark.parametrize("metric", ["extraction_strength", "rouge_l"])
def test_a_look_that_does_not_fit_takes_fewer_rows_and_measures_the_same(
    base: Base, view: SearchView, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    runner = _runner(base, view, metric)
    expected = {probe.risk: losses(base, probe) for probe in runner.probes}
    tight = Tight(monkeypatch, 7)
    for probe in runner.probes:
        assert np.array_equal(losses(base, probe), expected[probe.risk])
    # 256, 128, ..., 8 rows did not fit; that is remembered for the second risk
    assert tight.refused == 6


@pytest.mark.usefixtures("_fresh_rows")
def test_a_trial_whose_looks_do_not_fit_ends_as_out_of_memory(
    base: Base, view: SearchView, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = _runner(base, view, "extraction_strength")
    Tight(monkeypatch, 0)
    (outcome,) = runner.run([TrialSpec("npo", {"lr": 1e-3, "epochs": 1}, 0)], [lambda *_: False])
    assert outcome.status == "out-of-memory"
    assert outcome.reason is not None
    assert "--train lora:rank=8" in outcome.reason


@pytest.mark.usefixtures("_fresh_rows")
def test_a_base_model_that_cannot_be_measured_is_one_sentence(
    base: Base, view: SearchView, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = _runner(base, view, "extraction_strength")
    Tight(monkeypatch, 0)
    work = MeasureBase("search", view.queries)
    report = attempt(3, work, runner)
    assert report.key == 3
    assert isinstance(report.error, InputError)
    assert str(report.error).startswith("not enough memory for measuring the base model; free some")
    executor = Inline(lambda: _runner(base, view, "extraction_strength"))
    executor.submit(0, work)
    with pytest.raises(InputError, match="not enough memory for measuring the base model on the search queries"):
        executor.wait()


def test_every_kind_of_work_says_what_it_does() -> None:
    from froc.search.optuna.learning_rates import FindLearningRates

    kinds = {kind.activity for kind in Work.__subclasses__() if kind.__module__.startswith("froc.")}
    assert FindLearningRates.activity in kinds
    assert len(kinds) == len([kind for kind in Work.__subclasses__() if kind.__module__.startswith("froc.")])


def test_what_did_not_fit_one_method_is_tried_with_another(
    base: Base, view: SearchView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for 5 rows of a step of npo, and for all of grad_diff."""
    runner = _runner(base, view, "extraction_strength")
    seen: list[tuple[str, int | None]] = []
    fitting = runner.engine.fitting
    method = ""

    def limited(rows: int, work: Callable[[int], Any], undo: Callable[[], None]) -> Any:
        def tried(size: int) -> Any:
            if method == "npo" and size > 5:
                raise torch.OutOfMemoryError
            return work(size)

        return fitting(rows, tried, undo)

    monkeypatch.setattr(runner.engine, "fitting", limited)
    for method in ("npo", "grad_diff", "npo"):
        (outcome,) = runner.run([TrialSpec(method, {"lr": 1e-3, "epochs": 1}, 0)], [lambda *_: False])
        assert outcome.status == "complete"
        seen.append((method, runner.engine.rows))
    assert seen == [("npo", 4), ("grad_diff", None), ("npo", 4)]


def test_training_on_the_host_is_refused_where_the_host_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would end the process instead; shapes without values take nothing."""
    own = [torch.zeros(1000, 1000)]
    assert _training._kind(own, room=1e9) is _training._OnDevice
    assert _training._kind(own, room=0.0) is _training._OnHost
    monkeypatch.setattr(_training, "host_room", lambda: 15.9e6)
    with pytest.raises(MemoryError, match=r"needs 0\.016 GB of the host's memory") as caught:
        _training._kind(own, room=0.0)
    assert out_of_memory(caught.value)
    assert _training._kind([value.to("meta") for value in own], room=0.0) is _training._OnHost


def test_the_host_has_room() -> None:
    """What it says is less than the machine has."""
    assert 2**20 < host_room() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_memory_of_a_host_that_does_not_tell_is_infinite(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of systems whose list lacks what is available."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "MemTotal: 1 kB\n")
    assert host_room() == math.inf
