"""The model on disk, and the subjects that name its files in the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from froc import hashing
from froc.audit import model_folder
from froc.models import weights_digest
from tests.audit.cases.forging import Attack, Case, document, report, statement
from tests.audit.conftest import Made, make_model


def _folder(change: Callable[[Path], object]) -> Attack:
    """Change the model's folder."""

    def attack(made: Made) -> None:
        assert made.model is not None
        change(made.model)

    return attack


def _link(model: Path) -> None:
    """To where nothing is."""
    path = model / "config.json"
    path.unlink()
    path.symlink_to(model.parent / "config.json")


def _owner(change: Callable[[Path], object]) -> Attack:
    """Change the model's folder and sign what it holds then: who holds the key and hands over another model."""

    def attack(made: Made) -> None:
        assert made.model is not None
        change(made.model)
        files = hashing.sha256_files(made.model)
        made.restate(lambda body: body.update(subject=[{"name": n, "digest": {"sha256": d}} for n, d in files.items()]))
        tree = {"alg": "dirHash-sha256", "value": hashing.sha256_tree(files)}
        made.resign(lambda report: report["model"].update(files=len(files), treeDigest=tree))

    return attack


def reseal(made: Made, **digests: str) -> None:
    """Seal other digests of weights (config -> digest; base), and the files beside them as they lie there, and sign all of it."""

    def sealed(document: dict[str, Any]) -> None:
        if made.model is not None:
            document["model_files"] = weights_digest.beside(hashing.sha256_files(made.model))
        document["base_weights_digest"] = digests.get("base", document["base_weights_digest"])
        for candidate in document["candidates"]:
            candidate["weights_digest"] = digests.get(candidate["config"], candidate["weights_digest"])

    def reported(report: dict[str, Any]) -> None:
        for candidate in report["certificate"]["candidates"]:
            candidate["weights_digest"] = digests.get(candidate["config"], candidate["weights_digest"])
        digest_of_weights = report["model"]["weightsDigest"]
        digest_of_weights.update(
            value=digests.get(report["config"], digest_of_weights["value"]),
            base=digests.get("base", digest_of_weights["base"]),
        )

    document = json.loads((made.bundle / "seal.json").read_text())
    sealed(document)
    (made.bundle / "seal.json").write_text(json.dumps(document))
    made.resign(reported)


def _weights(model: Path) -> None:
    """The weights of another model, such as the base model's."""
    shutil.rmtree(model)
    make_model(model, first=100.0)


def _base_as_chosen(made: Made) -> None:
    """The base model's weights lie in the folder, and the seal names the base truly."""
    _owner(_weights)(made)
    assert made.model is not None
    reseal(made, base=weights_digest.of_folder(made.model))


def _base_sealed(made: Made) -> None:
    """... and the seal calls them the chosen candidate's, too."""
    _owner(_weights)(made)
    assert made.model is not None
    reseal(made, **dict.fromkeys(("base", "c0001"), weights_digest.of_folder(made.model)))


def _planned_base_sealed(made: Made) -> None:
    """The seal names another base model, but the plan does not."""
    reseal(made, c0001=json.loads((made.bundle / "plan.json").read_text())["model"]["digest"], base="c" * 64)


def _text(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    def changed(model: Path) -> None:
        path = model / name
        path.write_text(change(path.read_text() if path.exists() else ""))

    return changed


def _bytes(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes(data)


def _config(**words: Any) -> Callable[[Path], object]:
    """Other words in the configuration; None takes one out."""

    def changed(model: Path) -> None:
        path = model / "config.json"
        document = json.loads(path.read_text()) | words
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return changed


def _stacked(model: Path) -> None:
    """A small layer of the right number beside the model's own, which has another."""
    weights = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = {
        "embed": weights,
        "head": weights.copy(),
        "layers.1.norm": weights.copy(),
        "zz.layers.0.norm": weights[0].copy(),
    }
    save_file(tensors, model / "model.safetensors")


def _headless(**words: Any) -> Callable[[Path], object]:
    """No output embedding, and a configuration by which none is tied."""

    def changed(model: Path) -> None:
        path = model / "model.safetensors"
        save_file({name: tensor for name, tensor in load_file(path).items() if name != "head"}, path)
        _config(**words)(model)

    return changed


def _tokenizer(**words: Any) -> Attack:
    return _owner(_text("tokenizer_config.json", lambda _: json.dumps(words)))


def _sparse(name: str, size: int) -> Callable[[Path], object]:
    """A file that takes no room on the disk, and much in memory."""

    def changed(model: Path) -> None:
        with (model / name).open("wb") as stream:
            stream.truncate(size)

    return changed


def shard(model: Path, change: Callable[[dict[str, Any]], object] = lambda index: None) -> None:
    """The same weights in two files with an index. change: of the index."""
    known = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    where = {name: f"model-{place}.safetensors" for place, name in enumerate(known)}
    for name, file in where.items():
        save_file({name: known[name]}, model / file)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in known.values())}, "weight_map": where}
    change(index)
    (model / model_folder.INDEX).write_text(json.dumps(index))


