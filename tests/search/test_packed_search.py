"""Packs through whole searches, to a report and a plain model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from froc.audit import bundle as evidence
from froc.audit import bundle_files, keys
from froc.data.task import FORGETTING
from froc.errors import InputError, InterruptedRunError
from froc.measuring.query_losses import losses, probes
from froc.models.base import Base, load, save, wrap
from froc.search.job import Job
from froc.search.optuna.space import build
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.settings import Settings, measures
from tests.search.small_search import BUDGET, Watch, job


@pytest.fixture(scope="module")
def packed(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    place = tmp_path_factory.mktemp("model")
    base.restore()
    save(base, place)
    return load(str(place), device="cpu", train="lora:rank=4", n_adapters=3)


def _packed(packed: Base) -> Job:
    overrides: dict[str, Any] = {"train": "lora:rank=4", "pack": 3, "trials": 6, "budget": dict.fromkeys(BUDGET, 0.6)}
    made = job(packed, questions=11, **overrides)
    return replace(made, space=build(("npo", "grad_diff"), {"lr": (3e-3, 3e-2), "epochs": (3, 9)}, {}))


@pytest.fixture(scope="module")
def whole(packed: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose trials were trained in packs."""
    place = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        run(_packed(packed), place / "run", Watch())
    return place / "run"


def test_a_packed_search_runs_to_a_report_and_a_plain_model(packed: Base, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    certificate = json.loads((out / "certificate.json").read_text())
    log = Folder(out).log()
    assert {line.status for line in log} <= {"complete", "pruned"}
    assert certificate["chosen"]
    rows = [row for row in certificate["candidates"] if row["config"] == certificate["chosen"]]
    model: Any = AutoModelForCausalLM.from_pretrained(out / "model")
    assert not any("lora" in name for name, _ in model.named_parameters())
    loaded = wrap("loaded", model, AutoTokenizer.from_pretrained(out / "model"))
    made = _packed(packed)
    queries = made.sealed.open(json.loads((out / "seal.json").read_text()))
    (probe,) = probes(loaded, {FORGETTING: queries[FORGETTING]}, measures(made.settings), made.view)
    mean = losses(loaded, probe).mean() / 1000
    assert abs(mean - rows[0]["empirical"][FORGETTING]) < 0.01
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    trials = bundle_files.read_trials((bundle / "trials.jsonl").read_bytes())
    assert any(trial.variants for trial in trials) == any(line.variants for line in log)


def test_a_pack_that_was_stopped_goes_on_to_the_same_certificate(packed: Base, whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    with pytest.raises(InterruptedRunError):
        run(_packed(packed), cut, Watch(stop_at=5))
    assert run(_packed(packed), cut, Watch()) == json.loads((whole / "certificate.json").read_text())
    lines = [line for line in Folder(cut).log() if line.status != "interrupted"]
    assert [line.trial for line in lines] == list(range(6))
    assert pl.read_parquet(whole / "losses" / "search.parquet").equals(
        pl.read_parquet(cut / "losses" / "search.parquet")
    )


def test_settings_of_the_engine_are_checked() -> None:
    with pytest.raises(InputError, match="pack 0"):
        Settings(BUDGET, pack=0).check()
