"""A model divided among two processes: the search of one, up to the order in which gradients are added."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
import torch
from sharded import ends
from torch import Tensor

from froc.audit import keys
from froc.audit.api import report, verify
from froc.errors import InputError
from froc.models import likelihood, process_group
from froc.models.base import Base, load, read_model
from froc.models.forward import Pass
from froc.models.memory import SHORT, with_fewer_rows
from froc.search.executors import Executor, WorkerSpec
from froc.search.executors.inline import Inline
from froc.search.executors.processes import Processes, ended
from froc.search.executors.sharded import Sharded, refuse_unfit
from froc.search.job import Job
from froc.search.machine import Machine
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.settings import Settings
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Work
from froc.training.checkpoint import Saver
from froc.training.loop import train_pack
from tests.search.conftest import fork_workers
from tests.search.small_search import Watch, job, recipe
from tests.small_model import TRAINED

NEAR: dict[str, Any] = {"budget": {"forgetting": 0.9, "utility": 0.9}, "allow_vacuous": True}
METHODS = ("cure(npo)", "guard(npo)", "kuda", "u_can", "advunlearn(npo)")
"""That read or write weights and gradients in ways of their own."""
LOOKS = ("probability@pruning", "probability@quantization:scheme=nf4", "probability@coordinate_suffix:steps=1,swaps=2", "membership:score=gradient")  # fmt: skip
ROWS, QUERIES = 6, 4
NOBODY: Any = None
"""In place of a runner, for work that loads its own model."""
STOP = 5
ENDS = {"full": (*METHODS, *LOOKS), "lora:rank=2": ("npo", "probability@relearning:steps=2,batch=4")}
"""What is tried with each kind of training."""


@dataclass(frozen=True)
class Ends(Work):
    """Ends of methods and losses of measurements, as arrays."""

    train: str

    def __call__(self, runner: TrialRunner) -> dict[str, Any]:
        made = ends(ENDS[self.train], self.train, rows=ROWS, queries=QUERIES)
        return {name: value if isinstance(value, str) else _arrays(value) for name, value in made.items()}


@dataclass(frozen=True)
class Stopped(Work):
    """A trial that ends for lack of time after five steps, and goes on from what it saved; its parameters, and the step that it went on from."""

    place: Path
    whole: bool = False

    def __call__(self, runner: TrialRunner) -> tuple[dict[str, Any], list[Any]]:
        with mock.patch.dict(os.environ, FROC_SAVE_EVERY="0"):
            return self._ended(runner)

    def _ended(self, runner: TrialRunner) -> tuple[dict[str, Any], list[Any]]:
        spec, known = TrialSpec("grad_diff", {"lr": 4e-3, "epochs": 2}, 3), []
        if not self.whole:
            self._interrupted(runner, spec)
        run = runner.prepared(spec, {})
        if not self.whole:
            saved = Saver(self.place, "trial").read(runner.base.device)
            assert saved is not None
            run.restore(saved.state)
            known = [run.done, sorted(path.name for path in self.place.iterdir())]
        train_pack(runner.base, [run], runner.engine)
        return _arrays(runner.base.trainable.snapshot()), known

    def _interrupted(self, runner: TrialRunner, spec: TrialSpec) -> None:
        saver, run = Saver(self.place, "trial"), runner.prepared(spec, {})

        def save() -> None:
            if run.done == STOP:
                kept = {"0-1": runner.base.trainable.copy(run.changed_names)}
                saver.write({"steps": [run.done]}, run.checkpoint(), kept, runner.base.device)
                # only the first's clock counts
                if process_group.decided_by_first(process_group.rank() == 0):
                    raise TimeoutError

        with pytest.raises(TimeoutError):
            train_pack(runner.base, [run], runner.engine, after_step=save)


@dataclass(frozen=True)
class Chunked(Work):
    """Change of the weights where logits are made a chunk of positions at a time, and how often they were."""

    def __call__(self, runner: TrialRunner) -> tuple[dict[str, Any], int]:
        chunked = mock.patch("froc.models.forward.linear_nll", wraps=likelihood.linear_nll)
        with mock.patch.object(likelihood, "CHUNK", 256), chunked as made:
            return _arrays(ends(["npo"], "full", rows=ROWS)["npo"]), made.call_count


@dataclass(frozen=True)
class Gathered(Work):
    """Chunks of a pass's logits, and how many tensors were gathered for them."""

    def __call__(self, runner: TrialRunner) -> tuple[int, int]:
        with mock.patch.object(likelihood, "CHUNK", 256), torch.no_grad():
            result = Pass(runner.base.model, runner.reference.stack.batch(range(4)))
            with mock.patch("froc.models.forward.whole", wraps=process_group.whole) as gathered:
                chunks = sum(1 for _ in result.logit_chunks())
        return chunks, gathered.call_count


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: value.numpy().copy() for name, value in tensors.items()}


