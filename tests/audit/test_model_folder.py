"""A model's folder as it comes from a search, a sharding saver, a hub's client and a hub's cache; messages name the true cause."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from froc import hashing
from froc.audit import bound_weights, model_folder, model_hub, verification
from froc.audit import bundle as evidence
from froc.errors import InputError, VerificationError
from tests.audit.cases.models import shard
from tests.audit.conftest import NOW, Made, make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_weights_in_shards_are_signed_and_verified(finished: Path, keys: Path, tmp_path: Path) -> None:
    """The digest that was sealed is of one file; two files and an index have the same."""
    shard(finished / "model")
    bundle = evidence.build(finished, tmp_path, keys / "key", now=NOW)
    result = verification.verify(bundle, keys=[keys / "key.pub"], model=finished / "model", now=NOW)
    assert {check.name: check.seen for check in result.checks}["weights"] == bound_weights.BOUND


def test_what_a_hub_puts_beside_a_model_is_named_and_left_out(model: Path) -> None:
    before = model_folder.read(model)
    for name in model_folder.HUB_FILES:
        (model / name).write_text("x")
    cache = model / model_folder.HUB_CACHE / "download"
    cache.mkdir(parents=True)
    (cache / "config.json.metadata").write_text("x")
    contents = model_folder.read(model)
    assert contents.files == before.files
    assert set(contents.ignored) == {*model_folder.HUB_FILES, model_folder.HUB_CACHE}
    assert all(name in contents.beside for name in contents.ignored)
    assert before.beside == ""
    # older versions signed it
    covered = model_folder.read(model, {*before.files, "README.md"})
    assert covered.files == {**before.files, "README.md": hashing.sha256_bytes(b"x")}


@pytest.mark.parametrize(
    ("path", "check"),
    [
        (".cache/other/x.json", "subject-name-or-digest"),
        (".cache/huggingface.json", "subject-name-or-digest"),
        ("sub/README.md", None),
        ("sub/.gitattributes", "model-code-or-pickle"),
        ("LICENSE.py", "model-code-or-pickle"),
    ],
)
def test_only_what_a_hub_puts_there_is_left_out(model: Path, path: str, check: str | None) -> None:
    (model / path).parent.mkdir(parents=True, exist_ok=True)
    (model / path).write_text("x")
    if check is None:
        assert path in model_folder.read(model).files
        return
    with pytest.raises(VerificationError) as caught:
        model_folder.read(model)
    assert caught.value.check == check


def test_a_hubs_cache_that_is_a_link_is_no_part_of_a_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (model / ".cache").mkdir()
    (model / model_folder.HUB_CACHE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match="model-symlink"):
        model_folder.read(model)


def test_a_vocabulary_may_hold_the_words_that_configurations_must_not(model: Path) -> None:
    words = {"model": {"vocab": {word: place for place, word in enumerate(model_folder.REDIRECTS)}}}
    (model / "tokenizer.json").write_text(json.dumps(words))
    (model / "generation_config.json").write_text(json.dumps({"custom_pipelines": {}, "auto_map": None}))
    names = model_folder.read(model).files
    model_folder.refuse_open(names)
    model_folder.refuse_content(model, names)


def test_sizes_and_headers_are_looked_at_before_anything_is_hashed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes no room on the disk takes hours to hash."""

    def hashed(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(hashing, "sha256_file", hashed)
    for name, check in (
        ("model.safetensors", "model-weights-file"),
        ("more.json", "model-file-too-large"),
        ("tokenizer.json", "model-file-too-large"),
    ):
        path = model / name
        before = path.read_bytes() if path.exists() else None
        with path.open("ab") as stream:
            stream.truncate(2**40)
        with pytest.raises(VerificationError) as caught:
            model_folder.read(model)
        assert caught.value.check == check
        path.unlink() if before is None else path.write_bytes(before)


CAUSES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (lambda m: (m / "model.safetensors").write_bytes(b"\x80\x02" + bytes(600)), "a pickle, which can run code"),
    "torn": (lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:-1]), "1 bytes are missing"),
    "adapter": (lambda m: (m / "adapter_config.json").write_text("{}"), "merge it"),
    "auto_map": (lambda m: (m / "config.json").write_text('{"auto_map": {"AutoConfig": "c.C"}}'), "says auto_map"),
    "second": (lambda m: shutil.copy(m / "model.safetensors", m / "b.safetensors"), "b.safetensors is no model.safetensors"),
    "none": (lambda m: (m / "model.safetensors").unlink(), "no file of the model holds weights"),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_a_report_of_a_folder_that_is_not_closed_is_refused_by_its_cause(
    finished: Path, keys: Path, tmp_path: Path, cause: str
) -> None:
    spoil, word = CAUSES[cause]
    spoil(finished / "model")
    with pytest.raises(InputError) as caught:
        evidence.build(finished, tmp_path / "out", keys / "key", now=NOW)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*.froc-audit"))


def test_a_report_of_an_older_version_says_that_no_weights_are_bound(originals: dict[str, Made]) -> None:
    seen = {check.name: check.seen for check in originals["older"].verify().checks}
    assert seen["weights"] == bound_weights.UNBOUND
    assert "weightsDigest" not in originals["older"].read()["predicate"]["model"]
    seen = {check.name: check.seen for check in originals["good"].verify(model=None).checks}
    assert seen["weights"] == bound_weights.NOT_COMPARED


