"""The `table` format: four kinds of file, one table; every bad one is one line with file, row and mend."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.errors import InputError
from froc.formats import Format, Read
from froc.loss_table import SCHEMA, check
from froc.plugins import make

ROWS = [
    {"config": config, "risk": risk, "query": f"{risk[0]}{i}", "loss": loss, "split": split}
    for config in ("007", "b")
    for risk, split in (("forgetting", "search"), ("utility", "calibration"))
    for i, loss in enumerate((0.0, 0.1, 0.25))
]


def read(path: Path, **settings: str) -> pl.DataFrame:
    """What the plug-in reads."""
    return make(Format, "table", settings).read([path], {}).losses


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """A file of these bytes."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_all_four_kinds_hold_the_same_table(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS)
    wanted = check(frame)
    assert dict(wanted.schema) == SCHEMA
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    lines = [json.dumps(row) for row in ROWS]
    write(tmp_path, "t.jsonl", "\n\n".join(lines) + "\n")
    write(tmp_path, "t.json", "\ufeff[" + ",\n".join(lines) + "]")
    for name in ("t.parquet", "t.csv", "t.jsonl", "t.json"):
        losses_read = read(tmp_path / name)
        assert losses_read.equals(wanted), name
        assert losses_read["config"][0] == "007"


def test_own_thousandths_come_back_from_every_kind(tmp_path: Path) -> None:
    frame = check(pl.DataFrame(ROWS))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_ndjson(tmp_path / "t.jsonl")
    # Parquet keeps the very columns and types that froc writes; elsewhere whole numbers are thousandths where said
    assert read(tmp_path / "t.parquet").equals(frame)
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        assert read(tmp_path / name, scale="thousandths").equals(frame)
    for name in ("t.csv", "t.jsonl"):
        with pytest.raises(InputError, match=f"{name}: row 2: .* any scale; .*--scale thousandths"):
            read(tmp_path / name)


@pytest.mark.parametrize("grades", [[0, 5], [1, 5], [0, 10], [0, 100], [3, 4], [2, 2]])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "int16.parquet"])
def test_grades_are_no_thousandths(tmp_path: Path, grades: list[int], kind: str) -> None:
    """Scores of a judge, percentages, counts: a model that knows everything had a loss of .003 by them."""
    whole = pl.Int16 if kind.startswith("int16") else pl.Int64
    frame = pl.DataFrame(ROWS).with_columns(loss=pl.Series(grades * 6, dtype=whole))
    path = tmp_path / f"t.{kind}"
    writers: dict[str, Any] = {"csv": frame.write_csv, "jsonl": frame.write_ndjson}
    writers.get(kind, frame.write_parquet)(path)
    _refused(path, "whole number above 1, and whole numbers may be on any scale; divide")


def test_whole_zeros_and_ones_are_losses(tmp_path: Path) -> None:
    """On no scale could they be larger."""
    losses_read = read(write(tmp_path, "t.csv", HEAD + "a,r,q1,0\na,r,q2,1\n"))
    assert losses_read["loss"].to_list() == [0, 1000]


