"""Training that is interrupted goes on to the same bit: states on disk, every method, phases, precisions, draws."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from froc.errors import InputError
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.models.random_state import rng_state, set_rng_state
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training import checkpoint
from froc.training.checkpoint import (
    COST,
    EVERY,
    SavedState,
    Saver,
    UnwritableError,
    interval,
    join_tensors,
    split_tensors,
)
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.run import Run
from froc.training.terms import NLL, State, Term, WeightedTerm
from tests.methods.test_method_contract import PLAIN, WRAPPED
from tests.training.test_components import Again, Made, Shrink, Worth

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands in for kill -9."""


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROC_SAVE_EVERY", "0")


def _back(tree: Any) -> Any:
    document, tensors = split_tensors(tree)
    return join_tensors(json.loads(json.dumps(document)), tensors, CPU)


def test_plain_data_comes_back_as_it_was() -> None:
    """Types, keys and their order, values to the bit, layout in memory, and one tensor that stands in two places."""
    turned = torch.arange(6.0).reshape(2, 3).t()
    shared, half = torch.tensor(0.1, dtype=torch.float64), torch.tensor([1.5], dtype=torch.bfloat16)
    tree = {
        "lambda": shared, "b": [1, True, None, -0.0, math.inf, 1e-320], 3: (turned, {"again": shared}), "a/b.c": half,
        "counts": np.arange(4)[::2], "mean": np.float64(0.1), "nothing": torch.zeros(0, 5),
    }  # fmt: skip
    result = _back(tree)
    assert list(result) == list(tree)
    assert result["b"] == tree["b"]
    assert [type(entry) for entry in result["b"]] == [int, bool, type(None), float, float, float]
    assert math.copysign(1.0, result["b"][3]) == -1.0
    assert result["lambda"] is result[3][1]["again"]
    assert isinstance(result[3], tuple)
    assert (result[3][0].stride(), turned.is_contiguous()) == ((1, 3), False)
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype
        for a, b in ((result["lambda"], shared), (result[3][0], turned), (result["a/b.c"], half))
    )
    assert result["counts"].tolist() == [0, 2]
    assert (type(result["mean"]), result["mean"]) == (np.float64, 0.1)
    assert result["nothing"].shape == (0, 5)


def test_tensors_go_back_to_the_device_or_to_the_host() -> None:
    """A machine without one: meta stands in for the device."""
    document, tensors = split_tensors([torch.zeros(2), torch.ones(2)])
    assert [entry["tensor"][1] for entry in document["list"]] == [True, True]
    document["list"][0]["tensor"][1] = False
    assert [entry.device.type for entry in join_tensors(document, tensors, torch.device("meta"))] == ["meta", "cpu"]


def test_a_state_is_memory_of_its_own_even_where_tensors_shared_theirs(tmp_path: Path) -> None:
    every = torch.arange(4.0)
    saver = Saver(tmp_path, "one")
    saver.write({"steps": [1]}, [every[:2], every[1:], every], {}, CPU)
    assert saver.notes == []
    result = Saver(tmp_path, "one").read(CPU)
    assert result is not None
    assert [entry.tolist() for entry in result.state] == [[0, 1], [1, 2, 3], [0, 1, 2, 3]]
    result.state[2].zero_()
    assert result.state[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    "value",
    [
        "an answer", b"bytes", {1, 2}, object(), torch.nn.Parameter(torch.zeros(1)), torch.Generator(), {"two words": 1},
        {(1, 2): 3}, np.array(["text"]), torch.zeros(2).to_sparse(),
    ],
)  # fmt: skip
def test_what_is_no_plain_data_or_could_be_text_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UnwritableError) as refused:
        split_tensors({"state": [value]})
    assert "answer" not in str(refused.value)
    saver = Saver(tmp_path / "state", "one")
    saver.write({"steps": [1]}, {"state": value}, {}, CPU)
    assert not (tmp_path / "state").exists()
    assert (len(saver.notes), saver.due) == (1, False)


