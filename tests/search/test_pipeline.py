"""The whole job on the small task: certificate, model, seal, openings, resuming after being killed anywhere."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import polars as pl
import pytest
import torch
from safetensors import SafetensorError
from sqlalchemy.exc import OperationalError
from transformers import AutoModelForCausalLM, AutoTokenizer

from froc import hashing
from froc.configuration_id import ConfigurationId
from froc.data import opening_ledger
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.errors import InputError, InterruptedRunError
from froc.measuring.query_losses import losses, probes
from froc.models.base import Base, wrap
from froc.search.job import runner_of
from froc.search.optuna.space import build
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.settings import measures
from froc.search.trial.outcome import TrialSpec
from froc.training.loop import train_pack
from tests.search.small_search import BUDGET, Killed, Watch, job
from tests.small_model import SMALL


@pytest.fixture(scope="module")
def finished(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("run") / "run"
    return out, run(job(base), out, Watch())


def test_certificate_follows_the_contract(finished: tuple[Path, dict[str, Any]]) -> None:
    out, certificate = finished
    assert json.loads((out / "certificate.json").read_text()) == certificate
    assert certificate["budget"] == BUDGET
    plan = json.loads((out / "plan.json").read_text())
    assert certificate["n"] == plan["split"]["calibration"]
    assert plan["fidelity"] == dict.fromkeys(
        ("method grad_diff", "method npo", "metric extraction_strength"), "code-checked"
    )
    assert certificate["chosen"] in certificate["certified"]
    for row in certificate["candidates"]:
        assert set(row) == {
            "config", "method", "params", "weights_digest", "weight", "n", "empirical", "p_values", "p_value", "certified", "cur", "robust_radius"
        }  # fmt: skip
        assert row["p_value"] == max(row["p_values"].values())
    assert {p.name for p in out.iterdir()} >= {
        "plan.json",
        "study.db",
        "trials.jsonl",
        "losses",
        "seal.json",
        "model",
    }
    assert not (out / "weights").exists()


def test_methods_around_methods_controls_and_compositions_come_to_a_certificate(base: Base, tmp_path: Path) -> None:
    """By name in the log, the seal and the certificate; a control is tried once; each is trained again to the same losses."""
    out = tmp_path / "run"
    made = job(base, methods=("none", "gu(npo)", "compose", "task_vector"), trials=6)
    certificate = run(made, out, Watch())
    log = Folder(out).log()
    assert [line.method for line in log] == ["none", "gu(npo)", "compose", "task_vector", "gu(npo)", "compose"]
    assert {line.status for line in log} <= {"complete", "pruned"}
    assert log[0].search == {FORGETTING: 1.0, UTILITY: 0.0}
    chosen = next(row for row in certificate["candidates"] if row["config"] == certificate["chosen"])
    assert chosen["method"] in {"gu(npo)", "compose", "task_vector"}
    line = next(line for line in log if line.config == str(ConfigurationId.parse(chosen["config"]).of_trial))
    bench = runner_of(made)
    bench.retrain(
        TrialSpec(line.method, line.params, line.seed), chosen["params"].get("stop"), chosen["params"].get("mix", 1.0)
    )
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    saved = dict(model.named_parameters())
    assert all(torch.equal(saved[name], p) for name, p in base.trainable.parameters().items())


def test_chosen_model_loads_and_has_the_certified_losses(base: Base, finished: tuple[Path, dict[str, Any]]) -> None:
    out, certificate = finished
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    assert sorted(p.suffix for p in (out / "model").iterdir() if "model" in p.name) == [".safetensors"]
    made = job(base)
    queries = made.sealed.open(json.loads((out / "seal.json").read_text()))
    forgetting = {FORGETTING: queries[FORGETTING]}
    loaded = wrap("loaded", model, AutoTokenizer.from_pretrained(out / "model"))
    (probe,) = probes(loaded, forgetting, measures(made.settings), made.view)
    table = pl.read_parquet(out / "losses" / "calibration.parquet")
    kept = table.filter((pl.col("config") == certificate["chosen"]) & (pl.col("risk") == FORGETTING))
    assert dict(zip(kept["query"], kept["loss"], strict=True)) == dict(
        zip([q.id for q in probe.queries], losses(loaded, probe).tolist(), strict=True)
    )


def test_seal_was_written_before_calibration_and_names_the_plan(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    out, certificate = finished
    seal = json.loads((out / "seal.json").read_text())
    assert (out / "seal.json").stat().st_mtime_ns < (out / "losses" / "calibration.parquet").stat().st_mtime_ns
    assert seal["plan"] == hashing.sha256_file(out / "plan.json")
    assert [c["config"] for c in seal["candidates"]] == [c["config"] for c in certificate["candidates"]]
    assert [c["weight"] for c in seal["candidates"]] == [1 / rank for rank in range(1, 1 + len(seal["candidates"]))]


def test_search_never_touches_calibration_queries(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    searched = set(pl.read_parquet(out / "losses" / "search.parquet")["query"])
    calibrated = set(pl.read_parquet(out / "losses" / "calibration.parquet")["query"])
    assert searched
    assert calibrated
    assert not searched & calibrated


def test_no_text_of_the_task_in_any_file(base: Base, finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    names = {row.group for row in embedded_text.task(SMALL).forget}
    for path in out.rglob("*"):
        if path.is_file() and path.parent.name != "model":
            leaked = [name for name in names if name.encode() in path.read_bytes()]
            assert not leaked, f"{path.name} names {leaked}"


def test_a_finished_run_is_not_done_again(base: Base, finished: tuple[Path, dict[str, Any]]) -> None:
    watch = Watch()
    assert run(job(base), finished[0], watch) == finished[1]
    assert watch.started == []


def test_ctrl_c_then_the_same_command(base: Base, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    started = [[(0, 1), (1, 1), (2, 1)], [(2, 2), (3, 1), (4, 1)], [(4, 2)]]
    for wanted in started:
        watch = Watch(stop_at=3)
        if wanted != started[-1]:
            with pytest.raises(InterruptedRunError, match="the same command goes on"):
                run(job(base), tmp_path / "run", watch)
        else:
            run(job(base), tmp_path / "run", watch)
        assert watch.started == wanted
    assert (tmp_path / "run" / "certificate.json").read_bytes() == (finished[0] / "certificate.json").read_bytes()
    statuses = [line.status for line in Folder(tmp_path / "run").log()]
    assert statuses.count("interrupted") == 2


@contextmanager
def _dying_at(file: str, which: int) -> Iterator[None]:
    """Killed just before a file appears that has such a path, for the `which`-th time."""
    real, left = os.replace, which

    def replace_or_die(source: Any, target: Any) -> None:
        nonlocal left
        left -= fnmatch(str(target), f"*/{file}")
        if left == 0:
            raise Killed
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        with pytest.raises(Killed):
            yield


KILLS = [
    [("plan.json", 1), ("c0001*.safetensors", 1), ("trials.jsonl", 4), ("search.parquet", 1), ("openings/*", 1), ("diagnostics.json", 1)],
    [("trials.jsonl", 1), ("c0001.parquet", 1), ("trials.jsonl", 3), ("seal.json", 1), ("calibration.parquet", 1), ("certificate.json", 1)],
]  # fmt: skip
"""Where one process after the other dies. Each ends the trial or stage that the last one died in, so none hides another's fault."""


