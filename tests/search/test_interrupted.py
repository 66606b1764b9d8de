"""Trials that are interrupted go on where their state was saved: looks, pruners, packs, drivers, workers, the command itself."""

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

import numpy as np
import pytest
import torch

from froc.data import Sealed, SearchView
from froc.engine import Engine
from froc.methods.pdu import PrimalDual
from froc.metrics import Metric
from froc.models import Base, load, save
from froc.plugins import make
from froc.resuming import Saver
from froc.risks import plain
from search import trial as module
from search.driver import Driver
from search.executors import Executor
from search.executors.inline import Inline
from search.executors.processes import Processes
from search.folder import Folder, Started
from search.run import run
from search.trial import Asked, Bench, Hopeless, Outcome
from search.work import saver_of
from tests.commands import Commands
from tests.search.test_executors import recipe
from tests.search.test_run import Killed, Watch, job

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("certificate.json", "losses/search.parquet", "losses/calibration.parquet")


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROC_SAVE_EVERY", "0")


class Dying(Saver):
    """Its process is killed after `left` saves."""

    left = 10**6

    def write(self, *said: Any) -> None:
        super().write(*said)
        self.left -= 1
        if not self.left:
            raise Killed


def dying(place: Path, left: int) -> Dying:
    made = Dying(place, "these")
    made.left = left
    return made


def asking(calls: list[int]) -> Hopeless:
    """A judge that finds nothing hopeless and notes the place of each rung that it is asked about."""

    def hopeless(rungs: Sequence[Sequence[Any]], seen: Sequence[Sequence[float]]) -> bool:
        assert len(rungs) == len(seen)
        calls.append(len(rungs))
        return False

    return hopeless


def bench_on(base: Base, view: SearchView, engine: Engine | None = None) -> Bench:
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "extraction_strength")))
    return Bench(base, view, measures, batch=16, seed=0, engine=engine)


def same(one: Outcome, other: Outcome) -> bool:
    """Everything but the time it took, to the bit."""
    assert (one.status, one.reason, one.steps, one.member) == (other.status, other.reason, other.steps, other.member)
    assert (one.rungs, one.queries) == (other.rungs, other.queries)
    for a, b in zip(one.ended, other.ended, strict=True):
        assert (a.step, a.share, a.means, a.averages) == (b.step, b.share, b.means, b.averages)
        assert all(np.array_equal(a.tables[risk], b.tables[risk]) for risk in a.tables)
    assert list(one.kept) == list(other.kept)
    return all(torch.equal(one.kept[step][n], other.kept[step][n]) for step in one.kept for n in one.kept[step])


@pytest.mark.parametrize("name", ["npo", "pdu", "gu(npo)", "advunlearn(npo)", "rmu"])
def test_a_trial_goes_on_with_its_looks_and_its_judge(
    base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path, name: str
) -> None:
    """Killed between rungs and behind them: same losses, kept weights and end; a new judge hears of each rung once."""
    params = {"lr": 2e-3, "epochs": 3} | ({"memory": 2} if name.startswith("gu") else {})
    asked, calls = [Asked(name, params, 7)], list[int]()
    (whole,) = bench_on(base, parts[0]).run(asked, [asking(calls)])
    ends = base.scope.take()
    assert (whole.status, whole.resumed, calls) == ("complete", None, [1, 2])
    assert whole.kept
    first, second = (step for step, _ in whole.rungs)
    for at in (1, first, second, whole.steps) if name == "npo" else (first,):
        place, told = tmp_path / str(at), list[int]()
        with pytest.raises(Killed):
            bench_on(base, parts[0]).run(asked, [asking([])], None, dying(place, at))
        saver = Saver(place, "these")
        (found,) = bench_on(base, parts[0]).run(asked, [asking(told)], None, saver)
        assert (found.resumed, told, saver.notes) == (at, [1, 2], [])
        assert same(whole, found)
        assert all(torch.equal(ends[n], p) for n, p in base.scope.take().items())


