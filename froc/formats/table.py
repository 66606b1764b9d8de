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
from froc.formats._files import json_of, lines_of, text_of
from froc.loss_table import REQUIRED, SCALE, SCHEMA, refuse_unknown_scale
from froc.risk.positive_control import BASE

SUFFIXES = (".parquet", ".csv", ".jsonl", ".json")
WHOLE = r"^\s*\d+\s*$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
COMMA = r"^\s*[+-]?\d+(,\d+)?\s*$"
"""A number with a decimal comma, as spreadsheets write it where fields end in ; or tabs."""
DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Table(Format):
    """Parquet, CSV, JSON Lines or a JSON array with config, risk, query, loss (and metric, split, unit).

    scale: "thousandths" where losses are whole numbers 0..1000; elsewhere they are numbers in [0, 1].
    """

    scale: str | None = None

    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """The loss table. Rows count from 1."""
        refuse_unknown_scale(self.scale)
        if losses or base is not None:
            raise InputError("a loss table holds losses already; leave --loss and --base out")
        if len(paths) != 1:
            raise InputError(f"{len(paths)} loss tables were given; put all configurations into one")
        return _read(paths[0], self.scale)


def _read(path: Path, scale: str | None) -> Read:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a loss table ({', '.join(SUFFIXES)})")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} ends in none of {', '.join(SUFFIXES)}; name it by what it holds")
    read = {".csv": _csv, ".parquet": _parquet}.get(path.suffix, _json)
    try:
        frame = read(path)
        refuse_base(frame)
        return Read(frame, beforehand=True, scale=scale)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def refuse_base(frame: pl.DataFrame) -> None:
    """InputError for rows of the base model: in froc's own files they say what it lacks, and are no candidate's losses."""
    if "config" not in frame.columns or frame.schema["config"] != pl.String:
        return
    called = frame["config"].str.strip_chars().str.to_lowercase() == BASE
    if called.any():
        raise InputError(
            f"row {int(called.fill_null(False).arg_max() or 0) + 1}: a configuration is called {BASE}, as the base model is in froc's own "
            "files, where its rows say what it lacks; leave them out, or give a candidate another name"
        )


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return _lower(pl.read_parquet(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError("no readable Parquet file; write it again") from error


def _lower(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.rename(dict(zip(frame.columns, _columns(frame.columns), strict=True)))


def _columns(names: Sequence[str]) -> list[str]:
    """Column names without blanks and capitals; InputError where two are the same then."""
    cleaned = [name.strip().lower() for name in names]
    if len(set(cleaned)) < len(cleaned):
        raise InputError("a column is there twice; keep one of them")
    return cleaned


def _csv(path: Path) -> pl.DataFrame:
    """Text columns stay text, so that a config called 007 keeps its name."""
    text = text_of(path.read_bytes())
    delimiter = _delimiter(text)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise InputError(f"line {lines.line_num}: no valid CSV ({error}); mend that line") from error
    if not rows:
        raise InputError("the file is empty; give a header and at least one row")
    header, body = _columns(rows[0]), rows[1:]
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise InputError(f"row {number} has {len(row)} fields, the header has {len(header)}; mend it")
    columns = [list(column) for column in zip(*body, strict=True)] or [[] for _ in header]
    raw = pl.DataFrame(dict(zip(header, columns, strict=True)), schema=dict.fromkeys(header, pl.String))
    return raw.with_columns(_numbers(raw["loss"], delimiter)) if "loss" in header and body else raw


def _delimiter(text: str) -> str:
    """What stands between the fields of the header: the first delimiter that shows every column; a comma where none does."""
    for delimiter in DELIMITERS:
        header = next(csv.reader(io.StringIO(text.split("\n", 1)[0]), delimiter=delimiter), [])
        if set(REQUIRED) <= {name.strip().lower() for name in header}:
            return delimiter
    return DELIMITERS[0]


def _numbers(texts: pl.Series, delimiter: str) -> pl.Series:
    """Whole numbers where all are whole, else floats; blanks are missing."""
    stripped = texts.str.strip_chars()
    filled = stripped.set(stripped == "", None)
    if delimiter != "," and filled.str.contains(COMMA).all() and filled.str.contains(",").any():
        filled = filled.str.replace(",", ".", literal=True)
    bad = (~filled.str.contains(NUMBER)).fill_null(False).arg_true()
    if len(bad):
        raise InputError(f"row {bad[0] + 1}: loss is no number; write one in [0, 1], a query that failed counts as 1")
    whole = filled.str.contains(WHOLE).all()
    # a whole number too long for 64 bits becomes infinite here, and is refused as out of range
    return filled.cast(pl.Float64).clip(upper_bound=1e9).cast(pl.Int64) if whole else filled.cast(pl.Float64)


def _json(path: Path) -> pl.DataFrame:
    text = text_of(path.read_bytes())
    rows = json_of(text) if text.lstrip().startswith("[") else lines_of(text)
    if not rows:
        raise InputError("the file is empty; give at least one row")
    rows = [_row(row, number) for number, row in enumerate(rows, start=1)]
    mixed = any(isinstance(row.get("loss"), float) for row in rows)
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns: dict[str, list[Any]] = {name: [_cell(row.get(name), name, mixed) for row in rows] for name in names}
    kinds = {name: (pl.Float64 if mixed else pl.Int64) if name == "loss" else pl.String for name in names}
    return pl.DataFrame(columns, schema=kinds)


def _row(row: Any, number: int) -> dict[str, Any]:
    """A row with lower-case names; InputError for what is no row."""
    if not isinstance(row, dict):
        raise InputError(f"row {number} is no object; give config, risk, query and loss")
    try:
        named = dict(zip(_columns(list(row)), row.values(), strict=True))
    except InputError as error:
        raise InputError(f"row {number}: {error}") from error
    for name, value in named.items():
        if name not in SCHEMA:
            raise InputError(f"row {number}: unknown column {name!r}; remove it (known: {', '.join(SCHEMA)})")
        if value is None:
            continue
        kinds = int | float if name == "loss" else str | int
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise InputError(f"row {number}: {name} is no {'number' if name == 'loss' else 'text'}; mend it")
        if name == "loss" and isinstance(value, int) and not 0 <= value <= SCALE:
            raise InputError(f"row {number}: loss is outside 0..{SCALE} thousandths; map it there")
    return named


def _cell(value: Any, name: str, mixed: bool) -> Any:
    if value is None:
        return None
    if name == "loss":
        return float(value) if mixed else value
    return str(value)