@pytest.mark.parametrize("kills", KILLS)
def test_killed_at_any_write(
    base: Base, finished: tuple[Path, dict[str, Any]], tmp_path: Path, kills: list[tuple[str, int]]
) -> None:
    """Dying just before a file appears: the same call goes on, no finished trial runs twice, same certificate."""
    out, over = tmp_path / "run", set[int]()
    for number, (file, which) in enumerate(kills):
        watch = Watch()
        with _dying_at(file, which):
            run(job(base), out, watch)
        assert not over & {trial for trial, _ in watch.started}
        over = {line.trial for line in Folder(out).log() if line.status in ("complete", "pruned")}
        if (out / "study.db").exists() and number % 2:
            (out / "study.db").write_bytes(b"not a database")
    watch = Watch()
    run(job(base), out, watch)
    assert (len(over), watch.started) == (5, [])
    assert (out / "certificate.json").read_bytes() == (finished[0] / "certificate.json").read_bytes()


def test_another_plan_is_refused_and_nothing_written_over(base: Base, finished: tuple[Path, dict[str, Any]]) -> None:
    before = {path: path.read_bytes() for path in finished[0].rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"made by another plan \(search.seed differs\)"):
        run(job(base, seed=1), finished[0], Watch())
    with pytest.raises(InputError, match="made by another plan"):
        run(job(base, budget={FORGETTING: 0.4, UTILITY: 0.3}), finished[0], Watch())
    assert before == {path: path.read_bytes() for path in finished[0].rglob("*") if path.is_file()}


def test_a_folder_of_something_else_is_refused(base: Base, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="holds files but no plan"):
        run(job(base), tmp_path, Watch())


def test_a_held_folder_names_its_holder(base: Base, tmp_path: Path) -> None:
    held = Folder(tmp_path / "run")
    held.hold()
    try:
        with pytest.raises(InputError, match=f"held by process {os.getpid()}"):
            Folder(tmp_path / "run").hold()
    finally:
        held.release()


def test_openings_are_counted(base: Base, tmp_path: Path) -> None:
    """Same queries, another search: refused; planned before, granted at delta / K; --reopen says so everywhere."""
    overrides: dict[str, Any] = {"trials": 1, "candidates": 1, "sweep": False}
    first = run(job(base, questions=7, **overrides), tmp_path / "a", Watch())
    assert first["opening"]["statement"].startswith("first and only")
    with pytest.raises(InputError, match="--reopen"):
        run(job(base, questions=7, seed=5, **overrides), tmp_path / "b", Watch())
    second = run(job(base, questions=7, seed=5, reopen=True, **overrides), tmp_path / "b", Watch())
    assert second["opening"]["number"] == 2
    assert "jointly 0.8, not 0.9" in second["opening"]["statement"]
    planned = run(job(base, questions=8, openings=2, **overrides), tmp_path / "c", Watch())
    assert planned["level"] == pytest.approx(0.05)
    again = run(job(base, questions=8, openings=2, seed=1, **overrides), tmp_path / "d", Watch())
    assert again["opening"]["number"] == 2
    with pytest.raises(InputError, match="2 planned"):
        run(job(base, questions=8, openings=2, seed=2, **overrides), tmp_path / "e", Watch())