def test_a_save_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dying before any of its files appears leaves the one before it, with what lasts beside it."""
    kept = {"0-1": {"w": torch.full((2,), 7.0)}}

    def save(saver: Saver, step: int, lasting: Mapping[str, Any]) -> None:
        saver.write({"steps": [step]}, {"w": torch.full((3,), float(step))}, lasting, CPU)

    def read() -> SavedState:
        state = Saver(tmp_path, "one").read(CPU)
        assert state is not None
        return state

    saver, real, left = Saver(tmp_path, "one"), os.replace, 0

    def die(source: Any, target: Any) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        real(source, target)

    save(saver, 1, kept)
    for place in range(3):
        left = place
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", die)
            with pytest.raises(Killed):
                save(saver, 2, kept | {"0-2": {"w": torch.zeros(1)}})
        state = read()
        assert (state.metadata["steps"], state.state["w"].tolist()) == ([1], [1.0] * 3)
        assert {name: tensors["w"].tolist() for name, tensors in state.fixed_weights.items()} == {"0-1": [7.0, 7.0]}
    save(saver, 2, kept)
    assert read().state["w"].tolist() == [2.0] * 3
    # nothing of the saves that failed or were overtaken stays
    assert sorted(p.name for p in tmp_path.iterdir()) == ["at-2.safetensors", "kept-0-1.safetensors", "state.json"]


def test_a_state_is_one_identitys_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Saver(tmp_path, "one").write({"steps": [4, 2]}, {"w": torch.zeros(1)}, {}, CPU)
    assert Saver(tmp_path, "one").steps() == [4, 2]
    assert Saver(tmp_path, "other").steps() is None
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "__version__", "another")
        assert Saver(tmp_path, "one").steps() is None
    assert Saver(tmp_path, "one").read(torch.device("meta")) is None
    Saver(tmp_path, "one").write({"steps": [4, 2]}, {"w": torch.zeros(1)}, {}, CPU)
    stranger = Saver(tmp_path, "other")
    assert (stranger.read(CPU), stranger.notes) == (None, [])
    # it is going to write files of the same names
    assert Saver(tmp_path, "one").steps() is None


@pytest.mark.parametrize("harm", ["cut", "gone", "json", "shape"])
def test_a_damaged_state_is_no_state(tmp_path: Path, harm: str) -> None:
    Saver(tmp_path, "one").write({"steps": [3]}, {"w": torch.arange(100.0)}, {}, CPU)
    (tensors,) = tmp_path.glob("*.safetensors")
    if harm == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-50])
    elif harm == "gone":
        tensors.unlink()
    elif harm == "json":
        (tmp_path / "state.json").write_text('{"identity": ', encoding="utf-8")
    else:
        text = (tmp_path / "state.json").read_text(encoding="utf-8")
        (tmp_path / "state.json").write_text(text.replace('"dict"', '"dictionary"'), encoding="utf-8")
    saver = Saver(tmp_path, "one")
    assert saver.read(CPU) is None
    assert len(saver.notes) == (harm != "json")
    assert not (tmp_path / "state.json").exists()


def test_a_full_disk_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = Saver(tmp_path, "one")
    saver.write({"steps": [1]}, {"w": torch.zeros(1)}, {}, CPU)

    def full(*_: Any) -> None:
        (tmp_path / "at-2.part").write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_weights", full)
        for step in (2, 3):
            saver.write({"steps": [step]}, {"w": torch.zeros(1)}, {}, CPU)
    assert saver.notes == ["its state could not be saved (OSError)"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["at-1.safetensors", "state.json"]
    saver.write({"steps": [4]}, {"w": torch.zeros(1)}, {}, CPU)
    assert Saver(tmp_path, "one").steps() == [4]


class Clock:
    """Time that passes when we say so; writing tensors takes `cost` seconds of it."""

    def __init__(self, patch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self._cost = 0.0, cost
        patch.delenv("FROC_SAVE_EVERY", raising=False)
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(checkpoint, "write_weights", self._write)

    def _write(self, weights: Mapping[str, Tensor], path: Path) -> None:
        self.now += self._cost
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("cost", [0.5, 1.0, 10.0])
def test_saving_takes_its_share_of_the_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float
) -> None:
    """After every 300 s of steps that take one each, or so much rarer that saving takes 2 %."""
    clock, begun = Clock(monkeypatch, cost), list[float]()
    saver = Saver(tmp_path, "one")
    for step in range(1, 3000):
        clock.now += 1.0
        before = clock.now
        if saver.due:
            saver.write({"steps": [step]}, {"w": torch.zeros(1)}, {}, CPU)
            begun.append(before)
    assert begun[0] == EVERY
    assert len(begun) > 3
    waits = np.diff(begun) - cost
    assert waits.tolist() == pytest.approx([max(EVERY, cost / COST)] * len(waits), abs=1.0)


def test_a_first_save_that_must_take_long_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes on a disk that takes as long for them as 2 % of 400 s: not after 300 s, but after 400."""
    clock = Clock(monkeypatch, 1.0)
    monkeypatch.setattr(checkpoint, "GUESS", 4.0 / (COST * 400.0))
    saver = Saver(tmp_path, "one")
    for now, saved in ((EVERY, None), (399.0, None), (401.0, [7])):
        clock.now = now
        if saver.due:
            saver.write({"steps": [7]}, {"w": torch.zeros(1)}, {}, CPU)
        assert saver.steps() == saved