# hub:ID@REVISION


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], list[tuple[str, str]]]:
    """A hub that has one model: its client's cache, made of links, and a record of what was asked for."""

    def filled(model: Path) -> list[tuple[str, str]]:
        requests: list[tuple[str, str]] = []

        def download(name: str, revision: str) -> str:
            requests.append((name, revision))
            blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / revision
            blobs.mkdir(parents=True)
            snapshot.mkdir(parents=True)
            for path in model.iterdir():
                blob = blobs / hashing.sha256_file(path)
                shutil.copy(path, blob)
                (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
            (blobs / "card").write_text("# a model card\n")
            (snapshot / "README.md").symlink_to(Path("../../blobs/card"))
            return str(snapshot)

        monkeypatch.setattr(model_hub, "download", download)
        return requests

    return filled


def test_a_model_on_a_hub_is_verified(good: Made, hub: Any) -> None:
    assert good.model is not None
    requests = hub(good.model)
    result = good.verify(model=Path("hub:owner/name@3f2a91c"))
    assert requests == [("owner/name", "3f2a91c")]
    assert result.model_checked
    assert "README.md" in next(check.seen for check in result.checks if check.name == "model")


def test_another_model_on_a_hub_is_refused(good: Made, hub: Any, tmp_path: Path) -> None:
    hub(make_model(tmp_path / "other", first=1.0))
    with pytest.raises(VerificationError, match="model-mismatch"):
        good.verify(model=Path("hub:owner/name@v1.0"))


@pytest.mark.parametrize(
    "text", ["hub:owner/name", "hub:owner/name@", "hub:@main", "hub:a/b/c@v1", "hub:owner/na me@v1"]
)
def test_an_address_without_a_revision_is_refused(good: Made, hub: Any, text: str) -> None:
    assert good.model is not None
    requests = hub(good.model)
    with pytest.raises(InputError, match="hub:ID@REVISION"):
        good.verify(model=Path(text))
    assert not requests


@pytest.mark.parametrize(
    "name", ["main", "MASTER", "HEAD", "heads/x", "refs/heads/x", "refs/pr/1", "refs/convert/parquet"]
)
def test_a_branch_is_no_revision(good: Made, hub: Any, name: str) -> None:
    assert good.model is not None
    requests = hub(good.model)
    with pytest.raises(InputError, match="is a branch, which changes"):
        good.verify(model=Path(f"hub:owner/name@{name}"))
    assert not requests


@pytest.mark.parametrize("name", ["a" * 40, "main-2", "v1"])
def test_a_commit_or_a_tag_is_one(good: Made, hub: Any, name: str) -> None:
    assert good.model is not None
    requests = hub(good.model)
    assert good.verify(model=Path(f"hub:owner/name@{name}")).model_checked
    assert requests == [("owner/name", name)]
    assert not model_hub.MOVING.fullmatch("refs/tags/v1")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ImportError("no"), "pip install huggingface-hub"),
        (OSError("no route\nto host"), "no route"),
        (ValueError("no id"), "no id"),
    ],
)
def test_a_hub_that_cannot_be_asked_is_named_with_the_cause(
    good: Made, monkeypatch: pytest.MonkeyPatch, error: Exception, word: str
) -> None:
    def fail(*_: str) -> str:
        raise error

    monkeypatch.setattr(model_hub, "download", fail)
    with pytest.raises(InputError, match=word) as caught:
        good.verify(model=Path("hub:owner/name@v1"))
    assert "\n" not in str(caught.value)


def test_the_hubs_own_client_is_asked_for_every_file_of_the_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    requests: list[tuple[Any, ...]] = []

    def snapshot_download(*words: Any, **keywords: Any) -> str:
        requests.append((words, keywords))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert model_hub.local(Path("hub:owner/name@v1")) == tmp_path
    assert requests == [(("owner/name",), {"revision": "v1"})]


def test_a_file_beside_weights_and_json_is_text(model: Path) -> None:
    (model / "merges.txt").write_text("a b\n")
    names = model_folder.read(model).files
    assert "merges.txt" in names
    model_folder.refuse_content(model, names)
    for data in (b"a\0b", b"\xff\xfe", b"PK\x03\x04"):
        (model / "merges.txt").write_bytes(data)
        with pytest.raises(VerificationError, match=r"model-disguised: merges\.txt"):
            model_folder.refuse_content(model, names)


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [
        ("notes.txt", 128), ("config.json", 8), ("sub.json", 8), ("tokenizer.json", 64), ("vocab.json", 32),
        ("model.safetensors.index.json", 32),
    ],
)  # fmt: skip
def test_a_file_beside_the_weights_has_a_largest_size(name: str, mebibytes: int, tmp_path: Path) -> None:
    """JSON takes twenty times as much memory; two files list every token, and one every tensor."""
    path = tmp_path / name
    for size, fits in ((mebibytes * 2**20, True), (mebibytes * 2**20 + 1, False)):
        with path.open("wb") as stream:
            stream.truncate(size)
        if fits:
            model_folder._refuse_large(path)
            continue
        with pytest.raises(VerificationError, match="model-file-too-large"):
            model_folder._refuse_large(path)
