"""froc's own loss table."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from froc.errors import InputError
from froc.formats import Format, Read
from froc.losses import SCALE, SCHEMA
from froc.records import values as records

SUFFIXES = (".parquet", ".csv", ".jsonl", ".json")
WHOLE = r"^\s*\d+\s*$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class Table(Format):
    """Parquet, CSV, JSON Lines or a JSON array with config, risk, query, loss (and metric, split, unit)."""

    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """The loss table; losses are whole thousandths or floats in [0, 1]. Rows count from 1."""
        if losses or base is not None:
            raise InputError("a loss table holds losses already; leave --loss and --base out")
        if len(paths) != 1:
            raise InputError(f"{len(paths)} loss tables were given; put all configurations into one")
        return _read(paths[0])


def _read(path: Path) -> Read:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a loss table ({', '.join(SUFFIXES)})")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} ends in none of {', '.join(SUFFIXES)}; name it by what it holds")
    read = {".csv": _csv, ".parquet": _parquet}.get(path.suffix, _json)
    try:
        return Read(read(path), beforehand=True)
    except InputError as error:
        # errors of `records` name the file already
        named = str(error) if str(error).startswith(path.name) else f"{path.name}: {error}"
        raise InputError(named) from error


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError("no readable Parquet file; write it again") from error


def _csv(path: Path) -> pl.DataFrame:
    """Text columns stay text, so that a config called 007 keeps its name."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start}); save it as UTF-8") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise InputError(f"line {lines.line_num}: no valid CSV ({error}); mend that line") from error
    if not rows:
        raise InputError("the file is empty; give a header and at least one row")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    if len(set(header)) < len(header):
        raise InputError("a column is there twice; keep one of them")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise InputError(f"row {number} has {len(row)} fields, the header has {len(header)}; mend it")
    columns = [list(column) for column in zip(*body, strict=True)] or [[] for _ in header]
    raw = pl.DataFrame(dict(zip(header, columns, strict=True)), schema=dict.fromkeys(header, pl.String))
    return raw.with_columns(_numbers(raw["loss"])) if "loss" in header and body else raw


def _numbers(texts: pl.Series) -> pl.Series:
    """Whole numbers where all are whole, else floats; blanks are missing."""
    stripped = texts.str.strip_chars()
    filled = stripped.set(stripped == "", None)
    bad = (~filled.str.contains(NUMBER)).fill_null(False).arg_true()
    if len(bad):
        raise InputError(f"row {bad[0] + 1}: loss is no number; write one in [0, 1], a query that failed counts as 1")
    whole = filled.str.contains(WHOLE).all()
    # a whole number too long for 64 bits becomes infinite here, and is refused as out of range
    return filled.cast(pl.Float64).clip(upper_bound=1e9).cast(pl.Int64) if whole else filled.cast(pl.Float64)


def _json(path: Path) -> pl.DataFrame:
    rows = records(path)
    if not rows:
        raise InputError("the file is empty; give at least one row")
    for number, row in enumerate(rows, start=1):
        _refuse_row(row, number)
    mixed = any(isinstance(row.get("loss"), float) for row in rows)
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns: dict[str, list[Any]] = {name: [_cell(row.get(name), name, mixed) for row in rows] for name in names}
    kinds = {name: (pl.Float64 if mixed else pl.Int64) if name == "loss" else pl.String for name in names}
    return pl.DataFrame(columns, schema=kinds)


def _refuse_row(row: Any, number: int) -> None:
    if not isinstance(row, dict):
        raise InputError(f"row {number} is no object; give config, risk, query and loss")
    for name, value in row.items():
        if name not in SCHEMA:
            raise InputError(f"row {number}: unknown column {name!r}; remove it (known: {', '.join(SCHEMA)})")
        if value is None:
            continue
        kinds = int | float if name == "loss" else str | int
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise InputError(f"row {number}: {name} is no {'number' if name == 'loss' else 'text'}; mend it")
        if name == "loss" and isinstance(value, int) and not 0 <= value <= SCALE:
            raise InputError(f"row {number}: loss is outside 0..{SCALE} thousandths; map it there")


def _cell(value: Any, name: str, mixed: bool) -> Any:
    if value is None:
        return None
    if name == "loss":
        return float(value) if mixed else value
    return str(value)