def test_a_scale_that_is_said_must_be_borne_out(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", HEAD + "a,r,q1,0.5\na,r,q2,1\n")
    with pytest.raises(InputError, match="no whole numbers, although"):
        read(path, scale="thousandths")
    with pytest.raises(InputError, match="no scale is called 'percent'"):
        read(path, scale="percent")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_of_spreadsheets(tmp_path: Path, delimiter: str, end: str) -> None:
    """Delimiters, byte order marks, capitals, decimal commas: the same table."""
    lines = [["Config", " RISK", "Query", "Loss"], ["a", "r", "q1", "0.25"], ["a", "r", "q2", "1.0"]]
    text = end.join(delimiter.join(line) for line in lines)
    assert read(write(tmp_path, "t.csv", "\ufeff" + text))["loss"].to_list() == [250, 1000]
    if delimiter != ",":
        assert read(write(tmp_path, "c.csv", text.replace(".", ",")))["loss"].to_list() == [250, 1000]
        _refused(write(tmp_path, "m.csv", text.replace("0.25", "0,25")), "row 1: loss is no number")
    for name in ("u.csv", "u.jsonl"):
        _refused(write(tmp_path, name, text.encode("utf-16")), "UTF-16")


def test_capitals_are_read_everywhere(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS).rename(str.title)
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ndjson(tmp_path / "t.jsonl")
    for name in ("t.parquet", "t.jsonl"):
        assert read(tmp_path / name).equals(check(pl.DataFrame(ROWS)))
    _refused(write(tmp_path, "t.csv", "loss,Loss,config,risk,query\n"), "a column is there twice")


HEAD = "config,risk,query,loss\n"


def test_csv_quotes_blanks_and_exponents(tmp_path: Path) -> None:
    content = '\ufeffconfig, risk,query,loss\r\n"a,\n""b""",r,q1, 1e-1 \r\n\r\n"a,\n""b""",r,q2,1.\r\n'
    losses_read = read(write(tmp_path, "t.csv", content))
    assert losses_read["config"].to_list() == ['a,\n"b"'] * 2
    assert losses_read["loss"].to_list() == [100, 1000]


BAD_CSV: list[tuple[str | bytes, str]] = [
    ("", "empty"),
    (HEAD, "empty"),
    ("config,risk,query\na,r,q\n", "no column 'loss'"),
    ("config,risk,query,loss,loss\n", "a column is there twice"),
    (HEAD + "a,r,q1,0.5\na,r,q2\n", "row 2 has 3 fields, the header has 4"),
    (HEAD + "a,r,q1,0.5\na,r,q2,nan\n", "row 2: loss is no number"),
    (HEAD + "a,r,q1,0.5\na,r,q2,\n", "row 2: loss is missing"),
    (HEAD + "a,r,q1,1_0\n", "row 1: loss is no number"),
    (HEAD + "a,r,q1,0.5\na,r,q2,1.0000001\n", "row 2: loss is no number in"),
    (HEAD + f"a,r,q1,{'9' * 400}\n", "row 1: loss is a whole number above 1"),
    (HEAD + "a,r,q1,0.5\na,r,q1,0.5\n", "row 2: repeats an earlier row"),
    (HEAD + "a,r,q1,0.5\n,r,q2,0.5\n", "row 2: config is missing"),
    (HEAD + "a,r,q1,0.5\nb,r,q2,0.5\n", "'a' lacks 1 calibration queries"),
    (HEAD + 'a,r,"q1,0.5\n', "line 2: no valid CSV"),
    (HEAD.encode() + b"a,r,q\xff,0.5\n", "not UTF-8 .byte 28"),
]
ROW = '{"config": "a", "risk": "r", "query": "q1", "loss": 0.5}\n'
BAD_JSON: list[tuple[str | bytes, str]] = [
    ("", "empty"),
    ("[]", "empty"),
    (ROW + '{"config": "a",\n', r"no whole JSON \(line 2\)"),
    (ROW + "[1]\n", "row 2 is no object"),
    ("[" + ROW + ", 3]", "row 2 is no object"),
    (ROW + '{"config": "a", "risk": "r", "query": "q2"}', "row 2: loss is missing"),
    (ROW + '{"config": "a", "risk": "r", "query": "q2", "loss": NaN}', "row 2: loss is no number in"),
    (ROW + '{"config": "a", "risk": "r", "query": "q2", "loss": true}', "row 2: loss is no number"),
    (ROW + '{"config": "a", "risk": "r", "query": "q2", "loss": "0.1"}', "row 2: loss is no number"),
    (ROW + '{"config": "a", "risk": "r", "query": "q2", "loss": 1' + "0" * 400 + "}", "row 2: loss is outside"),
    (ROW + '{"config": null, "risk": "r", "query": "q2", "loss": 0.1}', "row 2: config is missing"),
    (ROW + '{"config": ["a"], "risk": "r", "query": "q2", "loss": 0.1}', "row 2: config is no text"),
    (
        ROW + '{"config": "a", "risk": "r", "query": "q2", "loss": 0.1, "splt": "search"}',
        "row 2: unknown column 'splt'",
    ),
    (b'{"config": "\xff"}', "not UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), BAD_CSV)
def test_bad_csv(tmp_path: Path, content: str | bytes, message: str) -> None:
    _refused(write(tmp_path, "t.csv", content), message)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
@pytest.mark.parametrize(("content", "message"), BAD_JSON)
def test_bad_json(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    _refused(write(tmp_path, name, content), message)


def test_bad_parquet_and_bad_names(tmp_path: Path) -> None:
    _refused(write(tmp_path, "t.parquet", b"PAR1 but not really"), "no readable Parquet")
    _refused(write(tmp_path, "t.txt", ROW), "ends in none of")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none.csv")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path)
    pl.DataFrame(ROWS).with_columns(loss=pl.lit([0.1])).write_parquet(tmp_path / "list.parquet")
    _refused(tmp_path / "list.parquet", "the column loss holds List")


def test_whatever_a_format_reads_is_checked() -> None:
    """A format need not look at what it gives: 1.5 is no loss, and a table that is one gets its columns."""
    rows = {"config": ["a"] * 2, "risk": ["r"] * 2, "query": ["q1", "q2"]}
    with pytest.raises(InputError, match="row 2: loss is no number in"):
        Read(pl.DataFrame(rows | {"loss": [0.5, 1.5]}))
    result = Read(pl.DataFrame(rows | {"loss": [0.5, 1.0]}))
    assert dict(result.losses.schema) == SCHEMA
    assert result.losses["loss"].to_list() == [500, 1000]


def _refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    text: Any = str(caught.value)
    assert text.startswith(path.name)
    assert text.count(path.name) == 1
    assert "\n" not in text