def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that cannot be gone on with, for want of memory say, must not be in anybody's way."""
    Saver(tmp_path, "one").write({"steps": [3]}, {"w": torch.zeros(1)}, {}, CPU)
    assert Saver(tmp_path, "one").steps() == [3]
    monkeypatch.setenv("FROC_SAVE_EVERY", "inf")
    saver = Saver(tmp_path, "one")
    assert (saver.steps(), saver.read(CPU), saver.due, saver.notes) == (None, None, False, [])


@pytest.mark.parametrize("value", ["often", "-1", "nan"])
def test_an_interval_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FROC_SAVE_EVERY", value)
    with pytest.raises(InputError, match="FROC_SAVE_EVERY"):
        interval()


def _trained(
    bench: TrialRunner, method: Method, each: Callable[[Run], None] = lambda _: None, saved: Any = None,
    engine: Engine | None = None, batch: int = 16,
) -> tuple[Run, dict[str, Tensor]]:  # fmt: skip
    """A run to its end, from a save where there is one."""
    engine = engine or Engine()
    run = Run(method, bench.reference, batch=batch, seed=1, engine=engine)
    if saved is not None:
        run.restore(saved["run"])
        set_rng_state(saved["draws"], CPU)
    train_pack(bench.base, [run], engine, None, lambda: each(run))
    return run, bench.base.trainable.snapshot()


def _interrupted(
    bench: TrialRunner, method: Method, at: int, place: Path, **keywords: Any
) -> tuple[Run, dict[str, Tensor]]:
    """The same, killed after `at` steps and gone on with from the disk."""

    def die(run: Run) -> None:
        # an edit and the step after it are taken at once
        if run.done >= at:
            Saver(place, "one").write({"steps": [at]}, {"run": run.checkpoint(), "draws": rng_state(CPU)}, {}, CPU)
            raise Killed

    with pytest.raises(Killed):
        _trained(bench, method, die, **keywords)
    torch.manual_seed(0)
    state = Saver(place, "one").read(CPU)
    assert state is not None
    return _trained(bench, method, saved=state.state, **keywords)


def _alike(first: tuple[Run, dict[str, Tensor]], second: tuple[Run, dict[str, Tensor]]) -> bool:
    """Weights, steps and what the terms keep, to the bit."""
    assert first[0].done == second[0].done
    mine, yours = (split_tensors(run.state) for run, _ in (first, second))
    assert mine[0] == yours[0]
    states = all(torch.equal(mine[1][name], yours[1][name]) for name in mine[1])
    return states and all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.parametrize("name", [*PLAIN, *WRAPPED, "gu(pdu)"])
