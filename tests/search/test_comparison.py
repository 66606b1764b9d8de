"""A comparison from runs to a document: shares found on search queries, points sealed, numbers from calibration queries."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from froc.audit import comparisons, documents
from froc.comparison.document import BASE, BEFORE
from froc.data import ledger_files
from froc.data.task import FORGETTING, RISKS, UTILITY
from froc.errors import InputError
from froc.models import base as models
from froc.models.base import Base
from froc.search.comparison.mixing import MixedModel
from froc.search.comparison.run import run
from froc.search.comparison.terms import ComparedConfig, ComparedRun, Terms, entries
from froc.search.job import runner_of
from froc.search.pipeline import run as searched
from froc.search.run_folder import Folder
from froc.search.trial.outcome import TrialSpec
from tests.commands import Commands
from tests.search.small_search import Watch
from tests.search.test_named_risks import BUDGET, job

TERMS = Terms(levels=(0.95, 0.7), tries=2)


@pytest.fixture(scope="module")
def side(base: Base, tmp_path_factory: pytest.TempPathFactory) -> ComparedRun:
    out = tmp_path_factory.mktemp("compared") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(out.parent / "state"))
        searched(job(base, BUDGET, trials=4, methods=("grad_ascent", "npo", "grad_diff")), out, Watch())
    plan = json.loads((out / "plan.json").read_text())
    # the embedded task's questions are drawn afresh for a comparison
    return ComparedRun("run", Folder(out), plan, job(base, BUDGET, questions=7, sweep=False))


@pytest.fixture(scope="module")
def compared(side: ComparedRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("comparison") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(out.parent / "state"))
        return out, run([side], TERMS, out, lambda *_: None)


def _mixes(side: ComparedRun, method: str) -> tuple[ComparedConfig, MixedModel]:
    entry = next(listed for listed in entries([side], TERMS) if listed.method == method)
    bench = runner_of(side.job)
    line = entry.record
    bench.retrain(TrialSpec(line.method, line.params, line.seed), entry.stop)
    return entry, MixedModel(entry, bench, bench.base.trainable.snapshot())


def test_shares_zero_and_one_are_the_two_models_bit_by_bit(side: ComparedRun) -> None:
    bench = runner_of(side.job)
    scope = bench.base.trainable
    before = scope.snapshot()
    line = entries([side], TERMS)[0].record
    bench.retrain(TrialSpec(line.method, line.params, line.seed))
    after = scope.snapshot()
    scope.load(after, 0.0)
    assert all(torch.equal(p, before[name]) for name, p in scope.parameters().items())
    scope.load(after, 1.0)
    assert all(torch.equal(p, after[name]) for name, p in scope.parameters().items())
    bench.base.restore()


def test_the_share_is_the_largest_that_keeps_what_was_asked(side: ComparedRun) -> None:
    _, mixes = _mixes(side, "grad_ascent")
    strict, loose = mixes.keeping(0.95), mixes.keeping(0.7)
    assert strict.kept >= 0.95
    assert loose.kept >= 0.7
    assert strict.mix < loose.mix <= 1.0
    # a thousandth further it is lost, unless the model as trained keeps it
    assert loose.mix == 1.0 or mixes.at(loose.mix + 2**-10).kept < 0.7
    assert mixes.keeping(1e-9).mix == 1.0


def test_what_is_left_falls_and_what_is_lost_grows_with_the_share(side: ComparedRun) -> None:
    _, mixes = _mixes(side, "grad_ascent")
    points = [mixes.at(share) for share in np.linspace(0, 1, 11)]
    left, lost = ([point.means[risk] for point in points] for risk in RISKS)
    assert left[0] > 0.9
    assert lost[0] == 0.0
    assert (np.diff(left) <= 0.03).all()
    assert (np.diff(lost) >= -0.03).all()
    assert left[-1] < left[0]


def test_every_point_was_sealed_before_it_was_measured(compared: tuple[Path, dict[str, Any]]) -> None:
    out, document = compared
    seal = json.loads((out / "seal.json").read_text())
    listed = [candidate["config"] for candidate in seal["candidates"]]
    table = pl.read_parquet(out / "losses" / "calibration.parquet")
    assert listed[0] == BASE
    assert set(table["config"]) == set(listed)
    assert (out / "seal.json").stat().st_mtime_ns < (out / "losses" / "calibration.parquet").stat().st_mtime_ns
    assert set(document["stages"]) == {BEFORE, "0.95", "0.7"}
    named = {place["point"] for places in document["stages"].values() for place in places.values()}
    assert named <= set(listed)
    assert not (out / "weights").exists()


def test_queries_that_chose_are_not_those_that_measure(
    side: ComparedRun, compared: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = compared
    table = pl.read_parquet(out / "losses" / "calibration.parquet")
    seen = {query.id for risk in RISKS for query in side.job.view.queries[risk]}
    assert not seen & set(table["query"])


def test_an_auditor_reads_it_and_comes_to_the_same(side: ComparedRun, compared: tuple[Path, dict[str, Any]]) -> None:
    out, document = compared
    plan = documents.Plan.model_validate(json.loads((side.folder.plan).read_text()))
    # as a bundle about the run holds them
    files = comparisons.files(out) | {"plan.json": side.folder.plan.read_bytes()}
    theirs = comparisons.read(files, plan).document()
    assert json.dumps(theirs, sort_keys=True) == json.dumps(document, sort_keys=True)


def test_the_base_forgets_nothing_and_loses_nothing(compared: tuple[Path, dict[str, Any]]) -> None:
    _, document = compared
    assert document["base"][UTILITY] == 0.0
    assert document["base"][FORGETTING] > 0.9


def test_the_same_command_again_computes_nothing_and_says_the_same(
    side: ComparedRun, compared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, document = compared
    monkeypatch.setenv("FROC_STATE", str(out.parent / "state"))
    stages: list[str] = []
    assert run([side], TERMS, out, lambda stage, *_: stages.append(stage)) == document
    assert stages == []


def test_a_second_look_at_the_same_queries_must_be_asked_for(
    side: ComparedRun, compared: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROC_STATE", str(compared[0].parent / "state"))
    with pytest.raises(InputError, match="--reopen"):
        run([side], replace(TERMS, levels=(0.8,)), tmp_path / "other", lambda *_: None)
    assert len(list((ledger_files.state_folder() / "openings" / "looks").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"methods": ("npo",)}, "two methods"), ({"methods": ("npo", "rmu")}, "no finished trial of rmu"),
     ({"levels": (1.2,)}, "outside"), ({"levels": (0.9, 0.9)}, "once"), ({"tries": 0}, "from 1")],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_at_once(
    side: ComparedRun, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run([side], replace(TERMS, **changed), tmp_path / "out", lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_two_runs_are_compared_under_their_own_names(side: ComparedRun) -> None:
    second = replace(side, name="again")
    entries_of_two = entries([side, second], Terms(tries=1))
    assert {entry.method for entry in entries_of_two} == {"npo", "grad_ascent", "grad_diff"}
    assert all(entry.name.startswith(("run/", "again/")) for entry in entries_of_two)


def test_the_command_refuses_what_is_no_run(commands: Commands, tmp_path: Path) -> None:
    done = commands.run(["compare", str(tmp_path)])
    assert done.returncode == 2
    assert "is no run folder" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_quantised_base_model_is_refused_with_the_reason(base: Base, tmp_path: Path) -> None:
    models.save(base, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(InputError, match=r"is quantised \(gptq\).*neither trained in small steps nor mixed"):
        models.load(str(tmp_path / "model"), device="cpu")


def test_mixing_an_adapter_is_mixing_the_merged_model(base: Base, tmp_path: Path) -> None:
    models.save(base, tmp_path / "model")
    adapted = models.load(str(tmp_path / "model"), device="cpu", train="lora:rank=4")
    with torch.no_grad():
        for name, parameter in adapted.trainable.parameters().items():
            if name.endswith("lora_B"):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    whole, learnt = adapted.trainable.merged_state_dict(), adapted.trainable.snapshot()
    adapted.trainable.load(learnt, 0.3)
    mixed = adapted.trainable.merged_state_dict()
    plain = dict(base.model.state_dict())
    assert whole is not None
    assert mixed is not None
    assert any(not torch.equal(whole[name], plain[name]) for name in plain)
    for name, value in plain.items():
        torch.testing.assert_close(mixed[name], torch.lerp(value, whole[name], 0.3), rtol=0, atol=1e-6)
