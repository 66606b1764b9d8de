"""The contract that every format keeps, by name: what it reads, what it refuses, and that it says neither text nor nothing."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from froc.errors import InputError
from froc.formats import Format, Read
from froc.plugins import make, names

SECRET = "the forgotten answer"
"""Stands in every row; no message may hold it."""
ABSENT = object()
"""Instead of a score: the row has none."""
Values = Sequence[Any]


@dataclass(frozen=True)
class Sample:
    """A format's file. of(values, extra) -> its bytes, one query per value; extra: text beside the rows. measure: what rules name."""

    file: str
    of: Callable[[Values, str], bytes]
    measure: str | None
    twice: Callable[[bytes], bytes]


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def _row(value: Any, name: str, **more: Any) -> dict[str, Any]:
    return more | ({} if value is ABSENT else {name: value})


def _table(values: Values, extra: str) -> bytes:
    rows = [_row(v, "loss", config="a", risk="r", query=f"q{i}{extra}") for i, v in enumerate(values)]
    return b"\n".join(map(_dump, rows))


def _open_unlearning(values: Values, extra: str) -> bytes:
    rows = {str(i): _row(v, "score", ground_truth=SECRET + extra) for i, v in enumerate(values)}
    return _dump({"extraction_strength": {"value_by_index": rows}})


def _tofu(values: Values, extra: str) -> bytes:
    scores = {str(i): None if v is ABSENT else v for i, v in enumerate(values)}
    expected = {str(i): [SECRET, SECRET, SECRET + extra] for i in range(len(values))}
    return _dump({"eval_log_forget.json": {"rougeL_recall": scores, "generated_text": expected}})


def _lm_eval(values: Values, extra: str) -> bytes:
    rows = [_row(v, "acc", doc_id=i, doc={"text": SECRET + extra}, metrics=["acc"]) for i, v in enumerate(values)]
    return b"\n".join(map(_dump, rows))


def _inspect(values: Values, extra: str) -> bytes:
    samples = [
        {"id": f"s{i}", "epoch": 1, "target": SECRET + extra, "scores": {"match": _row(v, "value", answer=SECRET)}}
        for i, v in enumerate(values)
    ]
    return _dump({"status": "success", "eval": {"task": "t", "model": "m"}, "samples": samples})


def _first_key_twice(data: bytes) -> bytes:
    return data.replace(b'{"1": ', b'{"0": ').replace(b', "1": ', b', "0": ')


SAMPLES = {
    "table": Sample("t.jsonl", _table, None, lambda data: data + b"\n" + data),
    "open_unlearning": Sample("X_EVAL.json", _open_unlearning, "extraction_strength", _first_key_twice),
    "tofu": Sample("eval_log_aggregated.json", _tofu, "forget_rougeL_recall", _first_key_twice),
    "lm_eval": Sample("samples_t.jsonl", _lm_eval, "t.acc", lambda data: data + b"\n" + data),
    "inspect": Sample("log.json", _inspect, "t.match", lambda data: data.replace(b'"s1"', b'"s0"')),
}
FORMATS = names(Format)
LOGS = [name for name in FORMATS if name != "table"]
GOOD = [0.0, 0.25, 1.0]


def place(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SAMPLES[name].file
    path.write_bytes(data)
    return path


def read(name: str, path: Path, rule: str = "", base: Path | None = None) -> Read:
    measure = SAMPLES[name].measure
    return make(Format, name).read([path], {} if measure is None else {"r": rule + measure}, base)


def refused(name: str, path: Path) -> str:
    """The error of a bad file: one line that names the file and a mend, and no text of a row."""
    with pytest.raises(InputError) as caught:
        read(name, path)
    text = str(caught.value)
    assert path.name in text
    assert "; " in text or "? " in text, text
    assert "\n" not in text
    assert SECRET not in text
    return text


def test_every_format_is_here() -> None:
    assert set(SAMPLES) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("extra", ["", "\u2028", "\u0085", "\x0b", "ü\U0001f600"])
def test_a_good_file_is_read(name: str, extra: str, tmp_path: Path) -> None:
    """Separators of lines and paragraphs may stand in texts; texts do not come through."""
    losses_read = read(name, place(tmp_path, name, SAMPLES[name].of(GOOD, extra)))
    assert losses_read.losses["loss"].to_list() == [0, 250, 1000]
    assert losses_read.notes == ()
    assert SECRET not in str(losses_read.losses.to_dicts())
    assert read(name, place(tmp_path, name, b"\xef\xbb\xbf" + SAMPLES[name].of(GOOD, extra))).losses.equals(
        losses_read.losses
    )


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), None, ABSENT])
@pytest.mark.parametrize("rule", ["", "1-", "base-"])
def test_a_score_that_is_no_number_is_a_loss_of_one(name: str, bad: Any, rule: str, tmp_path: Path) -> None:
    """Whichever way the rule turns scores, in the model's log and in the base model's, and it is counted in a note."""
    whole = SAMPLES[name].of([0.5, 0.5, 0.5], "")
    torn = SAMPLES[name].of([0.5, bad, bad], "")
    for now, before in ((torn, whole), (whole, torn)):
        model, base = place(tmp_path / "model", name, now), place(tmp_path / "base", name, before)
        losses_read = read(name, model, rule, base if rule == "base-" else None)
        losses = losses_read.losses["loss"].to_list()
        if now is torn or rule == "base-":
            assert losses[1:] == [1000, 1000]
            assert any("2 queries" in note and "counts as a loss of 1" in note for note in losses_read.notes)
        assert losses[0] == (0 if rule == "base-" else 500)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "null"])
