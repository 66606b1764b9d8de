"""Worker processes that nobody asked for: for which searches on a CPU they are started."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.models.base import Base, save
from froc.search import machine as machines
from froc.search.build import Inputs, build_job
from froc.search.executors import inline, processes
from froc.search.job import runner_of
from froc.search.machine import Machine
from froc.search.settings import PARALLEL, Settings

COMMAND = Machine("cpu", cpu_workers=True)
SEARCH = Settings({"forgetting": 0.1, "utility": 0.1}, methods=("none",), trials=machines.MIN_TRIALS)


class Started(inline.Inline):
    """In place of worker processes: notes what they would be."""

    def __init__(self, _recipe: object, devices: Sequence[str | None], threads: int | None = None) -> None:
        super().__init__(lambda: pytest.fail("nothing is computed here"))
        self.place = (list(devices), threads)


@pytest.fixture(scope="module")
def model(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, and a task folder of one row each."""
    folder = tmp_path_factory.mktemp("task")
    base.restore()
    save(base, folder / "model")
    for name in ("forget", "retain", "forget_queries", "retain_queries"):
        lines = "".join(f'{{"question": "{name} {k}", "answer": "{k}"}}\n' for k in range(8))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "task.toml").write_text('model = "model"\ntemplate = "{question} {answer}"\n', encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("froc.search.executors.cores", lambda: 16)
    monkeypatch.setattr(processes, "Processes", Started)


def _executor(model: Path, machine: Machine = COMMAND, settings: Settings = SEARCH) -> Any:
    made = build_job(settings, Inputs(model), machine, lambda *_: None)
    return made.workers(lambda: runner_of(made))


def test_a_command_trains_a_small_model_in_as_many_one_thread_processes_as_trials_are_in_flight(model: Path) -> None:
    assert _executor(model).place == (["cpu"] * PARALLEL, 1)
    assert _executor(model, settings=replace(SEARCH, parallel=5)).place == (["cpu"] * 5, 1)


@pytest.mark.parametrize(
    ("machine", "settings"),
    [
        (Machine("cpu"), SEARCH),
        (replace(COMMAND, executor="inline"), SEARCH),
        (replace(COMMAND, workers=1), SEARCH),
        (COMMAND, replace(SEARCH, trials=machines.MIN_TRIALS - 1)),
        (COMMAND, replace(SEARCH, parallel=1)),
    ],
    ids=["a program", "inline", "one worker", "few trials", "one in flight"],
)  # fmt: skip
def test_trials_stay_in_this_process(model: Path, machine: Machine, settings: Settings) -> None:
    assert type(_executor(model, machine, settings)) is inline.Inline


def test_trials_stay_in_this_process_where_the_user_has_set_the_threads(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert type(_executor(model)) is inline.Inline


def test_trials_stay_in_this_process_on_one_processor(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("froc.search.executors.cores", lambda: 1)
    assert type(_executor(model)) is inline.Inline


def test_trials_of_a_large_model_stay_in_this_process(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "SMALL_MODEL", 1000)
    assert type(_executor(model)) is inline.Inline


def test_workers_that_were_asked_for_share_the_processors(model: Path) -> None:
    assert _executor(model, replace(COMMAND, workers=3)).place == (["cpu"] * 3, None)


def test_a_model_that_cannot_fit_is_refused_before_a_trial(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from froc.errors import InputError
    from froc.models import memory_needs
    from froc.search.search_options import SearchOptions, search_job

    monkeypatch.setattr(memory_needs, "device_memory", lambda _: 10**5)
    options = SearchOptions(out=tmp_path / "run", task=model, machine=Machine("cpu"))
    with pytest.raises(InputError, match=r"the weights need .* GB, and cpu has 0.0001 GB"):
        search_job(options, SEARCH, lambda *_: None)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_questions_and_trials_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedded run of an earlier version had one trial in flight, and drew its questions from settings of that time."""
    import json

    from froc.search import search_options
    from froc.search.search_options import SearchOptions, search_job, search_settings

    (tmp_path / "plan.json").write_text(
        json.dumps({"questions": 97, "search": {}, "split": {"label": ""}}), encoding="utf-8"
    )
    taken: list[Inputs] = []

    def built(_settings: Settings, inputs: Inputs, *_: object) -> None:
        taken.append(inputs)

    monkeypatch.setattr(search_options, "build_job", built)
    options = SearchOptions(out=tmp_path, machine=Machine("cpu"))
    settings = search_settings(options, {"forgetting": 0.1, "utility": 0.1})
    assert settings.parallel == 1
    with pytest.raises(TypeError):
        search_job(options, settings, lambda *_: None)
    assert taken[0].questions == 97
    assert (
        search_settings(SearchOptions(out=tmp_path / "new", machine=Machine("cpu")), {"forgetting": 0.1}).parallel
        == PARALLEL
    )


def test_a_worker_ignores_interrupts_before_it_imports_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches all processes of a terminal; the driver ends its workers."""
    import importlib
    import os
    import signal

    from froc.search import worker_start

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(os, "environ", {})
    try:
        monkeypatch.setattr(importlib, "import_module", lambda _: signal)
        worker_start.call({"A": "1"}, "signal", "getsignal", signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