class Kept:
    """An executor that a search does not end."""

    def __init__(self, group: Executor) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return (lambda: None) if name == "close" else getattr(self._group, name)


@pytest.fixture(scope="module")
def group() -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        executor = Sharded(recipe(_made(load(str(TRAINED), device="cpu"))), ["cpu+cpu"])
        yield executor
        executor.close()


def _result(group: Executor, work: Work) -> Any:
    group.submit(9_999, work)
    while not (reports := group.wait()):
        pass
    assert reports[0].error is None, reports[0].error
    return reports[0].result


def _made(base: Base) -> Job:
    return job(base, trials=1, candidates=2, epochs=(1, 1), methods=("npo",), **NEAR)


def _run(base: Base, out: Path, monkeypatch: pytest.MonkeyPatch, workers: Callable[[Any], Any]) -> Any:
    monkeypatch.setenv("FROC_STATE", str(out.with_suffix(".state")))
    base.restore()
    return run(replace(_made(base), workers=workers), out, Watch())


def test_a_sharded_search_is_that_of_one_process(
    base: Base, group: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same candidates, certificate and weights to rounding; the report verifies with the saved model."""
    alone = _run(base, tmp_path / "alone", monkeypatch, Inline)
    divided = _run(base, tmp_path / "run", monkeypatch, lambda _: Kept(group))
    assert [c["config"] for c in divided["candidates"]] == [c["config"] for c in alone["candidates"]]
    assert divided["certified"] == alone["certified"] != []
    for ours, theirs in zip(divided["candidates"], alone["candidates"], strict=True):
        assert ours["empirical"] == pytest.approx(theirs["empirical"], abs=2e-3)
    ours, theirs = (read_model(tmp_path / name / "model") for name in ("run", "alone"))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    plan = json.loads(Folder(tmp_path / "run").plan.read_text())
    assert plan["environment"]["sharded"] == "2"
    keys.keygen(tmp_path / "key", None)
    bundle = report(tmp_path / "run", key=tmp_path / "key", out=tmp_path, allow_small_sample=True).bundle
    result = verify(bundle, key=tmp_path / "key.pub", model=tmp_path / "run" / "model")
    assert (result.verdict, result.model_checked) == ("PASS", True)


@pytest.mark.parametrize("train", ENDS)
def test_methods_attacks_and_adapters_end_where_they_end_in_one_process(train: str, group: Executor) -> None:
    """Weights within 1e-5, losses within a thousandth."""
    divided, alone = _result(group, Ends(train)), Ends(train)(NOBODY)
    assert divided.pop("held") < "0.6"
    assert divided.keys() == alone.keys()
    for name, values in alone.items():
        assert not isinstance(divided[name], str), (name, divided[name])
        for key, value in values.items():
            assert np.abs(divided[name][key] - value).max() < (1.01 if key == "losses" else 1e-5), (name, key)
        assert any(np.abs(value).max() > 1e-4 for value in values.values()), name


def test_a_trial_that_was_interrupted_goes_on(base: Base, group: Executor, tmp_path: Path) -> None:
    """Each process writes its parts, the first one the document; the end is that of a trial that was not interrupted, bit for bit."""
    ours, (step, files) = _result(group, Stopped(tmp_path / "save"))
    undisturbed, _ = _result(group, Stopped(tmp_path / "none", whole=True))
    assert step == STOP
    names = ["at-5.safetensors", "kept-0-1.safetensors"]
    assert files == [*(f"{rank}-{name}" for rank in (0, 1) for name in names), "state.json"]
    assert all(np.array_equal(ours[name], value) for name, value in undisturbed.items())


@dataclass(frozen=True)
class Damaged(Work):
    """A save of which the second process cannot read its part; the first one's notes, and whether it goes on from it."""

    place: Path

    def __call__(self, runner: TrialRunner) -> tuple[list[str], bool]:
        device = runner.base.device
        with mock.patch.dict(os.environ, FROC_SAVE_EVERY="0"):
            Saver(self.place, "trial").write({"steps": [1]}, {"value": torch.ones(2)}, {}, device)
        assert (self.place / "state.json").exists()
        if process_group.rank() == 1:
            (self.place / "1-at-1.safetensors").write_bytes(b"half")
        again = Saver(self.place, "trial")
        return again.notes, again.read(device) is not None


def test_a_save_that_one_process_cannot_read_is_dropped_and_noted(group: Executor, tmp_path: Path) -> None:
    notes, read = _result(group, Damaged(tmp_path))
    assert not read
    assert notes == ["the saved state of another process of its group is damaged: it began anew"]
    assert not (tmp_path / "state.json").exists()


@dataclass(frozen=True)
class Turn(Work):
    """When each process had its turn, in a file each; nothing of them may overlap."""

    place: Path

    def __call__(self, runner: TrialRunner) -> None:
        with process_group.in_turn():
            begin = time.monotonic()
            time.sleep(0.05)
            (self.place / str(process_group.rank())).write_text(f"{begin} {time.monotonic()}")


def test_processes_read_a_model_one_after_the_other(group: Executor, tmp_path: Path) -> None:
    _result(group, Turn(tmp_path))
    (first, end), (second, _) = (map(float, (tmp_path / str(rank)).read_text().split()) for rank in (0, 1))
    assert first < end <= second


def test_logits_are_never_made_whole(group: Executor) -> None:
    """Training on chunks of positions comes to the same end as in one process."""
    (divided, chunks), (alone, chunks_alone) = _result(group, Chunked()), Chunked()(NOBODY)
    assert chunks == chunks_alone > 0
    assert all(np.abs(divided[name] - value).max() < 1e-5 for name, value in alone.items())


def test_the_head_is_gathered_once_for_all_chunks_of_logits(group: Executor) -> None:
    chunks, gathered = _result(group, Gathered())
    assert chunks > 2
    assert gathered == 1


def test_too_little_memory_in_one_process_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it in the middle of a pass, so that it cannot try again with fewer rows; the driver says what to give."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit(code)

    def short(_: int) -> None:
        raise MemoryError

    monkeypatch.setattr(process_group, "joined", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit):
        with_fewer_rows(8, short)
    assert codes == [SHORT]
    assert "give more --gpus-per-trial" in ended(SHORT)


def test_what_does_not_go_with_it_is_refused() -> None:
    with pytest.raises(InputError, match="say how many with --gpus-per-trial 2"):
        Machine(executor="sharded").check()
    with pytest.raises(InputError, match="give --deterministic with it on GPUs"):
        Machine(executor="sharded", gpus_per_trial=2).check()
    Machine(device="cpu", executor="sharded", gpus_per_trial=2).check()
    settings = Settings(budget={})
    with pytest.raises(InputError, match="without bits"):
        refuse_unfit(replace(settings, train="lora:rank=2,bits=4"), compiled=False)
    with pytest.raises(InputError, match="no --compile"):
        refuse_unfit(settings, compiled=True)
    refuse_unfit(replace(settings, train="lora:rank=2", optimizer="adamw8bit"), compiled=False)


@dataclass(frozen=True)
class Short(Work):
    """The second process has too little memory; the first waits for it in a step, and takes its end for a failure of the trial."""

    def __call__(self, runner: TrialRunner) -> str:
        if process_group.rank() == 1:
            raise MemoryError
        with suppress(RuntimeError):
            process_group.all_agree(True)
        return "a failed trial"


@dataclass(frozen=True)
class Killed(Work):
    """The system kills the second process; those that go on together are counted where `code` is None."""

    code: int | None = signal.SIGKILL

    def __call__(self, runner: TrialRunner) -> int:
        if self.code is not None and process_group.rank() == 1:
            os.kill(os.getpid(), self.code)
        return process_group.size() * process_group.all_agree(True)


def _lost(group: Executor, work: Work) -> str:
    group.submit(9_999, work)
    while not (reports := group.wait()):
        pass
    (report,) = reports
    assert (report.result, report.error) == (None, None)
    return str(report.lost)


def test_what_a_group_comes_to_without_a_process_is_no_result(group: Processes) -> None:
    """Nor is it the trial's failure: the driver says why, and starts another group."""
    before = group.pids
    assert "give more --gpus-per-trial" in _lost(group, Short())
    assert group.pids != before


def test_the_next_work_has_a_whole_group(group: Processes) -> None:
    assert "it was killed" in _lost(group, Killed())
    assert _result(group, Killed(None)) == 2


@dataclass(frozen=True)
class Starved:
    """A recipe for whose runner the second process has too little memory; the first waits for it."""

    def runner(self, _device: str, _folder: Path) -> None:
        if process_group.rank() == 1:
            raise MemoryError
        process_group.all_agree(True)


@pytest.mark.usefixtures("forked_workers")
def test_a_group_that_lacks_memory_to_start_says_so() -> None:
    """In place of what the first process says, which only knows that another is gone."""
    executor = Sharded(cast(WorkerSpec, Starved()), ["cpu+cpu"])
    try:
        with pytest.raises(InputError, match="had too little memory; give more --gpus-per-trial"):
            _result(executor, Killed(None))
    finally:
        executor.close()
