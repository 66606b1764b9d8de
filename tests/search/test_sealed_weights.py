"""What is measured, sealed, saved and certified is one set of weights, by one digest."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from froc import hashing
from froc.configuration_id import ConfigurationId
from froc.data.task import FORGETTING, UTILITY
from froc.errors import InputError
from froc.models import inference_files, weights_digest
from froc.models.base import Base, load, save
from froc.risk.claim import Candidate
from froc.search import stages
from froc.search.external_model import ExternalModel
from froc.search.job import Job, runner_of
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.sealed.weights import files_beside, refuse_base, refuse_retrained
from froc.search.trial.outcome import TrialSpec
from tests.models.test_architecture import adapt
from tests.search.small_search import BUDGET, Killed, Watch, job


@pytest.fixture(scope="module")
def home(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as a folder."""
    place = tmp_path_factory.mktemp("home") / "model"
    base.restore()
    save(base, place)
    return place


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and the openings that it counted; who changes it takes a copy."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        run(job(load(str(home), device="cpu")), place / "run", Watch())
    return place


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "adapters": (
        {"train": "lora:rank=4"},
        {"train": "lora:rank=4", "budget": dict.fromkeys(BUDGET, 0.9), "epochs": (8, 12)},
    ),
    "bfloat16": ({"dtype": "bfloat16"}, {"budget": dict.fromkeys(BUDGET, 0.9)}),
}
"""How the base model is loaded, and what the search is told."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_sealed_digest_is_that_of_the_model_that_is_written(
    home: Path, finished: Path, tmp_path: Path, kind: str
) -> None:
    loaded, settings = KINDS[kind]
    base, out = load(str(home), device="cpu", **loaded), finished / "run"
    if kind != "full":
        out = tmp_path / "run"
        run(job(base, **settings), out, Watch())
    certificate = json.loads((out / "certificate.json").read_text())
    seal = json.loads((out / "seal.json").read_text())
    sealed = {row["config"]: row["weights_digest"] for row in seal["candidates"]}
    assert {row["config"]: row["weights_digest"] for row in certificate["candidates"]} == sealed
    assert len(set(sealed.values())) == len(sealed)
    assert certificate["chosen"] is not None
    assert weights_digest.of_folder(out / "model") == sealed[certificate["chosen"]]
    assert seal["base_weights_digest"] == base.digest
    if kind == "full":
        assert base.digest == weights_digest.of_folder(home)


def test_trained_again_with_its_seed_a_candidate_has_its_sealed_digest(
    home: Path, finished: Path, tmp_path: Path
) -> None:
    base, out = load(str(home), device="cpu"), finished / "run"
    made = job(base)
    lines = {line.config: line for line in Folder(out).log()}
    bench = runner_of(made)
    for row in json.loads((out / "seal.json").read_text())["candidates"]:
        line = lines[str(ConfigurationId.parse(row["config"]).of_trial)]
        spec = TrialSpec(line.method, line.params, line.seed)
        bench.retrain(spec, row["params"].get("stop"), row["params"].get("mix", 1.0))
        save(base, tmp_path / row["config"])
        assert weights_digest.of_folder(tmp_path / row["config"]) == row["weights_digest"]


def test_a_lost_model_is_written_again_or_not_at_all(
    home: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights, or a word about it: nothing else may stand under the certificate."""
    out = Path(shutil.copytree(finished, tmp_path, dirs_exist_ok=True)) / "run"
    made = job(load(str(home), device="cpu"))
    certificate = json.loads((out / "certificate.json").read_text())
    before = weights_digest.of_folder(out / "model")
    shutil.rmtree(out / "model")
    assert run(made, out, Watch()) == certificate
    assert weights_digest.of_folder(out / "model") == before
    shutil.rmtree(out / "model")
    # a machine that rounds otherwise
    monkeypatch.setattr(stages, "TrialSpec", lambda method, params, seed: TrialSpec(method, params, seed + 1))
    with pytest.raises(InputError, match="made once more, and its weights are not those that were sealed"):
        run(made, out, Watch())
    assert not (out / "model").exists()