def test_a_pruned_trial_stays_pruned(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> None:
    """Killed when the rung's verdict had been saved, and before anybody heard of it."""
    asked = [Asked("npo", {"lr": 2e-3, "epochs": 3}, 7)]
    bench = bench_on(base, parts[0])
    (whole,) = bench.run(asked, [lambda *_: True])
    assert whole.status == "pruned"
    with pytest.raises(Killed):
        bench.run(asked, [lambda *_: True], None, dying(tmp_path, whole.steps))
    (found,) = bench.run(asked, [lambda *_: True], None, Saver(tmp_path, "these"))
    assert found.resumed == whole.steps
    assert same(whole, found)


def test_a_state_that_does_not_fit_is_left_alone(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> None:
    """Of other parameters, by whatever accident: the trial begins anew, says so, and comes to what it would have."""
    bench = bench_on(base, parts[0])
    asked = [Asked("npo", {"lr": 2e-3, "epochs": 2}, 7)]
    (whole,) = bench.run(asked, [asking([])])
    with pytest.raises(Killed):
        bench.run([Asked("rmu", {"lr": 2e-3, "epochs": 2}, 7)], [asking([])], None, dying(tmp_path, 4))
    text = (tmp_path / "state.json").read_text(encoding="utf-8")
    (tmp_path / "state.json").write_text(text.replace("down_proj", "sideways"), encoding="utf-8")
    saver, calls = Saver(tmp_path, "these"), list[int]()
    (found,) = bench.run(asked, [asking(calls)], None, saver)
    assert saver.notes == ["its saved state does not fit (KeyError): it began anew"]
    assert (found.resumed, calls) == (None, [1, 2])
    assert same(whole, found)


def test_time_before_the_interruption_counts(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> None:
    """A limit is a trial's and not an attempt's: who had used it up is out of time at once."""
    asked, bench = [Asked("npo", {"lr": 2e-3, "epochs": 2}, 7)], bench_on(base, parts[0])
    with pytest.raises(Killed):
        bench.run(asked, [asking([])], 3600.0, dying(tmp_path, 2))
    state = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    assert 0 < state["said"]["seconds"] < 3600
    state["said"]["seconds"] = 3600.0
    (tmp_path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (found,) = bench.run(asked, [asking([])], 3600.0, Saver(tmp_path, "these"))
    assert (found.status, found.resumed, found.steps) == ("timed-out", 2, 2)
    assert found.seconds < 600


@pytest.fixture
def packed(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> Bench:
    base.restore()
    save(base, tmp_path / "model")
    lora = load(str(tmp_path / "model"), device="cpu", train="lora:rank=4", members=3)
    return bench_on(lora, parts[0])


PACK = [
    Asked("npo", {"lr": 5e-3, "epochs": 1}, 1), Asked("pdu", {"lr": 5e-3, "epochs": 3}, 2),
    Asked("grad_diff", {"lr": 5e-3, "epochs": 2}, 3),
]  # fmt: skip


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_a_pack_goes_on_together(packed: Bench, tmp_path: Path, ended: int) -> None:
    """All three in training, one or two of them at their end already."""
    whole = packed.run(PACK, [asking([]) for _ in PACK])
    ends = [packed.base.scope.take(member) for member in range(3)]
    at = 1 + [0, whole[0].steps, whole[2].steps][ended]
    assert sum(one.steps < at for one in whole) == ended
    with pytest.raises(Killed):
        packed.run(PACK, [asking([]) for _ in PACK], None, dying(tmp_path, at))
    found = packed.run(PACK, [asking([]) for _ in PACK], None, Saver(tmp_path, "these"))
    assert [one.resumed for one in found] == [min(at, one.steps) for one in whole]
    assert all(same(a, b) for a, b in zip(whole, found, strict=True))
    for member in range(3):
        assert all(torch.equal(ends[member][n], p) for n, p in packed.base.scope.take(member).items())


def test_members_of_a_pack_that_failed_go_on_alone(
    packed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.together

    def apart(base: Base, runs: Any, *rest: Any) -> None:
        if len(runs) > 1:
            raise RuntimeError("too many at once")
        real(base, runs, *rest)

    monkeypatch.setattr(module, "together", apart)
    whole = packed.run(PACK, [asking([]) for _ in PACK])

    class Deadly(Saver):
        """Whose second part dies after its fourth save."""

        def part(self, place: int) -> Saver:
            made = Dying(self._folder / str(place), f"{self._identity}/{place}")
            made.left = 4 if place == 1 else made.left
            return made

    with pytest.raises(Killed):
        packed.run(PACK, [asking([]) for _ in PACK], None, Deadly(tmp_path, "these"))
    found = packed.run(PACK, [asking([]) for _ in PACK], None, Saver(tmp_path, "these"))
    # the first had come to its end, and the third had not begun
    assert [one.resumed for one in found] == [whole[0].steps, 4, None]
    assert all(same(a, b) for a, b in zip(whole, found, strict=True))


SAID: dict[str, Any] = {"trials": 4, "parallel": 2, "methods": ("pdu", "gu(npo)"), "pruner": "wilcoxon"}


def done(base: Base, out: Path, workers: Any = Inline, watch: Watch | None = None, **said: Any) -> dict[str, bytes]:
    """Run, and return what must not hang on what happens on the way."""
    run(replace(job(base, **SAID | said), workers=workers), out, watch or Watch())
    assert not (out / "training").exists()
    return {name: (out / name).read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def undisturbed(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[Started]]:
    """Without a save."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_SAVE_EVERY", "inf")
        patch.setenv("FROC_STATE", str(tmp_path_factory.mktemp("state")))
        out = tmp_path_factory.mktemp("plain") / "run"
        return done(base, out), Folder(out).log()


def came_to(log: Sequence[Started]) -> list[Any]:
    """What of the finished lines must not hang on what happened."""
    ended = sorted((line for line in log if line.status != "interrupted"), key=lambda line: line.trial)
    return [(one.config, one.status, one.params, one.seed, one.steps, one.rungs, one.search) for one in ended]


@pytest.mark.parametrize("place", [9, 40])
def test_killed_at_any_write_while_states_are_saved(
    base: Base, undisturbed: tuple[dict[str, bytes], list[Started]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
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

    saved = list[tuple[Started, list[int] | None]]()
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
        again = next(one for one in log if (one.trial, one.attempt) == (line.trial, line.attempt + 1))
        assert again.resumed == (steps[0] if steps else None)
    assert any(steps for _, steps in saved)


def test_what_an_ended_trial_left_is_cleared_by_the_next_call(
    base: Base, undisturbed: tuple[dict[str, bytes], list[Started]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between a trial's line and the removal of its state; the next one removes it before it trains."""
    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_forget", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            done(base, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "training").iterdir()] == ["c0000"]

    class Looks(Watch):
        def trial(self, line: Started, log: Sequence[Started], total: int) -> None:
            assert line.trial == 0 or not (tmp_path / "run" / "training" / "c0000").exists()

    assert done(base, tmp_path / "run", watch=Looks()) == undisturbed[0]


def test_no_text_lies_in_a_run_folder_in_the_middle_of_a_trial(base: Base, tmp_path: Path) -> None:
    class Stops(Inline):
        def wait(self, timeout: float | None = None) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                left = iter([False] * 5 + [True] * 1000)
                write = Saver.write
                patch.setattr(Saver, "write", lambda self, *said: _killing(write, self, said, next(left)))
                return super().wait(timeout)

    with pytest.raises(Killed):
        done(base, tmp_path / "run", Stops)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in files if "training" in path.parts} == {".json", ".safetensors"}
    made = job(base, **SAID)
    words = {row.group for row in made.task.forget} | {row.answer for row in made.task.forget}
    for path in files:
        assert not [word for word in words if word.encode() in path.read_bytes()], path


def _killing(write: Any, saver: Saver, said: Any, now: bool) -> None:
    write(saver, *said)
    if now:
        raise Killed


def test_workers_that_do_not_see_the_folder_save_nothing(
    base: Base, undisturbed: tuple[dict[str, bytes], list[Started]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Far(Inline):
        remote = True

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Saver, "__init__", never)
    assert done(base, tmp_path / "run", Far) == undisturbed[0]


def test_a_state_that_cannot_be_written_costs_nothing_but_a_line_in_the_log(
    base: Base, undisturbed: tuple[dict[str, bytes], list[Started]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_after = PrimalDual.after

    def after(self: PrimalDual, losses: Any, state: Any) -> None:
        plain_after(self, losses, state)
        state["seen"] = "a secret answer"

    monkeypatch.setattr(PrimalDual, "after", after)
    assert done(base, tmp_path / "run") == undisturbed[0]
    text = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "WARNING c0000 cannot go on from its middle if it is interrupted: it holds a str" in text
    assert "secret" not in text
    assert "WARNING c0001" not in text


def test_a_worker_that_is_killed_in_the_middle_of_a_trial_loses_a_step(
    base: Base, undisturbed: tuple[dict[str, bytes], list[Started]], tmp_path: Path
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
        return Struck(recipe(job(base, **SAID)), ["cpu", "cpu"])

    assert done(base, out, workers) == undisturbed[0]
    log = Folder(out).log()
    assert hit
    assert came_to(log) == came_to(undisturbed[1])
    killed, again = (line for line in log if line.trial == 1)
    assert (killed.status, killed.resumed, again.attempt) == ("interrupted", None, 2)
    assert again.resumed is not None
    assert 3 <= again.resumed <= again.steps
    assert f"c0001 starts: gu(npo), attempt 2, goes on from step {again.resumed}" in (out / "run.log").read_text()


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