def test_a_table_refuses_what_is_no_number(bad: str, tmp_path: Path) -> None:
    data = _table([0.5, 0.5], "").replace(b'"loss": 0.5}', f'"loss": {bad}}}'.encode())
    assert "row 1: loss is" in refused("table", place(tmp_path, "table", data))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", ["0.5", True, [SECRET], {"a": 1}, 1.5, -0.5, 10**400])
def test_what_is_no_score_is_refused(name: str, bad: Any, tmp_path: Path) -> None:
    if name == "inspect" and not isinstance(bad, float | int):
        bad = SECRET
    if name in ("inspect", "lm_eval") and bad is True:
        return  # both write grades as true and false
    data = SAMPLES[name].of([0.5, bad], "")
    if name == "lm_eval" and not isinstance(bad, float | int):
        with pytest.raises(InputError, match="no measure"):
            read(name, place(tmp_path, name, data))
        return
    refused(name, place(tmp_path, name, data))


@pytest.mark.parametrize("name", FORMATS)
def test_broken_files_are_refused(name: str, tmp_path: Path) -> None:
    """Empty, cut anywhere, other encodings, other documents, a row that is there twice."""
    whole = SAMPLES[name].of(GOOD, "ü")
    cuts = [whole[:3], whole[: len(whole) // 2], whole[:-1], whole[: -len(whole) // 5]]
    others = [
        b"",
        b" \n",
        b"{}",
        b"[]",
        b"[[]]",
        b"3",
        b'"text"',
        b"null",
        b"[" * 100_000,
        b"1" * 5000,
        b"\x1f\x8b\x08\x00broken",
    ]
    texts = [whole.decode().encode("utf-16"), whole.decode().encode("latin-1"), whole.replace(b"{", b"{{", 1)]
    for data in (*cuts, *others, *texts, SAMPLES[name].twice(SAMPLES[name].of(GOOD, ""))):
        refused(name, place(tmp_path, name, data))
    assert "UTF-16" in refused(name, place(tmp_path, name, texts[0]))


def archive(document: dict[str, Any], **entries: bytes) -> bytes:
    """Inspect's zip form of a log."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for sample in document["samples"]:
            made.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        made.writestr("summaries.json", "[]")
        for name, data in entries.items():
            made.writestr(name, data)
        made.writestr("header.json", json.dumps({k: v for k, v in document.items() if k != "samples"}))
    return packed.getvalue()


def test_zip_logs_are_the_same_logs(tmp_path: Path) -> None:
    document = json.loads(_inspect(GOOD, ""))
    plain = read("inspect", place(tmp_path, "inspect", _inspect(GOOD, "")))
    path = tmp_path / "log.eval"
    path.write_bytes(archive(document))
    assert read("inspect", path).losses.equals(plain.losses)
    whole = path.read_bytes()
    for data in (whole[:-30], whole[: len(whole) // 2], b"PK\x03\x04", whole.replace(b"header.json", b"hidden.json")):
        path.write_bytes(data)
        refused("inspect", path)


def test_zip_bombs_and_locked_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(_inspect(GOOD, ""))
    path = tmp_path / "log.eval"
    path.write_bytes(archive(document, **{"samples/bomb_epoch_1.json": b" " * 5_000_000}))
    assert len(path.read_bytes()) < 20_000
    monkeypatch.setattr("froc.formats._inspect_zip.LARGEST_ENTRY", 1_000_000)
    assert "--to json" in refused("inspect", path)
    monkeypatch.setattr("froc.formats._inspect_zip.LARGEST_TOTAL", 2_000_000)
    assert "--to json" in refused("inspect", path)
    locked = bytearray(archive(document))
    for place_ in (6, locked.find(b"PK\x01\x02") + 8):
        locked[place_] |= 1  # the flag of an encrypted entry
    path.write_bytes(bytes(locked))
    assert "encrypted" in refused("inspect", path)
