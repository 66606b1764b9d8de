"""Drivers, workers and commands that are killed go on where the state of their trials was saved."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.methods.pdu import PrimalDual
from froc.models.base import Base
from froc.search.executors import Executor
from froc.search.executors.inline import Inline
from froc.search.executors.processes import Processes
from froc.search.pipeline import run
from froc.search.run_folder import Folder, TrialRecord
from froc.search.trial.work import saver_of
from froc.search.trial_loop import TrialLoop
from froc.training.checkpoint import Saver
from tests.commands import Commands
from tests.search.small_search import Killed, Watch, job, recipe
from tests.search.test_interrupted import NAMES, ROOT

SETTINGS: dict[str, Any] = {
    "trials": 4,
    "parallel": 2,
    "methods": ("pdu", "gu(npo)"),
    "pruner": "wilcoxon",
    "epochs": (1, 2),
}


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROC_SAVE_EVERY", "0")


def done(
    base: Base, out: Path, workers: Any = Inline, watch: Watch | None = None, **overrides: Any
) -> dict[str, bytes]:
    """Run, and return what must not hang on what happens on the way."""
    run(replace(job(base, **SETTINGS | overrides), workers=workers), out, watch or Watch())
    assert not (out / "training").exists()
    return {name: (out / name).read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def undisturbed(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[TrialRecord]]:
    """Without a save."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_SAVE_EVERY", "inf")
        patch.setenv("FROC_STATE", str(tmp_path_factory.mktemp("state")))
        out = tmp_path_factory.mktemp("plain") / "run"
        return done(base, out), Folder(out).log()


def came_to(log: Sequence[TrialRecord]) -> list[Any]:
    """What of the finished lines must not hang on what happened."""
    ended = sorted((line for line in log if line.status != "interrupted"), key=lambda line: line.trial)
    return [
        (record.config, record.status, record.params, record.seed, record.steps, record.rungs, record.search)
        for record in ended
    ]