def test_every_method_goes_on_to_the_same_bit(bench: TrialRunner, tmp_path: Path, name: str) -> None:
    params: dict[str, Any] = {"lr": 2e-3, "epochs": 1} if make(Method, name, {}).epochs else {}
    # of k_fade, a round before the interruption and one after it
    params |= {"memory": 3} if name.startswith("gu(") else {"rounds": 2} if name == "k_fade" else {}
    method = make(Method, name, params)
    plain = _trained(bench, method)
    assert plain[0].done > 0
    result = _interrupted(bench, method, max(1, plain[0].done // 2), tmp_path)
    assert _alike(plain, result)


def test_it_goes_on_within_any_phase(bench: TrialRunner, tmp_path: Path) -> None:
    """Two phases that move different parameters with an edit of three rounds between them, stopped after each step."""
    parts = {"forget": WeightedTerm(NLL("forget", sign=-1.0)), "retain": WeightedTerm(NLL("retain"))}
    phases = (
        Phase(parts, step_fraction=0.5, trains="mlp"), Phase({}, edit=Shrink(), trains="norm"), Phase(parts, step_fraction=0.5, trains="attn")
    )  # fmt: skip
    method = Made(lr=2e-3, epochs=2, declared=phases)
    plain = _trained(bench, method)
    start = bench.base.trainable.base_values()
    assert {part for part in ("mlp", "norm", "attn") for n in start if part in n and not torch.equal(plain[1][n], start[n])} == {
        "mlp", "norm", "attn"
    }  # fmt: skip
    assert plain[0].done >= 7
    for at in range(1, plain[0].done + 1):
        assert _alike(plain, _interrupted(bench, method, at, tmp_path / str(at))), at


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_it_goes_on_under_reduced_precision(
    bench: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
) -> None:
    """The scaler of float16 doubles every two steps here: it must go on from where it had come to."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, growth_interval=2))
    method = make(Method, "npo", {"lr": 2e-3, "epochs": 3})
    plain = _trained(bench, method, engine=Engine(precision))
    result = _interrupted(bench, method, 3, tmp_path, engine=Engine(precision))
    assert _alike(plain, result)
    assert result[0].checkpoint()["scaler"] == plain[0].checkpoint()["scaler"]
    assert plain[0].checkpoint()["scaler"].get("scale") != 2.0**12


@dataclass(frozen=True)
class Noisy(Term):
    """NLL times a number that torch draws in each pass."""

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        state.setdefault("drawn", []).append(float(torch.rand(())))
        drawn: float = state["drawn"][-1]
        return forward.mean_nll * drawn


def test_it_goes_on_with_torchs_draws(bench: TrialRunner, tmp_path: Path) -> None:
    method = Made(lr=2e-3, epochs=2, declared=(Phase({"forget": WeightedTerm(Noisy("forget"))}),))
    plain, result = _trained(bench, method), _interrupted(bench, method, 2, tmp_path)
    assert len(set(plain[0].state["drawn"])) == len(plain[0].state["drawn"])
    assert _alike(plain, result)


def test_rows_that_the_model_wrote_are_gone_through_before_a_save(bench: TrialRunner, tmp_path: Path) -> None:
    phase = Phase(
        {"worth": WeightedTerm(Worth("rollout")), "retain": WeightedTerm(NLL("retain"))}, rollout=Again(every=2)
    )
    method = Made(lr=2e-3, epochs=2, declared=(phase,))
    settled: list[tuple[int, bool]] = []
    plain = _trained(bench, method, lambda run: settled.append((run.done, run.can_checkpoint)), batch=8)
    assert plain[0].done >= 4
    assert settled == [(step, step % 2 == 0 or step == plain[0].done) for step in range(1, plain[0].done + 1)]
    assert _alike(plain, _interrupted(bench, method, 2, tmp_path, batch=8))


def test_nothing_but_numbers_lies_in_a_state(bench: TrialRunner, tmp_path: Path) -> None:
    """Of a method that keeps much: no word of the rows, and no pickle."""
    _interrupted(bench, make(Method, "advunlearn(npo)", {"lr": 2e-3, "epochs": 2}), 2, tmp_path)
    words: Sequence[str] = [row.group for row in bench.view.forget]
    for path in tmp_path.iterdir():
        assert path.suffix in (".json", ".safetensors")
        assert not [word for word in words if word and word.encode() in path.read_bytes()]