def _elsewhere(index: dict[str, Any]) -> None:
    index["weight_map"] = dict.fromkeys(index["weight_map"], "/somewhere/else/model.safetensors")


def _sharded(change: Callable[[dict[str, Any]], object]) -> Attack:
    return _owner(lambda model: shard(model, change))


def _byte(model: Path) -> None:
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _model_of_another_run(model: Path) -> None:
    """A model that is as good as the signed one, of another run."""
    path = model / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 6', '"hidden_size": 7'))
    _byte(model)


def _configured_below(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "config.json").write_text("{}")


def _moved_below(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "model.safetensors").rename(folder / "sub" / "model.safetensors")


CHANGED: dict[str, Case] = {
    "model: renamed": Case("model-other-files", _folder(lambda m: (m / "tokenizer.json").rename(m / "zz.json"))),
    "model: names swapped": Case("model-mismatch", _folder(lambda m: [(m / "config.json").rename(m / "t"), (m / "tokenizer.json").rename(m / "config.json"), (m / "t").rename(m / "tokenizer.json")])),
    "model: extra": Case("model-other-files", _folder(lambda m: (m / "adapter.safetensors").write_bytes(b""))),
    "model: extra below": Case("model-other-files", _folder(_configured_below)),
    "model: missing": Case("model-other-files", _folder(lambda m: (m / "config.json").unlink())),
    "model: pickle": Case("model-code-or-pickle", _folder(lambda m: (m / "pytorch_model.bin").write_bytes(b"\x80\x04."))),
    "model: checkpoint": Case("model-code-or-pickle", _folder(lambda m: (m / "weights.pt").write_bytes(b""))),
    "model: code": Case("model-code-or-pickle", _folder(lambda m: (m / "modeling_custom.py").write_text(""))),
    "model: hidden": Case("subject-name-or-digest", _folder(lambda m: (m / ".hidden.json").write_text("{}"))),
    "model: same name in capitals": Case("subject-duplicate", _folder(lambda m: (m / "CONFIG.json").write_text("{}"))),
}  # fmt: skip
"""Another model in the folder, beside which the report stays true."""
TINY = b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OPEN: dict[str, Case] = {
    "other weights, signed": Case("model-weights-differ", _owner(_weights)),
    "the base model's weights, signed": Case("model-is-base", _base_as_chosen),
    "the base model's weights, sealed and signed": Case("sealed-is-base", _base_sealed),
    "the planned base model sealed as chosen": Case("sealed-is-base", _planned_base_sealed, how=lambda m: {"model": None}),
    "weights of one candidate not sealed": Case("seal-weights", document("seal.json", lambda s: s["candidates"][1].pop("weights_digest"))),
    "files beside the weights not sealed": Case("seal-weights", document("seal.json", lambda s: s.pop("model_files"))),
    "signed: another configuration": Case("model-files-differ", _owner(_text("config.json", lambda t: t.replace('"hidden_size": 6', '"hidden_size": 7')))),
    "signed: another tokenizer": Case("model-files-differ", _owner(_text("tokenizer.json", lambda t: t.replace("1.0", "1.1")))),
    "signed: a chat template of later": Case("model-files-differ", _owner(_text("chat_template.jinja", lambda _: "{{ messages }}"))),
    "signed: kernels of a repository": Case("model-redirect", _owner(_text("config.json", lambda t: t.replace("{", '{"attn_implementation": "them/kernels",', 1)))),
    "signed: kernels of a repository for a part": Case("model-redirect", _owner(_text("config.json", lambda t: t.replace("{", '{"attn_implementation": {"text_config": ["them/kernels"]},', 1)))),
    "signed: kernels of a repository for every part": Case("model-redirect", _owner(_text("config.json", lambda t: t.replace("{", '{"attn_implementation": {"": "them/kernels"},', 1)))),
    "signed: kernels of a repository, as they are kept": Case("model-redirect", _owner(_config(_attn_implementation_internal="them/kernels"))),
    "signed: an index of pickles": Case("model-second-index", _owner(_text("pytorch_model.bin.index.json", lambda _: '{"weight_map": {"head": "../evil.bin"}}'))),
    "signed: an index of another precision": Case("model-second-index", _owner(_text("model.fp16.safetensors.index.json", lambda _: '{"weight_map": {"head": "/etc/passwd"}}'))),
    "signed: fewer layers than the configuration has": Case("model-layers", _owner(_config(num_hidden_layers=9))),
    "signed: a number of layers beside that of the text model": Case("model-layers", _owner(_config(num_hidden_layers=9, text_config={"num_hidden_layers": 1}))),
    "signed: a small layer of another stack": Case("model-layers", _owner(_stacked)),
    "signed: no number of layers": Case("model-config-open", _owner(_config(num_hidden_layers=None))),
    "signed: a number of layers in words": Case("model-config-open", _owner(_config(num_hidden_layers="1"))),
    "signed: no architectures": Case("model-config-open", _owner(_config(architectures=None))),
    "signed: an architecture in words": Case("model-config-open", _owner(_config(architectures="LlamaForCausalLM"))),
    "signed: a number for architectures": Case("model-config-open", _owner(_config(architectures=5))),
    "signed: a list as configuration": Case("model-config-open", _owner(_text("config.json", lambda _: "[]"))),
    "signed: no output embedding": Case("model-head", _owner(_headless(tie_word_embeddings=False))),
    "signed: no output embedding, and no word on tying": Case("model-head", _owner(_headless())),
    "signed: no output embedding of another kind of model": Case("model-config-open", _owner(_headless(tie_word_embeddings=False, architectures=["LlamaModel"]))),
    "signed: a head that classifies": Case("model-config-open", _owner(_config(architectures=["LlamaForSequenceClassification"]))),
    "signed: the number of layers by another type's key": Case("model-config-open", _owner(_config(num_hidden_layers=None, n_layer=1))),
    "signed: another type's key for the number of layers": Case("model-config-open", _owner(_config(model_type="gpt2"))),
    "signed: no type": Case("model-config-open", _owner(_config(model_type=None))),
    "signed: weights to be quantised": Case("model-quantised", _owner(_config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}))),
    "signed: weights to be quantised, for a part": Case("model-quantised", _owner(_config(text_config={"num_hidden_layers": 1, "quantization_config": {"quant_method": "fp8"}}))),
    "signed: a vocabulary elsewhere, among special tokens": Case("model-outside-file", _owner(_text("special_tokens_map.json", lambda _: '{"vocab": "/somewhere/vocab.json"}'))),
    "signed: another precision": Case("model-dtype", _owner(_config(dtype="float16"))),
    "signed: another precision by its old name": Case("model-dtype", _owner(_config(dtype=None, torch_dtype="torch.bfloat16"))),
    "signed: another precision of a part": Case("model-dtype", _owner(_config(text_config={"dtype": "float64"}))),
    "signed: a vocabulary elsewhere": Case("model-outside-file", _tokenizer(tokenizer_class="GPT2Tokenizer", vocab="/somewhere/vocab.json")),
    "signed: merges elsewhere": Case("model-outside-file", _tokenizer(tokenizer_class="GPT2Tokenizer", merges="merges.txt")),
    "signed: a tokenizer's arguments elsewhere": Case("model-outside-file", _tokenizer(tokenizer_class="GPT2Tokenizer", init_inputs=["/somewhere/vocab.json"])),
    "signed: a vocabulary elsewhere, for a part": Case("model-outside-file", _tokenizer(decoder={"vocab_file": "/somewhere/vocab.json"})),
    "signed: a tokenizer's file elsewhere": Case("model-outside-file", _tokenizer(spm_file="../spm.model")),
    "signed: a list of tokenizer's files elsewhere": Case("model-outside-file", _tokenizer(fast_tokenizer_files=["tokenizer.json", "../tokenizer.5.0.0.json"])),
    "signed: weights in a folder below": Case("model-weights-below", _owner(_moved_below)),
    "base model not sealed": Case("seal-weights", document("seal.json", lambda s: s.pop("base_weights_digest"))),
    "signed: an adapter beside the weights": Case("model-adapter", _owner(_text("adapter_config.json", lambda _: "{}"))),
    "signed: an adapter alone": Case("model-adapter", _owner(lambda m: (m / "model.safetensors").rename(m / "adapter_model.safetensors"))),
    "signed: no weights": Case("model-no-weights", _owner(lambda m: (m / "model.safetensors").unlink())),
    "signed: weights without a tensor": Case("model-no-weights", _owner(lambda m: save_file({}, m / "model.safetensors"))),
    "signed: a second file of weights": Case("model-second-weights", _owner(lambda m: shutil.copy(m / "model.safetensors", m / "more.safetensors"))),
    "signed: weights of another name alone": Case("model-second-weights", _owner(lambda m: (m / "model.safetensors").rename(m / "more.safetensors"))),
    "signed: no configuration": Case("model-no-config", _owner(lambda m: (m / "config.json").unlink())),
    "signed: a pickle under another name": Case("model-weights-file", _owner(_bytes("model.safetensors", b"\x80\x04\x95" + bytes(600)))),
    "signed: an archive under another name": Case("model-weights-file", _owner(_bytes("model.safetensors", b"PK\x03\x04" + bytes(600)))),
    "signed: bytes after the tensors": Case("model-weights-file", _owner(_bytes("model.safetensors", len(TINY).to_bytes(8, "little") + TINY + bytes(5)))),
    "signed: a configuration with a key twice": Case("model-json", _owner(_text("config.json", lambda _: '{"hidden_size": 6, "hidden_size": 7}'))),
    "signed: code of a repository": Case("model-redirect", _owner(_text("config.json", lambda t: t.replace("{", '{"auto_map": {"AutoModelForCausalLM": "them/repository--code.Model"},', 1)))),
    "signed: a tokenizer's code": Case("model-redirect", _owner(_text("tokenizer_config.json", lambda _: '{"auto_map": {"AutoTokenizer": ["code.Tokenizer", null]}}'))),
    "signed: weights of another name": Case("model-redirect", _owner(_text("config.json", lambda t: t.replace("{", '{"text_config": {"transformers_weights": "more.safetensors"},', 1)))),
    "signed: an archive as tokenizer": Case("model-disguised", _owner(_bytes("tokenizer.model", b"PK\x03\x04" + bytes(600)))),
    "signed: a pickle as text": Case("model-disguised", _owner(_bytes("merges.txt", b"\x80\x04\x95" + bytes(600)))),
    "signed: bytes as text": Case("model-disguised", _owner(_bytes("merges.txt", b"\xff\xfe\x00"))),
    "signed: a file that is too large for text": Case("model-file-too-large", _owner(_sparse("notes.txt", model_folder.MOST_BYTES + 1))),
    "signed: a file that is too large for JSON": Case("model-file-too-large", _owner(_sparse("more.json", model_folder.JSON_BYTES + 1))),
    "signed: an index of weights elsewhere": Case("model-index-outside", _sharded(_elsewhere)),
    "signed: an index without a map": Case("model-index", _sharded(lambda index: index.pop("weight_map"))),
    "signed: an orphan tensor": Case("model-index", _sharded(lambda index: index["weight_map"].pop("head"))),
    "signed: a tensor that no file has": Case("model-index", _sharded(lambda index: index["weight_map"].update(more="model-0.safetensors"))),
}  # fmt: skip
"""What only who holds the key can do: another model is signed, or one of which loaders take something else."""
CASES: dict[str, Case] = {
    **CHANGED,
    **OPEN,
    "a link among the model's files": Case("model-symlink", _folder(_link)),
    "a weight changed": Case("model-mismatch", _folder(_byte)),
    "another run's model": Case("model-mismatch", _folder(_model_of_another_run)),
    "tree digest": Case("subject-tree", report(lambda r: r["model"]["treeDigest"].update(value="d" * 64))),
    "md5": Case("subject-name-or-digest", statement(lambda b: b["subject"][0].update(digest={"md5": "d" * 32}))),
    "digest in capitals": Case("subject-name-or-digest", statement(lambda b: b["subject"][0].update(digest={"sha256": "D" * 64}))),
    "no subject": Case("subject-name-or-digest", statement(lambda b: b.update(subject=[]))),
    "a subject without a name": Case("subject-name-or-digest", statement(lambda b: b["subject"][0].pop("name"))),
    "path traversal": Case("subject-name-or-digest", statement(lambda b: b["subject"][0].update(name="../config.json"))),
    "absolute path": Case("subject-name-or-digest", statement(lambda b: b["subject"][0].update(name="/config.json"))),
    "subject twice": Case("subject-duplicate", statement(lambda b: b["subject"].append(b["subject"][0]))),
    "subjects in another order": Case("subject-name-or-digest", statement(lambda b: b["subject"].reverse())),
    "subjects that differ in capitals": Case("subject-duplicate", statement(lambda b: b["subject"].insert(0, {**b["subject"][0], "name": "CONFIG.json"}))),
    "a pickle as subject": Case("model-code-or-pickle", statement(lambda b: b["subject"][0].update(name="weights.bin"))),
}  # fmt: skip