@pytest.mark.parametrize("place", [9, 28])
def test_killed_at_any_write_while_states_are_saved(
    base: Base, undisturbed: tuple[dict[str, bytes], list[TrialRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    place: int,
) -> None:  # fmt: skip
    """Twice: at a file's appearance, and as many files later; the same bytes and lines, and each attempt says where it began."""
    calls, real = 0, os.replace

    def replace_or_die(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == place:
            raise Killed
        real(source, target)

    saved = list[tuple[TrialRecord, list[int] | None]]()
    for _ in range(2):
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_or_die)
            with pytest.raises(Killed):
                done(base, tmp_path / "run")
        left = [line for line in Folder(tmp_path / "run").log() if line.status == "running"]
        saved += [(line, saver_of([line], tmp_path / "run").steps()) for line in left]
    assert done(base, tmp_path / "run") == undisturbed[0]
    log = Folder(tmp_path / "run").log()
    assert came_to(log) == came_to(undisturbed[1])
    for line, steps in saved:
        again = next(record for record in log if (record.trial, record.attempt) == (line.trial, line.attempt + 1))
        assert again.resumed == (steps[0] if steps else None)
    assert any(steps for _, steps in saved)


def test_what_an_ended_trial_left_is_cleared_by_the_next_call(
    base: Base, undisturbed: tuple[dict[str, bytes], list[TrialRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between a trial's line and the removal of its state; the next one removes it before it trains."""
    with monkeypatch.context() as patch:
        patch.setattr(TrialLoop, "_forget", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            done(base, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "training").iterdir()] == ["c0000"]

    class Looks(Watch):
        def trial(self, line: TrialRecord, log: Sequence[TrialRecord], total: int) -> None:
            assert line.trial == 0 or not (tmp_path / "run" / "training" / "c0000").exists()

    assert done(base, tmp_path / "run", watch=Looks()) == undisturbed[0]


def test_no_text_lies_in_a_run_folder_in_the_middle_of_a_trial(base: Base, tmp_path: Path) -> None:
    class Stops(Inline):
        def wait(self, timeout: float | None = None) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                left = iter([False] * 5 + [True] * 1000)
                write = Saver.write
                patch.setattr(Saver, "write", lambda self, *state: _killing(write, self, state, next(left)))
                return super().wait(timeout)

    with pytest.raises(Killed):
        done(base, tmp_path / "run", Stops)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in files if "training" in path.parts} == {".json", ".safetensors"}
    made = job(base, **SETTINGS)
    words = {row.group for row in made.task.forget} | {row.answer for row in made.task.forget}
    for path in files:
        assert not [word for word in words if word.encode() in path.read_bytes()], path


def _killing(write: Any, saver: Saver, state: Any, now: bool) -> None:
    write(saver, *state)
    if now:
        raise Killed


def test_workers_that_do_not_see_the_folder_save_nothing(
    base: Base, undisturbed: tuple[dict[str, bytes], list[TrialRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Far(Inline):
        remote = True

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Saver, "__init__", never)
    assert done(base, tmp_path / "run", Far) == undisturbed[0]


def test_a_state_that_cannot_be_written_costs_nothing_but_a_line_in_the_log(
    base: Base, undisturbed: tuple[dict[str, bytes], list[TrialRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_after = PrimalDual.after_step

    def after(self: PrimalDual, losses: Any, state: Any) -> None:
        plain_after(self, losses, state)
        state["seen"] = "a secret answer"

    monkeypatch.setattr(PrimalDual, "after_step", after)
    assert done(base, tmp_path / "run") == undisturbed[0]
    text = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "WARNING c0000 cannot go on from its middle if it is interrupted: it holds a str" in text
    assert "secret" not in text
    assert "WARNING c0001" not in text


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_is_killed_in_the_middle_of_a_trial_loses_a_step(
    base: Base, undisturbed: tuple[dict[str, bytes], list[TrialRecord]], tmp_path: Path
) -> None:
    """Two processes; one is killed once its trial has left a state. Another takes the trial up; the same bytes."""
    out, hit = tmp_path / "run", list[int]()

    class Struck(Processes):
        def wait(self, timeout: float | None = None) -> Any:
            end = time.monotonic() + 60
            for worker in self._pool if not hit else ():
                while worker.key == 1 and not hit and time.monotonic() < end:
                    time.sleep(0.01)
                    with suppress(OSError, ValueError):
                        state = json.loads((out / "training" / "c0001" / "state.json").read_text(encoding="utf-8"))
                        if state["said"]["steps"][0] >= 3:
                            os.kill(worker.process.pid or 0, signal.SIGKILL)
                            hit.append(1)
            return super().wait(timeout)

    def workers(_: Any) -> Executor:
        return Struck(recipe(job(base, **SETTINGS)), ["cpu", "cpu"])

    assert done(base, out, workers) == undisturbed[0]
    log = Folder(out).log()
    assert hit
    assert came_to(log) == came_to(undisturbed[1])
    killed, again = (line for line in log if line.trial == 1)
    assert (killed.status, killed.resumed, again.attempt) == ("interrupted", None, 2)
    assert again.resumed is not None
    assert 3 <= again.resumed <= again.steps
    assert f"c0001 is drawn: gu(npo), attempt 2, goes on from step {again.resumed}" in (out / "run.log").read_text()


def test_the_command_is_killed_and_goes_on_in_the_middle_of_a_trial(
    base: Base, commands: Commands, tmp_path: Path
) -> None:
    """`froc search`, kill -9 while a trial trains, the same command again: the same certificate as without."""
    base.restore()
    base.model.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    place = tmp_path / "task"
    place.mkdir()
    for name, count, text in (
        ("forget", 40, "person"), ("retain", 40, "thing"), ("forget_queries", 80, "person"), ("retain_queries", 80, "thing")
    ):  # fmt: skip
        rows = [{"question": f"{name} {text} {i}", "answer": f"{text} {i}"} for i in range(count)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def command(out: Path, every: str) -> tuple[list[str], dict[str, str]]:
        words = [
            "search", "-b", "0.3", "--task", str(place), "--model", str(tmp_path / "model"), "--methods", "pdu",
            "--trials", "1", "--space", "epochs=20:20", "--allow-vacuous", "--quiet", "-o", str(out),
        ]  # fmt: skip
        return words, os.environ | {"FROC_SAVE_EVERY": every, "FROC_STATE": str(tmp_path / f"state-{out.name}")}

    assert commands.run(*command(tmp_path / "plain", "inf")).returncode in (0, 3)
    out, state, steps = tmp_path / "run", tmp_path / "run" / "training" / "c0000" / "state.json", 0
    words, env = command(out, "0")
    killed = subprocess.Popen([sys.executable, "-m", "froc", *words], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 200
    while steps < 10 and killed.poll() is None and time.monotonic() < end:
        # without a pause the looks would take the processor that the trial trains on
        time.sleep(0.02)
        with suppress(OSError, ValueError):
            steps = json.loads(state.read_text(encoding="utf-8"))["said"]["steps"][0]
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert commands.run(words, env).returncode in (0, 3)
    for name in NAMES:
        assert (tmp_path / "plain" / name).read_bytes() == (out / name).read_bytes()
    log, plain_log = Folder(out).log(), Folder(tmp_path / "plain").log()
    assert came_to(log) == came_to(plain_log)
    first, again = (line for line in log if line.trial == 0)
    assert (first.status, first.resumed, again.attempt) == ("interrupted", None, 2)
    assert again.resumed is not None
    assert steps <= again.resumed <= again.steps
    assert not (out / "training").exists()