def test_weights_that_are_changed_between_seal_and_end_are_not_saved(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = load(str(home), device="cpu"), tmp_path / "run"
    made, measure = job(base, trials=5), vars(stages)["measure"]

    def stopped(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages, "measure", stopped)
        with pytest.raises(Killed):
            run(made, out, Watch())
    assert vars(stages)["measure"] is measure
    assert (out / "seal.json").is_file()
    for path in (out / "weights").glob("*.safetensors"):
        save_file({name: value + 1e-6 for name, value in load_file(path).items()}, path)
    with pytest.raises(InputError, match="to be saved are not those that were sealed"):
        run(made, out, Watch())
    assert not (out / "model").exists()
    assert not (out / "certificate.json").exists()


def test_seals_without_weights_are_held_against_none(base: Base) -> None:
    """Older ones: nothing is computed."""
    refuse_retrained(base, [Candidate("c0000", "npo", {}, 1.0)], {}, None)


def external_job(base: Base, folder: Path) -> Job:
    made = job(base, budget={FORGETTING: 0.9, UTILITY: 0.9}, trials=1, candidates=1, reopen=True)
    return replace(made, space={}, external=ExternalModel(folder))


def noisy(home: Path, place: Path, scale: float = 0.15) -> Path:
    """Another model of the same shape."""
    shutil.copytree(home, place)
    torch.manual_seed(2)
    path = place / "model.safetensors"
    known = load_file(path)
    changed = {
        name: value + scale * value.std() * torch.randn_like(value) if value.dim() > 1 else value
        for name, value in known.items()
    }
    save_file(changed, path, metadata={"format": "pt"})
    return place


def test_a_model_from_elsewhere_is_sealed_by_its_own_files(base: Base, finished: Path, tmp_path: Path) -> None:
    folder, out = finished / "run" / "model", tmp_path / "run"
    certificate = run(external_job(base, folder), out, Watch())
    wanted = weights_digest.of_folder(folder)
    assert json.loads((out / "seal.json").read_text())["candidates"][0]["weights_digest"] == wanted
    assert certificate["chosen"] == "c0000"
    assert weights_digest.of_folder(out / "model") == wanted


def test_the_files_of_a_whole_model_from_elsewhere_are_sealed_as_they_lie_there(
    base: Base, home: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(home, tmp_path / "given"))
    (folder / "README.md").write_text("not written by froc")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "left.out").write_text("no file of a model")
    sealed = files_beside(base, ExternalModel(folder))
    assert {"config.json", "tokenizer.json", "README.md"} <= sealed.keys()
    assert sealed == {
        path.name: hashing.sha256_bytes(path.read_bytes())
        for path in folder.iterdir()
        if path.name not in ("model.safetensors", "model.safetensors.index.json", "left.out")
    }
    assert files_beside(base, None) == inference_files.digests(base)
    # an adapter is merged, and what is written beside it is the base model's
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    assert files_beside(base, ExternalModel(folder)) == inference_files.digests(base)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own business with transformers
def test_an_adapter_from_elsewhere_is_written_merged(base: Base, home: Path, tmp_path: Path) -> None:
    adapt(load(str(home), device="cpu"), tmp_path / "adapter", names=str(home))
    path, out = tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "run"
    # so small a change leaves something
    save_file({name: 0.75 * value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    certificate = run(external_job(base, tmp_path / "adapter"), out, Watch())
    sealed = json.loads((out / "seal.json").read_text())["candidates"][0]["weights_digest"]
    assert sealed != weights_digest.of_folder(home)
    assert certificate["chosen"] == "c0000"
    assert not list((out / "model").glob("adapter*"))
    assert weights_digest.of_folder(out / "model") == sealed
    assert load(str(out / "model"), device="cpu").digest == sealed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_base_model_itself_is_never_kept_as_the_chosen_one(
    base: Base, home: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    """In another precision neither, in which its files have another digest."""
    folder = Path(shutil.copytree(home, tmp_path / "given"))
    path = folder / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    made, out = external_job(base, folder), tmp_path / "run"
    run(made, out, Watch())
    candidate = json.loads((out / "certificate.json").read_text())["candidates"][0]
    assert not candidate["certified"]
    # whatever was certified, as if by chance
    with pytest.raises(InputError, match="is the base model itself"):
        refuse_base(loaded_as_base(base, folder), base.digest, ExternalModel(folder))


def loaded_as_base(base: Base, folder: Path) -> Base:
    base.trainable.load(ExternalModel(folder).weights(base))
    return base


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            lambda known: known.pop("model.norm.weight"),
            "lacks model.norm.weight, which the model of its config.json has",
        ),
        (
            lambda known: known.update(more=torch.zeros(2)),
            "holds more, which no part of the model of its config.json is",
        ),
    ],
)
def test_tensors_that_are_missing_or_too_many_are_refused_before_anything_is_measured(
    base: Base, home: Path, tmp_path: Path, change: Any, word: str
) -> None:
    folder = noisy(home, tmp_path / "given")
    known = load_file(folder / "model.safetensors")
    change(known)
    save_file(known, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=word):
        run(external_job(base, folder), tmp_path / "run", Watch())
