"""Losses, weights and report are about one object: another model in the chosen one's place, by the key's owner or by mistake."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from froc import hashing
from froc.audit import model_folder, reexecution
from froc.data.task import Task
from froc.models import weights_digest
from tests.audit.cases.models import reseal
from tests.audit.conftest import Made
from tests.commands import Commands
from tests.task_folder import write_rows

Froc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def froc(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Froc:
    state = {"FROC_STATE": str(tmp_path_factory.mktemp("openings"))}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return commands.run([str(word) for word in words], os.environ | state)

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, froc: Froc, base: Any, task: Task) -> Path:
    """A task, its base model, a finished run whose plan the owner signed, and its bundle."""
    folder = tmp_path_factory.mktemp("owner")
    (folder / "task").mkdir()
    (folder / "task" / "task.toml").write_text(f"template = {json.dumps(task.template)}\n")
    parts = {"forget": task.forget, "retain": task.retain, "forget_queries": task.queries["forgetting"]}
    for name, rows in (parts | {"retain_queries": task.queries["utility"]}).items():
        write_rows(folder / "task" / f"{name}.jsonl", rows)
    base.restore()
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    for name in ("owner", "auditor"):
        assert froc("audit", "keygen", folder / name).returncode == 0
    done = froc(
        "search", "-b", "0.3", "--task", folder / "task", "--model", folder / "base", "--trials", "3", "--methods", "npo,grad_diff",
        "--candidates", "2", "--batch", 16, "--space", "lr=2e-3:8e-3", "--space", "epochs=2:4", "-o", folder / "run", "--key",
        folder / "owner",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = froc("audit", "report", folder / "run", "--key", folder / "owner", "--out", folder, "--name", "honest")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def made(place: Path, tmp_path: Path) -> Made:
    """A copy of bundle and model."""
    bundle = Path(shutil.copytree(place / "honest.froc-audit", tmp_path / "copy.froc-audit"))
    shutil.copytree(place / "run", tmp_path / "run")
    return Made(bundle, tmp_path / "run", place / "owner")


def sign_model(made: Made, sealed: bool) -> None:
    """The owner signs what lies in the model folder now. sealed: and says that it was this that was sealed and measured."""
    assert made.model is not None
    files = hashing.sha256_files(made.model)
    made.restate(lambda body: body.update(subject=[{"name": n, "digest": {"sha256": d}} for n, d in files.items()]))
    tree = {"alg": "dirHash-sha256", "value": hashing.sha256_tree(files)}
    made.resign(lambda report: report["model"].update(files=len(files), treeDigest=tree))
    if sealed:
        config = made.read()["predicate"]["config"]
        reseal(made, **{config: weights_digest.of_folder(made.model)})


def change(folder: Path, by: float) -> None:
    """Every number of a model a little larger."""
    path = folder / "model.safetensors"
    save_file({name: value * (1 + by) for name, value in load_file(path).items()}, path, metadata={"format": "pt"})


def put_base(place: Path, made: Made) -> None:
    """The base model's weights in the chosen ones' place."""
    assert made.model is not None
    shutil.copy(place / "base" / "model.safetensors", made.model / "model.safetensors")


def verify(froc: Froc, place: Path, made: Made, *more: object) -> subprocess.CompletedProcess[str]:
    keys = ["--key", place / "owner.pub", "--key", place / "auditor.pub"]
    return froc("audit", "verify", made.bundle, *keys, *more)


def again(froc: Froc, place: Path, made: Made, *more: object) -> subprocess.CompletedProcess[str]:
    return froc(
        "audit", "reexecute", made.bundle, "--key", place / "auditor", "--signed-by", place / "owner.pub", "--rows", 124, "--seed", 7,
        "--task", place / "task", "--base", place / "base", *more,
    )  # fmt: skip


LEVELS = ("--level", 1, "--level", 2, "--level", 3, "--level", 5)


def test_an_honest_report_reaches_all_levels(froc: Froc, place: Path, made: Made) -> None:
    done = again(froc, place, made, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["model"]
    assert (model["how"], model["rows"]) == ("same-weights", 0)
    assert model["digest"] == weights_digest.of_folder(made.run / "model")
    done = verify(froc, place, made, "--model", made.model, *LEVELS)
    assert done.returncode == 0, done.stderr
    assert "has the sealed weights, to the bit" in done.stdout
    assert "and not what the plan calls the base model's" in " ".join(done.stdout.split())


def test_the_base_models_weights_are_refused_wherever_they_are_met(froc: Froc, place: Path, made: Made) -> None:
    """By the report of an honest user, and where the owner signs them all the same: verified, measured again, at any level."""
    put_base(place, made)
    done = froc("audit", "report", made.run, "--key", place / "owner", "--out", made.run, "--name", "other")
    assert done.returncode == 2
    assert "model-is-base" in done.stderr
    assert str(made.model) in done.stderr
    assert not list(made.run.glob("*.froc-audit"))
    sign_model(made, sealed=False)
    for level in ((), *(LEVELS[i : i + 2] for i in range(0, 8, 2))):
        done = verify(froc, place, made, "--model", made.model, *level)
        assert done.returncode == 4
        assert "model-is-base" in done.stderr
    assert again(froc, place, made, "--model", made.model).returncode == 4
    sign_model(made, sealed=True)
    for more in ((), ("--model", made.model)):
        done = verify(froc, place, made, *more)
        assert done.returncode == 4
        assert "sealed-is-base" in done.stderr
        assert again(froc, place, made, *more).returncode == 4


def test_an_edited_model_is_refused_with_the_cause(froc: Froc, place: Path, made: Made) -> None:
    assert made.model is not None
    change(made.model, 1e-3)
    done = froc("audit", "report", made.run, "--key", place / "owner", "--out", made.run, "--name", "other")
    assert done.returncode == 2
    assert "are not those of" in done.stderr
    assert "that were sealed and measured" in done.stderr
    assert "\n" not in done.stderr.strip()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("config.json", '"hidden_act": "silu"', '"hidden_act": "gelu"'), ("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1.0'),
     ("tokenizer.json", '"version": "1.0"', '"version": "1.1"'), ("generation_config.json", "{", '{"suppress_tokens": [3],')],
)  # fmt: skip
def test_what_stands_beside_the_weights_decides_what_they_do(
    froc: Froc, place: Path, made: Made, name: str, old: str, new: str
) -> None:
    """The same tensors under another configuration or tokenizer are another model: for an honest user, and for the key's owner."""
    assert made.model is not None
    text = (made.model / name).read_text()
    assert old in text
    (made.model / name).write_text(text.replace(old, new, 1))
    done = froc("audit", "report", made.run, "--key", place / "owner", "--out", made.run, "--name", "other")
    assert done.returncode == 2
    assert f"model-files-differ: {name}" in done.stderr
    sign_model(made, sealed=False)
    done = verify(froc, place, made)
    assert done.returncode == 4
    assert f"model-files-differ: {name}" in done.stderr


