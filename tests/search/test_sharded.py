"""A model divided among two processes: the search of one, up to the order in which gradients are added."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.audit import keys
from froc.audit.api import report, verify
from froc.errors import InputError
from froc.measuring.measurement import measurement
from froc.models.base import Base, read_model
from froc.search.executors import Executor
from froc.search.executors.inline import Inline
from froc.search.executors.sharded import Sharded, refuse_unfit
from froc.search.job import Job
from froc.search.machine import Machine
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.settings import Settings
from tests.search.small_search import Watch, job, recipe

NEAR: dict[str, Any] = {"budget": {"forgetting": 0.9, "utility": 0.9}, "allow_vacuous": True}


def _made(base: Base) -> Job:
    return job(base, trials=1, candidates=2, epochs=(1, 1), methods=("npo",), **NEAR)


def _run(base: Base, out: Path, monkeypatch: pytest.MonkeyPatch, workers: Callable[[Any], Executor]) -> Any:
    monkeypatch.setenv("FROC_STATE", str(out.with_suffix(".state")))
    base.restore()
    return run(replace(_made(base), workers=workers), out, Watch())


def test_a_sharded_search_is_that_of_one_process(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same candidates, certificate and weights to rounding; the report verifies with the saved model."""
    spec = recipe(_made(base))
    alone = _run(base, tmp_path / "alone", monkeypatch, Inline)
    divided = _run(base, tmp_path / "run", monkeypatch, lambda _: Sharded(spec, ["cpu+cpu"]))
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


def test_what_does_not_go_with_it_is_refused() -> None:
    with pytest.raises(InputError, match="say how many with --gpus-per-trial 2"):
        Machine(executor="sharded").check()
    with pytest.raises(InputError, match="give --deterministic with it on GPUs"):
        Machine(executor="sharded", gpus_per_trial=2).check()
    Machine(device="cpu", executor="sharded", gpus_per_trial=2).check()
    settings, attack = Settings(budget={}), measurement("probability@relearning")
    for changed, methods, measures, instead in (
        (settings, ["npo", "gu(npo)"], {}, "--methods without gu"),
        (settings, ["npo"], {"recovery": attack}, "no --budget for recovery"),
        (replace(settings, train="lora:rank=2"), ["npo"], {}, "--train full or layers"),
    ):
        with pytest.raises(InputError, match=instead):
            refuse_unfit(changed, methods, measures, compiled=False)
    refuse_unfit(settings, ["npo", "sure(npo)"], {"forgetting": measurement("probability")}, compiled=False)
