"""The model on disk, and the subjects that name its files in the report."""

from collections.abc import Callable
from pathlib import Path

from tests.audit.cases.forging import Attack, Case, report, statement
from tests.audit.conftest import Made


def _folder(change: Callable[[Path], object]) -> Attack:
    """Change the model's folder."""

    def attack(made: Made) -> None:
        assert made.model is not None
        change(made.model)

    return attack


def _link(model: Path) -> None:
    path = model / "config.json"
    path.rename(model.parent / "config.json")
    path.symlink_to(model.parent / "config.json")


def _byte(model: Path) -> None:
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _other(model: Path) -> None:
    """A model that is as good as the signed one, of another run."""
    path = model / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 6', '"hidden_size": 7'))
    _byte(model)


CHANGED: dict[str, Case] = {
    "model: renamed": Case("model-mismatch", _folder(lambda m: (m / "tokenizer.json").rename(m / "zz.json"))),
    "model: names swapped": Case("model-mismatch", _folder(lambda m: [(m / "config.json").rename(m / "t"), (m / "tokenizer.json").rename(m / "config.json"), (m / "t").rename(m / "tokenizer.json")])),
    "model: extra": Case("model-mismatch", _folder(lambda m: (m / "adapter.safetensors").write_bytes(b""))),
    "model: extra below": Case("model-mismatch", _folder(lambda m: ((m / "sub").mkdir(), (m / "sub" / "config.json").write_text("{}")))),
    "model: missing": Case("model-mismatch", _folder(lambda m: (m / "config.json").unlink())),
    "model: pickle": Case("model-code-or-pickle", _folder(lambda m: (m / "pytorch_model.bin").write_bytes(b"\x80\x04."))),
    "model: checkpoint": Case("model-code-or-pickle", _folder(lambda m: (m / "weights.pt").write_bytes(b""))),
    "model: code": Case("model-code-or-pickle", _folder(lambda m: (m / "modeling_custom.py").write_text(""))),
    "model: hidden": Case("subject-name-or-digest", _folder(lambda m: (m / ".hidden.json").write_text("{}"))),
    "model: same name in capitals": Case("subject-duplicate", _folder(lambda m: (m / "CONFIG.json").write_text("{}"))),
}  # fmt: skip
"""Another model in the folder, beside which the report stays true."""
CASES: dict[str, Case] = {
    **CHANGED,
    "a link among the model's files": Case("model-symlink", _folder(_link)),
    "a weight changed": Case("model-mismatch", _folder(_byte)),
    "another run's model": Case("model-mismatch", _folder(_other)),
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