@pytest.mark.parametrize("way", ["--model", "--unlearned"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("config.json", {"rms_norm_eps": 1.0}), ("generation_config.json", {"bad_words_ids": [[3]]}), ("tokenizer.json", {"normalizer": {"type": "Lowercase"}})],
)  # fmt: skip
def test_another_file_beside_the_weights_sealed_by_its_owner_is_found_out_by_measuring_again(
    froc: Froc, place: Path, made: Made, way: str, name: str, words: dict[str, Any]
) -> None:
    assert made.model is not None
    (made.model / name).write_text(json.dumps(json.loads((made.model / name).read_text()) | words))
    sign_model(made, sealed=True)
    assert verify(froc, place, made, "--model", made.model).returncode == 0
    done = again(froc, place, made, way, made.model)
    assert done.returncode == 4, done.stdout
    assert f"model-files-differ: {name}" in done.stderr
    assert not (made.bundle / reexecution.NAME).exists()


def test_nearly_the_base_model_sealed_by_its_owner_is_found_out_by_measuring_it(
    froc: Froc, place: Path, made: Made
) -> None:
    """No digest says so: the owner has written another seal. Training again comes to other bits, so the model itself is asked."""
    assert made.model is not None
    put_base(place, made)
    change(made.model, 1e-6)
    sign_model(made, sealed=True)
    done = verify(froc, place, made, "--model", made.model, "--level", 2)
    assert done.returncode == 0, done.stderr
    without = Made(Path(shutil.copytree(made.bundle, made.bundle.with_name("x.froc-audit"))), made.run, made.key)
    done = again(froc, place, without, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["how"] == "not-compared"
    done = verify(froc, place, without, "--level", 5)
    assert done.returncode == 3
    assert "does not reach L5" in done.stderr
    assert "was not compared" in done.stderr
    done = again(froc, place, made, "--model", made.model, "--json")
    assert done.returncode == 3, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["differed"], printed["model"]["how"], printed["model"]["rows"]) == (
        0,
        "measured",
        2 * 124,
    )
    assert printed["model"]["differed"] > 0
    assert printed["assurance"] == "self_attested"
    done = verify(froc, place, made, "--model", made.model, *LEVELS)
    assert done.returncode == 3
    assert "were not found again" in done.stderr


