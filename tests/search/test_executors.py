"""Executors and the driver: results hang on the seed, never on who finishes first, who dies, or how many there are."""

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.atomic import replacing
from froc.errors import FrocError, InputError
from froc.models.base import Base
from froc.search.executors import TRIES, Executor, Report
from froc.search.executors.inline import Inline
from froc.search.executors.processes import BEAT, Processes
from froc.search.job import Job
from froc.search.pipeline import run
from froc.search.run_folder import Folder, TrialRecord
from froc.search.trial.work import TrainPack, Work
from tests.search.small_search import Watch, job, recipe

SETTINGS: dict[str, Any] = {"trials": 6, "parallel": 2, "methods": ("npo", "grad_diff"), "epochs": (1, 2)}
"""Short trials: who does them, and in which order, is what counts here."""


def done(made: Job, out: Path, workers: Any = None) -> dict[str, bytes]:
    """Run, and return what must not hang on the executor."""
    run(made if workers is None else replace(made, workers=workers), out, Watch())
    return outcome(out)


def outcome(out: Path) -> dict[str, bytes]:
    names = ("certificate.json", "losses/search.parquet", "losses/calibration.parquet")
    return {name: (out / name).read_bytes() for name in names}


def _apart(made: Job, tmp_path_factory: pytest.TempPathFactory, workers: Any = None) -> Path:
    """Run for all tests of this file, whose own openings stay uncounted."""
    place = tmp_path_factory.mktemp("apart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        done(made, place / "run", workers)
    return place / "run"


@pytest.fixture(scope="module")
def whole(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose trials were done one after the other."""
    return _apart(job(base, **SETTINGS), tmp_path_factory)


@pytest.fixture(scope="module")
def plain(whole: Path) -> dict[str, bytes]:
    """What every executor must come to."""
    return outcome(whole)


@pytest.fixture(scope="module")
def lost(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which trial 1 lost all workers but one that it may."""
    return _apart(job(base, **SETTINGS), tmp_path_factory, lambda make: Losing(make, 1, TRIES - 1))


class Backwards(Inline):
    """Does what was handed out last first."""

    def submit(self, key: int, work: Work) -> None:
        self._queue.appendleft((key, work))


class Early(Inline):
    """Does all work as soon as it is handed out, as workers do while the driver is busy, and reports it one by one."""

    def __init__(self, make: Callable[[], Any], folder: Path) -> None:
        super().__init__(make)
        self._reports: deque[tuple[Report, set[Path]]] = deque()
        self._folder = folder

    def submit(self, key: int, work: Work) -> None:
        super().submit(key, work)
        before = set(self._folder.glob("*"))
        (report,) = super().wait()
        self._reports.append((report, set(self._folder.glob("*")) - before))

    def wait(self, timeout: float | None = None) -> list[Report]:
        report, written = self._reports.popleft()
        assert all(path.exists() for path in written), "removed before the driver knew of them"
        return [report]


class Losing(Inline):
    """Loses its worker the first `times` times that the trial at `place` is handed out."""

    def __init__(self, make: Callable[[], Any], place: int, times: int) -> None:
        super().__init__(make)
        self._place, self._times = place, times

    def wait(self, timeout: float | None = None) -> list[Report]:
        if (
            self._queue
            and self._times
            and self._queue[0][0] == self._place
            and isinstance(self._queue[0][1], TrainPack)
        ):
            self._times -= 1
            return [Report(self._queue.popleft()[0], lost="it was killed")]
        return super().wait(timeout)


def test_the_order_in_which_trials_end_changes_nothing(base: Base, tmp_path: Path, plain: dict[str, bytes]) -> None:
    assert done(job(base, **SETTINGS), tmp_path / "run", Backwards) == plain


def test_weights_of_trials_that_the_driver_has_not_heard_of_stay(
    base: Base, tmp_path: Path, plain: dict[str, bytes]
) -> None:
    """What a worker has just written, or is writing, is not what no candidate needs."""
    folder = tmp_path / "run" / "weights"
    assert done(job(base, **SETTINGS), tmp_path / "run", lambda make: Early(make, folder)) == plain


def test_what_killed_workers_left_unfinished_is_removed(base: Base, tmp_path: Path, plain: dict[str, bytes]) -> None:
    made, folder = job(base, **SETTINGS), tmp_path / "run" / "weights"
    with pytest.raises(FrocError, match="stopped"):
        run(replace(made, workers=Inline), tmp_path / "run", Stops(3))
    with replacing(folder / "c0009.safetensors") as part:
        assert part not in folder.glob("*.safetensors")
        left = part.with_stem(f"{part.stem}0")
    left.write_bytes(b"half")
    (folder / "c0009.safetensors").unlink()
    assert done(made, tmp_path / "run", Inline) == plain
    assert not left.exists()


def test_the_window_is_part_of_the_plan(base: Base, whole: Path) -> None:
    with pytest.raises(InputError, match=r"search\.parallel differs"):
        run(job(base, **SETTINGS | {"parallel": 3}), whole, Watch())


def test_a_lost_worker_costs_an_attempt_and_nothing_else(lost: Path, plain: dict[str, bytes]) -> None:
    assert outcome(lost) == plain
    log = [line for line in Folder(lost).log() if line.trial == 1]
    assert [(line.attempt, line.status) for line in log] == [
        (1, "interrupted"), (2, "interrupted"), (3, "complete")
    ]  # fmt: skip
    assert log[0].reason == "it was killed"


def test_work_that_kills_every_worker_is_given_up(base: Base, tmp_path: Path) -> None:
    done(job(base, **SETTINGS), tmp_path / "run", lambda make: Losing(make, 1, TRIES))
    log = [line for line in Folder(tmp_path / "run").log() if line.trial == 1]
    assert [line.status for line in log] == ["interrupted", "interrupted", "failed"]
    assert log[-1].reason == "3 workers were lost: it was killed"
    assert len({line.trial for line in Folder(tmp_path / "run").log()}) == 6


class Stops(Watch):
    """Stops the run when so many more trials have ended."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def trial(self, line: TrialRecord, log: Sequence[TrialRecord], total: int) -> None:
        super().trial(line, log, total)
        self._left -= line.status != "running"
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("executor", [Inline, Backwards])
def test_stopped_anywhere_the_window_goes_on(
    base: Base, tmp_path: Path, plain: dict[str, bytes], executor: Any
) -> None:
    """Stopped when a trial ends, others running or already over: what is asked next is what would have been."""
    made, before = job(base, **SETTINGS), 0
    for stop in (1, 3, 4, 6):
        with pytest.raises(FrocError, match="stopped"):
            run(replace(made, workers=executor), tmp_path / "run", Stops(stop - before))
        before = len([line for line in Folder(tmp_path / "run").log() if line.ended])
        assert before == stop
    assert done(made, tmp_path / "run", Inline) == plain
    after = [line.config for line in Folder(tmp_path / "run").log() if line.status != "interrupted"]
    assert sorted(after) == [f"c{number:04d}" for number in range(6)]


class Noting(Backwards):
    """Notes how many earlier trials the judge of each trial knows."""

    def __init__(self, make: Callable[[], Any], known: dict[int, int]) -> None:
        super().__init__(make)
        self._known = known

    def submit(self, key: int, work: Work) -> None:
        if isinstance(work, TrainPack):
            for line, judge in zip(work.records, work.pruners, strict=True):
                self._known[line.trial] = len(judge._before)
        super().submit(key, work)


def test_a_trial_that_is_started_again_is_judged_by_what_it_would_have_been(base: Base, tmp_path: Path) -> None:
    """Not by trials that ended in the meantime: else the same plan could prune another trial."""
    overrides: dict[str, Any] = SETTINGS | {
        "trials": 8,
        "parallel": 3,
        "sweep": False,
        "methods": ("npo",),
        "sampler": "random",
    }
    made, plain = job(base, **overrides), dict[int, int]()
    done(made, tmp_path / "plain", lambda make: Noting(make, plain))
    assert plain == {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5}
    again = dict[int, int]()
    noting = replace(made, workers=partial(Noting, known=again))
    # stopped after two trials and after five
    for watch in (Stops(2), Stops(3)):
        with pytest.raises(FrocError, match="stopped"):
            run(noting, tmp_path / "run", watch)
        assert again.items() <= plain.items()
        again.clear()
    run(noting, tmp_path / "run", Watch())
    assert len(again) >= 3
    assert again.items() <= plain.items()


@pytest.mark.usefixtures("forked_workers")
def test_worker_processes_come_to_the_same_and_survive_a_kill(
    base: Base, tmp_path: Path, plain: dict[str, bytes]
) -> None:
    """Two processes; one is killed in the middle of a trial, the other frozen: the same bytes, every trial once."""
    made = job(base, **SETTINGS)
    crew: list[Processes] = []
    hit: dict[int, signal.Signals] = {}

    class Struck(Processes):
        def _hand_out(self) -> None:
            """Strike whoever has taken trial 2 or 4, once each: an idle worker may not be the one that takes it."""
            super()._hand_out()
            for worker in self._pool:
                if worker.key in (2, 4) and worker.key not in hit:
                    hit[worker.key] = signal.SIGKILL if worker.key == 2 else signal.SIGSTOP
                    threading.Timer(0.05, self._strike, (worker, hit[worker.key])).start()

        def _strike(self, worker: Any, blow: signal.Signals) -> None:
            os.kill(worker.process.pid or 0, blow)
            # who is frozen has two signs of life left to miss; who is not would give one
            worker.heard -= 12.0 - 2 * BEAT

    def workers(_: Any) -> Executor:
        # long enough for a loaded machine: a worker that is only slow must not count as frozen
        crew.append(Struck(recipe(made), ["cpu", "cpu"], silence=12.0))
        return crew[0]

    assert done(made, tmp_path / "run", workers) == plain
    assert sorted(hit) == [2, 4]
    assert "it was killed" in (tmp_path / "run" / "run.log").read_text()
    lines = Folder(tmp_path / "run").log()
    assert sorted(line.trial for line in lines if line.status != "interrupted") == list(range(6))
    assert crew[0].pids == []


def test_a_trial_that_takes_too_long_is_given_up(base: Base, tmp_path: Path) -> None:
    made = job(base, trials=3, trial_timeout=1e-6)
    with pytest.raises(InputError, match="timed-out"):
        run(made, tmp_path / "run", Watch())
    assert {line.status for line in Folder(tmp_path / "run").log()} == {"timed-out"}


def test_after_its_time_no_trial_begins_that_was_only_drawn(base: Base, tmp_path: Path) -> None:
    """Four are drawn at once; the first is over after the time limit, and the others are as if they had never been."""
    made = job(base, **SETTINGS | {"parallel": 4, "timeout": 1e-9})
    run(made, tmp_path / "run", Watch())
    folder = Folder(tmp_path / "run")
    assert [(record.trial, record.status) for record in folder.log()] == [(0, "complete")]
    assert "trials 1, 2, 3 were drawn and not begun" in folder.run_log.read_text()
    assert {path.stem for path in (tmp_path / "run" / "losses" / "trials").iterdir()} == {"c0000"}


def test_after_its_time_a_search_seals_what_it_has(base: Base, tmp_path: Path) -> None:
    certificate = run(job(base, trials=50, timeout=1e-6), tmp_path / "run", Watch())
    log = Folder(tmp_path / "run").log()
    assert len(log) == 1
    assert certificate["candidates"]


def test_the_log_file_tells_the_run_and_no_text(base: Base, lost: Path) -> None:
    text = (lost / "run.log").read_text()
    assert "INFO c0000 is drawn" in text
    assert "WARNING trial(s) c0001 lost their worker: it was killed" in text
    assert "INFO sealed" in text
    for row in job(base).task.forget:
        assert row.answer not in text


def test_each_trial_says_what_it_used(whole: Path) -> None:
    for line in (json.loads(text) for text in (whole / "trials.jsonl").read_text().splitlines()):
        assert line["resources"]["cpu_seconds"] > 0
        assert line["resources"]["peak_mb"] > 50


def test_search_losses_stand_in_the_order_of_trials(plain: dict[str, bytes]) -> None:
    configs = pl.read_parquet(plain["losses/search.parquet"])["config"].to_list()
    trials = [int(config[1:5]) for config in configs]
    assert trials == sorted(trials)
