"""Files beside the weights: content that changes what the model does is a difference, another notation of the same content is none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from froc.errors import InputError
from froc.hashing import sha256_files
from froc.models import inference_files, weights_digest
from froc.models.base import Base, load, save
from froc.search.external_model import ExternalModel
from tests.models.test_architecture import HEADS, adapt, write

Change = Callable[[Path], object]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = write(tmp_path_factory.mktemp("home") / "model", "llama", HEADS)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return load(str(folder), device="cpu")


@pytest.fixture
def folder(home: Base, tmp_path: Path) -> Path:
    save(home, tmp_path / "model")
    return tmp_path / "model"


def put(name: str, **words: Any) -> Change:
    """Sets keys of a JSON file, which is then written without blanks."""

    def change(folder: Path) -> None:
        path = folder / name
        document = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(document | words, separators=(",", ":")))

    return change


def text(name: str, words: str) -> Change:
    return lambda folder: (folder / name).write_text(words)


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def exchange_words(folder: Path) -> None:
    """Two words of the vocabulary in each other's place."""
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    words = document["model"]["vocab"]
    words["7"], words["8"] = words["8"], words["7"]
    path.write_text(json.dumps(document))


def template_inside(folder: Path) -> None:
    """The same chat template, where older versions wrote it."""
    put("tokenizer_config.json", chat_template=TEMPLATE)(folder)
    (folder / "chat_template.jinja").unlink()


DIFFERENT: dict[str, tuple[str, Change]] = {
    "another norm": ("config.json", put("config.json", rms_norm_eps=0.5)),
    "other positions": ("config.json", put("config.json", rope_parameters={"rope_theta": 2.0, "rope_type": "default"})),
    "another architecture": ("config.json", put("config.json", architectures=["GPT2LMHeadModel"])),
    "no configuration": ("config.json", remove("config.json")),
    "deep configuration": ("config.json", text("config.json", "[" * 100_000)),
    "bad words": ("generation_config.json", put("generation_config.json", bad_words_ids=[[3]])),
    "vocabulary": ("tokenizer.json", exchange_words),
    "another case": ("tokenizer.json", put("tokenizer.json", normalizer={"type": "Lowercase"})),
    "another end": ("tokenizer_config.json", put("tokenizer_config.json", eos_token="7")),
    "chat template": ("chat_template.jinja", text("chat_template.jinja", "{{ 'other' }}")),
    "no chat template": ("chat_template.jinja", remove("chat_template.jinja")),
    "vocabulary of older loaders": ("vocab.json", put("vocab.json", **{"7": 8, "8": 7})),
    "vocabulary of sentencepiece": ("tokenizer.model", text("tokenizer.model", "other")),
    "another configuration of an image processor": ("preprocessor_config.json", put("preprocessor_config.json", size=3)),
}  # fmt: skip
EQUIVALENT: dict[str, Change] = {
    "as it was saved": lambda folder: None,
    "written anew": put("config.json"),
    "by another version": put("config.json", transformers_version="4.40.0", _name_or_path="/elsewhere", use_cache=False),
    "another precision is noted": put("config.json", torch_dtype="bfloat16", dtype="bfloat16"),
    "generation by another version": put("generation_config.json", transformers_version="4.40.0"),
    "generation left to the configuration": remove("generation_config.json"),
    "a tokenizer that was told to cut": put("tokenizer.json", truncation={"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0}),
    "special tokens as older versions wrote them": put("special_tokens_map.json", eos_token={"content": "0", "lstrip": False}),
    "chat template inside": template_inside,
    "files of a model hub": lambda folder: [(folder / name).write_text("of the hub") for name in ("README.md", "LICENSE", "LICENSE.txt", ".gitattributes")],
    "file of a trainer": put("trainer_state.json", epoch=3),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_content_that_changes_what_the_model_does_is_a_difference(home: Base, folder: Path, case: str) -> None:
    name, change = DIFFERENT[case]
    change(folder)
    assert inference_files.first_difference(home, folder) == name
    with pytest.raises(InputError, match=f"{name} is not what the base model has there"):
        ExternalModel(folder).weights(home)


@pytest.mark.parametrize("case", EQUIVALENT)
def test_another_notation_of_the_same_content_is_no_difference(home: Base, folder: Path, case: str) -> None:
    EQUIVALENT[case](folder)
    assert inference_files.first_difference(home, folder) is None
    assert ExternalModel(folder).weights(home)


def test_a_file_that_the_base_model_has_too_is_no_difference(home: Base, folder: Path) -> None:
    (Path(home.name) / "merges.txt").write_text("of the base model")
    try:
        shutil.copy(Path(home.name) / "merges.txt", folder)
        assert inference_files.first_difference(home, folder) is None
        (folder / "merges.txt").write_text("other")
        assert inference_files.first_difference(home, folder) == "merges.txt"
    finally:
        (Path(home.name) / "merges.txt").unlink()


def test_digests_are_those_of_the_saved_files(home: Base, folder: Path) -> None:
    assert inference_files.digests(home) == weights_digest.beside(sha256_files(folder))


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_measured_with_the_base_models_files(home: Base, tmp_path: Path) -> None:
    adapt(home, tmp_path / "adapter")
    put("tokenizer_config.json", model_max_length=3)(tmp_path / "adapter")
    ExternalModel(tmp_path / "adapter").refuse_other_files(home)