def test_a_model_of_other_bits_and_the_same_losses_is_measured_and_stands(froc: Froc, place: Path, made: Made) -> None:
    """As of another machine, which rounds otherwise."""
    assert made.model is not None
    change(made.model, 1e-7)
    sign_model(made, sealed=True)
    done = again(froc, place, made, "--model", made.model)
    assert done.returncode == 0, done.stderr
    assert "the signed model measured itself, since training again came to other bits: " in done.stdout
    done = verify(froc, place, made, "--model", made.model, *LEVELS)
    assert done.returncode == 0, done.stderr


def test_another_seal_of_the_base_model_is_refused_before_anything_is_measured(
    froc: Froc, place: Path, made: Made
) -> None:
    reseal(made, base="c" * 64)
    assert verify(froc, place, made).returncode == 0
    done = again(froc, place, made)
    assert done.returncode == 2
    assert "names other weights as the base model's" in done.stderr
    assert not (made.bundle / reexecution.NAME).exists()


def test_a_model_measured_alone_is_not_asked_for_twice(froc: Froc, place: Path, made: Made) -> None:
    done = again(froc, place, made, "--model", made.model, "--unlearned", made.model)
    assert done.returncode == 2
    assert "leave --model out" in done.stderr


def test_an_open_folder_from_elsewhere_is_refused_before_anything_is_measured(
    froc: Froc, place: Path, made: Made, tmp_path: Path
) -> None:
    assert made.model is not None
    words = ["audit", "model", "-b", "0.3", "--base", place / "base", "--task", place / "task", "-o", tmp_path / "out"]
    shutil.copy(made.model / "model.safetensors", made.model / "more.safetensors")
    done = froc(*words, "--unlearned", made.model)
    assert done.returncode == 2
    assert "more.safetensors is no model.safetensors" in done.stderr
    (made.model / "more.safetensors").unlink()
    (made.model / "config.json").write_text('{"auto_map": {"AutoConfig": "code.Config"}}')
    done = froc(*words, "--unlearned", made.model)
    assert done.returncode == 2
    assert "says auto_map" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_from_elsewhere_that_would_act_otherwise_is_refused_before_anything_is_measured(
    froc: Froc, place: Path, made: Made, tmp_path: Path
) -> None:
    assert made.model is not None
    path = made.model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.5}))
    done = froc("audit", "model", "-b", "0.3", "--base", place / "base", "--task", place / "task", "-o", tmp_path / "out",
                "--unlearned", made.model)  # fmt: skip
    assert done.returncode == 2
    assert "config.json is not what the base model has there" in done.stderr
    assert "put the base model's file in its place" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_way_to_a_hub_and_back(froc: Froc, place: Path, made: Made) -> None:
    """As the hub's client leaves a folder, and as its cache does: links into a folder of blobs."""
    assert made.model is not None
    for name in ("README.md", ".gitattributes", "LICENSE"):
        (made.model / name).write_text("of the hub")
    cache = made.model / model_folder.HUB_CACHE / "download"
    cache.mkdir(parents=True)
    (cache / "model.safetensors.metadata").write_text("3f2a91c\n")
    done = verify(froc, place, made, "--model", made.model)
    assert done.returncode == 0, done.stderr
    assert ".cache/huggingface, .gitattributes, LICENSE, README.md" in " ".join(done.stdout.split())
    blobs, snapshot = made.run / "hub" / "blobs", made.run / "hub" / "snapshots" / "3f2a91c"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in (path for path in made.model.iterdir() if path.is_file()):
        path.rename(blobs / hashing.sha256_bytes(path.name.encode()))
        (snapshot / path.name).symlink_to(Path("../../blobs") / hashing.sha256_bytes(path.name.encode()))
    done = verify(froc, place, made, "--model", snapshot)
    assert done.returncode == 0, done.stderr
    # what a report of such a folder covers is the model alone
    model = made.model
    shutil.rmtree(model)
    shutil.copytree(snapshot, model)
    done = froc("audit", "report", made.run, "--key", place / "owner", "--out", made.run, "--name", "other")
    assert done.returncode == 0, done.stderr
    subject = Made(made.run / "other.froc-audit", made.run, made.key).read()["subject"]
    assert {file["name"] for file in subject} == set(model_folder.read(model).files)
    assert not {"README.md", "LICENSE"} & {file["name"] for file in subject}