def test_an_opening_written_down_is_not_forgotten_when_the_count_is_damaged(base: Base, tmp_path: Path) -> None:
    sealed = job(base, questions=9).sealed
    opening_ledger.record(sealed.counted, "plan", "seal", 1, reopen=False)
    for path in (tmp_path / "state" / "openings" / "looks").iterdir():
        path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="none is granted"):
        run(job(base, questions=9), tmp_path / "run", Watch())


def test_too_few_queries_are_refused_before_training(base: Base, tmp_path: Path) -> None:
    watch = Watch()
    with pytest.raises(InputError, match=r"can never certify budget forgetting=0.001.* are needed"):
        run(job(base, budget={FORGETTING: 0.001, UTILITY: 0.3}), tmp_path / "run", watch)
    assert watch.started == []
    assert not (tmp_path / "run").exists()


def test_failing_trials_are_recorded_and_the_search_goes_on(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN, out of memory and an exception: each a status with a reason, none of which quotes a row."""
    import froc.search.trial.runner as module

    real, count = train_pack, 0

    def unlucky(base: Base, runs: Any, engine: Any, *_: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            runs[0].error = "the training loss is not finite"
            return
        if count == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if count == 3:
            raise RuntimeError("the row 'secret text' broke it")
        real(base, runs, engine)

    monkeypatch.setattr(module, "train_pack", unlucky)
    run(job(base, questions=3, epochs=(1, 2)), tmp_path / "run", Watch())
    log = Folder(tmp_path / "run").log()
    assert [line.status for line in log[:3]] == ["diverged", "out-of-memory", "failed"]
    assert all(line.reason for line in log[:3])
    assert "secret" not in (tmp_path / "run" / "trials.jsonl").read_text()
    assert log[2].reason is not None
    assert "RuntimeError" in log[2].reason


def test_nothing_certified_says_what_it_would_take(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # else so strict a budget leaves the calibration queries sealed
    monkeypatch.setattr("froc.search.sealed.ranking.IMPLAUSIBLE", 0.0)
    strict = {FORGETTING: 0.05, UTILITY: 0.05}
    job_ = job(base, questions=4, budget=strict, trials=2, candidates=2)
    space = build(["npo"], {"lr": (2e-3, 3e-3), "epochs": (2, 2)}, {})
    certificate = run(replace(job_, space=space), tmp_path / "run", Watch())
    assert certificate["chosen"] is None
    assert not (tmp_path / "run" / "model").exists()
    assert "it would take" in certificate["reason"]
    needs = certificate["closest"]["needs"]
    assert needs["budget"] is not None
    assert needs["budget"] > 0.05


def test_a_full_disk_is_said_and_survived(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import froc.search.trial.work as module

    made = job(base, questions=11, trials=2)
    for error in (
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OperationalError("INSERT", {}, Exception("database or disk is full")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_weights", Mock(side_effect=error))
            with pytest.raises(InputError, match=r"disk of .* is full"):
                run(made, tmp_path / "run", Watch())
    assert run(made, tmp_path / "run", Watch())["n"]


@pytest.mark.parametrize("metric", ["exact_memorization", "probability", "rouge_l"])
def test_every_metric_runs_to_a_certificate(base: Base, tmp_path: Path, metric: str) -> None:
    overrides: dict[str, Any] = {
        "metrics": dict.fromkeys(BUDGET, metric),
        "trials": 2,
        "questions": 20,
        "bound": "hoeffding_bentkus",
    }
    made = job(base, **overrides)
    certificate = run(made, tmp_path / "run", Watch())
    assert certificate["n"] == made.sealed.units
    table = pl.read_parquet(tmp_path / "run" / "losses" / "calibration.parquet")
    assert set(table["metric"]) == {metric}
    assert certificate["candidates"]


@pytest.mark.parametrize("sampler", ["nsga2", "random"])
def test_every_sampler_goes_on_where_it_was_stopped(base: Base, tmp_path: Path, sampler: str) -> None:
    """As tpe does after Ctrl-C, above."""
    made = job(base, sampler=sampler, epochs=(1, 2))
    whole = run(made, tmp_path / "whole", Watch())
    with pytest.raises(InterruptedRunError):
        run(made, tmp_path / "part", Watch(stop_at=5))
    assert run(made, tmp_path / "part", Watch()) == whole


def test_a_bound_for_binary_losses_is_refused_for_others(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 0-1 losses"):
        run(job(base, bound="binomial"), tmp_path / "run", Watch())
