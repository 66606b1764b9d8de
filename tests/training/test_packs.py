"""Packs: several configurations over one base end where each ends alone."""

from pathlib import Path
from typing import Any

import pytest

from froc.data.splits import Sealed, SearchView
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.models.base import Base, load
from froc.models.compute import Engine
from froc.plugins import make
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseStatistics
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.run import Run
from tests.models.test_compute import _away, _reference


@pytest.fixture
def specs() -> list[TrialSpec]:
    """Different methods, rows per step, lengths of training, rates and seeds."""
    return [
        TrialSpec("npo", {"lr": 1e-2, "epochs": 3, "beta": 0.1}, 5),
        TrialSpec("grad_ascent", {"lr": 3e-3, "epochs": 1}, 6),
        TrialSpec("idk", {"lr": 5e-3, "epochs": 2}, 7),
    ]


def test_packed_runs_end_where_each_ends_alone(
    folder: Path, lora: Base, parts: tuple[SearchView, Sealed], specs: list[TrialSpec]
) -> None:
    alone = load(str(folder), device="cpu", train="lora:rank=4")
    ends = []
    for spec in specs:
        run = _run(alone, spec, _reference(alone, parts[0]), 0)
        train_pack(alone, [run], Engine())
        ends.append((run.done, alone.trainable.snapshot()))
    reference = _reference(lora, parts[0])
    runs = [_run(lora, spec, reference, member) for member, spec in enumerate(specs)]
    train_pack(lora, runs, Engine())
    for member, (run, (steps, end)) in enumerate(zip(runs, ends, strict=True)):
        assert run.done == steps
        assert _away(end, lora.trainable.snapshot(member)) < 1e-3


def test_packed_runs_of_composed_methods_end_where_each_ends_alone(
    folder: Path, lora: Base, parts: tuple[SearchView, Sealed]
) -> None:
    """Sides, filters, dual variables and adversaries of a run are its own, and an edit goes along its adapter alone."""
    names = ["gu(npo)", "pdu", "lat(grad_diff)"]
    jobs = [TrialSpec(name, {"lr": 5e-3, "epochs": 1}, 5 + k) for k, name in enumerate(names)]
    jobs.append(TrialSpec("task_vector", {"lr": 5e-3, "epochs": 1, "scale": 2.0}, 9))
    alone = load(str(folder), device="cpu", train="lora:rank=4")
    ends = []
    for spec in jobs:
        train_pack(alone, [_run(alone, spec, _reference(alone, parts[0]), 0)], Engine())
        ends.append(alone.trainable.snapshot())
    reference = _reference(lora, parts[0])
    for members in (slice(0, 3), slice(1, 4)):
        runs = [_run(lora, spec, reference, member) for member, spec in enumerate(jobs[members])]
        train_pack(lora, runs, Engine())
        for member, end in enumerate(ends[members]):
            assert _away(end, lora.trainable.snapshot(member)) < 1e-3


def test_a_packed_run_that_diverges_or_stops_leaves_the_others_alone(
    folder: Path, lora: Base, parts: tuple[SearchView, Sealed]
) -> None:
    alone = load(str(folder), device="cpu", train="lora:rank=4")
    good = TrialSpec("npo", {"lr": 1e-2, "epochs": 2}, 5)
    train_pack(alone, [_run(alone, good, _reference(alone, parts[0]), 0)], Engine())
    reference = _reference(lora, parts[0])
    wild = _run(lora, TrialSpec("grad_ascent", {"lr": 1e18, "epochs": 3}, 1), reference, 0)
    kept = _run(lora, good, reference, 1)
    hopeless = _run(lora, TrialSpec("npo", {"lr": 1e-3, "epochs": 5}, 2), reference, 2, callbacks={2: lambda: True})
    train_pack(lora, [wild, kept, hopeless], Engine())
    assert "not finite" in wild.error
    assert (hopeless.stopped, hopeless.done, kept.error) == (True, 2, "")
    assert _away(alone.trainable.snapshot(), lora.trainable.snapshot(1)) < 1e-3


def _run(base: Base, spec: TrialSpec, reference: BaseStatistics, member: int, **keywords: Any) -> Run:
    method = make(Method, spec.method, spec.params)
    return Run(method, reference, batch=16, seed=spec.seed, adapter_index=member, engine=Engine(), **keywords)


def test_a_pack_of_trials_is_its_trials_one_by_one(
    folder: Path, lora: Base, parts: tuple[SearchView, Sealed], specs: list[TrialSpec]
) -> None:
    """Through the bench: the same search losses, one trial that cannot start beside those that can."""
    jobs = [*specs[:2], TrialSpec("npo", {"lr": -1.0}, 1)]
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "probability")))
    packed = TrialRunner(lora, parts[0], measures, batch=16, seed=0)
    single = TrialRunner(load(str(folder), device="cpu", train="lora:rank=4"), parts[0], measures, batch=16, seed=0)
    together = packed.run(jobs, [_never] * 3)
    each = [single.run([spec], [_never])[0] for spec in jobs]
    assert (
        [outcome.status for outcome in together]
        == [outcome.status for outcome in each]
        == ["complete", "complete", "failed"]
    )
    for packed_outcome, single_outcome in zip(together[:2], each[:2], strict=True):
        assert [(e.step, e.mix) for e in packed_outcome.ended] == [(e.step, e.mix) for e in single_outcome.ended]
        for mine, theirs in zip(packed_outcome.ended, single_outcome.ended, strict=True):
            assert all(abs(mine.means[risk] - theirs.means[risk]) < 5e-3 for risk in mine.means)


def _never(*_: Any) -> bool:
    return False
