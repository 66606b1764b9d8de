"""One digest of a model's weights: the same in memory and in any files, another one wherever a value, name, type or shape is."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from froc import hashing
from froc.errors import InputError
from froc.models import weights_digest
from froc.models.base import Base, digest_of, load, save
from tests.models.test_architecture import KINDS, write

SCOPES = ["full", "lora:rank=2", "layers:last=1"]


def trained(base: Base, spread: float = 0.1) -> Base:
    """With other values than the base model in everything that a trial may change."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in base.trainable.parameters().values():
            parameter.add_(spread * torch.randn_like(parameter))
    return base


def tensors(folder: Path) -> dict[str, Any]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_live_model_of_every_architecture_has_the_digest_of_the_folder_that_is_written(
    kind: str, tmp_path: Path
) -> None:
    """Experts that are kept in one tensor and written apart among them, and tied embeddings that are written once."""
    base = trained(load(str(write(tmp_path / "in", kind, KINDS[kind])), device="cpu"))
    live = digest_of(base)
    save(base, tmp_path / "out")
    assert live == weights_digest.of_folder(tmp_path / "out")
    assert live != weights_digest.of_folder(tmp_path / "in")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("train", SCOPES)
def test_what_is_trained_is_digested_as_it_is_written(train: str, dtype: str, tied: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", "llama", KINDS["llama"] | {"tie_word_embeddings": tied})
    base = load(str(folder), device="cpu", dtype=dtype, train=train)
    before = digest_of(base)
    # what a plan names as the base model
    assert before == base.digest
    after = digest_of(trained(base))
    save(base, tmp_path / "out")
    assert after == weights_digest.of_folder(tmp_path / "out") != before
    base.restore()
    assert digest_of(base) == before


def test_what_no_adapter_changes_keeps_its_bits_zeros_with_a_sign_too(tmp_path: Path) -> None:
    base = load(str(write(tmp_path, "llama", KINDS["llama"])), device="cpu", train="lora:rank=2")
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if "base_layer" in name:
                parameter[0] = -0.0
    kept = {name: value.clone() for name, value in base.model.state_dict().items() if "base_layer" in name}
    state = base.trainable.merged_state_dict()
    assert state is not None
    for name, value in kept.items():
        assert torch.equal(torch.signbit(state[name.replace(".base_layer.", ".")]), torch.signbit(value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", "llama", KINDS["llama"] | {"tie_word_embeddings": True})


def test_the_layout_of_files_does_not_count(folder: Path, tmp_path: Path) -> None:
    wanted, known = weights_digest.of_folder(folder), tensors(folder)
    backwards = dict(sorted(known.items(), reverse=True))
    save_file(backwards, tmp_path / "other.safetensors", metadata={"made": "elsewhere"})
    assert (tmp_path / "other.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert weights_digest.of_files([tmp_path / "other.safetensors"]) == wanted
    names = sorted(known)
    shards = [tmp_path / f"{place}.safetensors" for place in range(3)]
    for place, path in enumerate(shards):
        save_file({name: known[name] for name in names[place::3]}, path)
    assert weights_digest.of_files(shards) == weights_digest.of_files(reversed(shards)) == wanted


def test_an_output_embedding_that_is_tied_may_be_left_out_or_written_twice(folder: Path, tmp_path: Path) -> None:
    known, path = tensors(folder), tmp_path / "other.safetensors"
    assert "lm_head.weight" not in known
    embedding = known["model.embed_tokens.weight"]
    save_file({**known, "lm_head.weight": embedding}, path)
    assert weights_digest.of_files([path]) == weights_digest.of_folder(folder)
    changed = embedding.copy()
    changed[0, 0] += 1
    for head in (changed, embedding.astype(np.float64), embedding.reshape(-1)):
        save_file({**known, "lm_head.weight": head}, path)
        assert weights_digest.of_files([path]) != weights_digest.of_folder(folder)
    # any other tensor counts, whatever it equals
    save_file({**known, "model.again.weight": embedding}, path)
    assert weights_digest.of_files([path]) != weights_digest.of_folder(folder)


def _bit(value: Any) -> Any:
    raw = value.copy()
    raw.reshape(-1).view(np.uint8)[0] ^= 1
    return raw


CHANGES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "a bit": lambda t, name: t.update({name: _bit(t[name])}),
    "a shape": lambda t, name: t.update({name: t[name].reshape(1, *t[name].shape)}),
    "a type of the same bytes": lambda t, name: t.update({name: t[name].view(np.int32)}),
    "a name": lambda t, name: t.update({name + "s": t.pop(name)}),
    "one less": lambda t, name: t.pop(name),
    "one more": lambda t, name: t.update({"more": np.zeros(1, np.float32)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_in_a_tensor_changes_the_digest(folder: Path, tmp_path: Path, change: str) -> None:
    known, path = tensors(folder), tmp_path / "other.safetensors"
    for name in ("model.norm.weight", "model.embed_tokens.weight"):
        mutant = dict(known)
        CHANGES[change](mutant, name)
        save_file(mutant, path)
        assert weights_digest.of_files([path]) != weights_digest.of_folder(folder)


def test_two_tensors_that_change_places_are_seen(folder: Path, tmp_path: Path) -> None:
    known, path = tensors(folder), tmp_path / "other.safetensors"
    first, second = (f"model.layers.{place}.self_attn.q_proj.weight" for place in (0, 1))
    save_file({**known, first: known[second], second: known[first]}, path)
    assert weights_digest.of_files([path]) != weights_digest.of_folder(folder)


def test_the_digest_is_worked_out_by_hand(tmp_path: Path) -> None:
    """As the module's text says it, from nothing but two numbers and SHA-256."""
    path = tmp_path / "model.safetensors"
    save_file({"a": np.array([1.5, -2.0], dtype=np.float32)}, path)
    tensor = hashing.sha256_bytes(b"torch.float32 (2,) " + b"\x00\x00\xc0\x3f" + b"\x00\x00\x00\xc0")
    assert weights_digest.of_files([path]) == hashing.sha256_bytes(f"{tensor}  a\n".encode())


def _header(content: Any, data: bytes = b"\0" * 8) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data


def _tensor(**more: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **more}


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "header's length"),
    "a length beyond the file": ((2**40).to_bytes(8, "little") + b"{}", "header's length"),
    "no JSON": (_header(b"{nonsense}"), "its header"),
    "a list": (_header([1, 2]), "its header"),
    "a name twice": (_header(b'{"a":%b,"a":%b}' % ((json.dumps(_tensor()).encode(),) * 2)), "its header"),
    "nested deeply": (_header(b'{"a":' * 100_000), "its header"),
    "an unknown type": (_header({"a": _tensor(dtype="F33")}), "its header"),
    "a negative place": (_header({"a": _tensor(data_offsets=[-8, 0])}), "its header"),
    "a place that is no number": (_header({"a": _tensor(data_offsets=["0", "8"])}), "its header"),
    "a true place": (_header({"a": _tensor(shape=[True, 2])}), "its header"),
    "a shape of a thousand dimensions": (_header({"a": _tensor(shape=[1] * 1000)}), "its header"),
    "a further field": (_header({"a": _tensor(more=1)}), "its header"),
    "a gap": (_header({"a": _tensor(data_offsets=[8, 16])}, b"\0" * 16), "not in their place"),
    "an overlap": (_header({"a": _tensor(), "b": _tensor(data_offsets=[4, 12])}, b"\0" * 12), "not in their place"),
    "a shape of other bytes": (_header({"a": _tensor(shape=[3])}), "not as many"),
    "bytes left over": (_header({"a": _tensor()}, b"\0" * 9), "1 bytes are left over"),
    "bytes missing": (_header({"a": _tensor()}, b"\0" * 7), "1 bytes are missing"),
    "a pickle": (b"\x80\x04\x95" + b"\0" * 600, "a pickle, which can run code"),
    "a GGUF file": (b"GGUF" + b"\0" * 600, "a GGUF file"),
    "a tar archive": (b"a" * 257 + b"ustar" + b"\0" * 300, "a tar archive"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_whole_safetensors_file_is_refused_by_what_it_is(tmp_path: Path, case: str) -> None:
    data, why = BROKEN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        weights_digest.of_folder(tmp_path)
    assert why in str(caught.value)
    assert "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torch_checkpoint_under_another_name_is_called_a_zip_archive(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert zipfile.is_zipfile(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="zip archive"):
        weights_digest.of_folder(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": np.zeros(2, np.float32)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="another file holds"):
        weights_digest.of_folder(tmp_path)
