"""The control `retrain` of a task folder: a model that its task.toml names, looked at before anything is trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from froc.data.task import Task
from froc.errors import InputError
from froc.models.base import Base, load, save
from froc.plugins import make
from froc.search.build import Inputs, build_job
from froc.search.job import Job
from froc.search.machine import Machine
from froc.search.settings import Settings, measures
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.task_folder import write_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, base: Base, task: Task) -> Path:
    """A task folder with its base model and, in several files, another that stands for a retrained one."""
    folder = tmp_path_factory.mktemp("task")
    for name, rows in {"forget": task.forget, "retain": task.retain}.items():
        write_rows(folder / f"{name}.jsonl", rows)
        write_rows(folder / f"{name}_queries.jsonl", task.queries["forgetting" if name == "forget" else "utility"])
    base.restore()
    save(base, folder / "model")
    model: Any = base.model
    base.trainable.load({name: 0.5 * value for name, value in base.trainable.base_values().items()})
    model.save_pretrained(folder / "without" / "rows", max_shard_size="200KB")
    base.restore()
    assert len(list((folder / "without" / "rows").glob("*.safetensors"))) > 1
    return folder


def _job(place: Path, retrained: str | None, train: str = "full", methods: Sequence[str] = ("retrain", "npo")) -> Job:
    lines = 'model = "model"\ntemplate = "{question} {answer}"\n'
    lines += "" if retrained is None else f"retrained = {json.dumps(retrained)}\n"
    (place / "task.toml").write_text(lines, encoding="utf-8")
    settings = Settings({"forgetting": 0.1, "utility": 0.1}, methods=tuple(methods), train=train)
    return build_job(settings, Inputs(place), Machine(device="cpu"), lambda *_: None)


def test_retrain_is_the_model_that_the_task_folder_names(place: Path) -> None:
    made = _job(place, "without/rows")
    assert {"retrain", "npo"} == set(made.space)
    bench = TrialRunner(made.base, made.view, measures(made.settings), batch=16, seed=0)
    (outcome,) = bench.run([TrialSpec("retrain", {}, 1)], [lambda *_: False])
    assert (outcome.status, outcome.steps) == ("complete", 0)
    own = made.base.trainable.parameters()
    assert all(torch.equal(own[name], 0.5 * value) for name, value in made.base.trainable.base_values().items())


def test_what_cannot_be_the_retrained_model_is_refused_before_a_trial(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"embedded task brings \(or retrained = in task.toml\)"):
        _job(place, None)
    with pytest.raises(InputError, match="does not exist"):
        _job(place, "nowhere")
    with pytest.raises(InputError, match="--train full"):
        _job(place, "without/rows", train="layers:last=1")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="is a pickle"):
        _job(place, str(tmp_path / "pickled"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="no readable weights"):
        _job(place, str(tmp_path / "broken"))
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"embed_tokens.*\(50, 16\), in the base model"):
        _job(place, str(tmp_path / "other"))
    # who does not try it needs no such model
    assert set(_job(place, "nowhere", methods=("npo",)).space) == {"npo"}


def test_a_part_of_the_parameters_is_no_retrained_model(place: Path) -> None:
    base = load(str(place / "model"), device="cpu", train="layers:last=1")
    made = _job(place, "without/rows")
    bench = TrialRunner(base, made.view, measures(made.settings), batch=16, seed=0)
    with pytest.raises(InputError, match="--train full"):
        unlearn(base, make(Method, "retrain"), bench.reference, batch=16, seed=1)
