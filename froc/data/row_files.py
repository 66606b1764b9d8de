"""Files of rows: JSON Lines, JSON array, Parquet, CSV. Torch-free."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from froc.errors import InputError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
DELIMITERS = (",", ";", "\t")
LONGEST_FIELD = 2**24
"""Characters of one field of a CSV file; the csv module's own limit is below that of a document."""


@dataclass(frozen=True)
class Record:
    """A row of a file. number: from 1; in JSON Lines the number of the line."""

    file: str
    number: int
    value: Any

    @property
    def origin(self) -> str:
        """File and number, for messages."""
        return f"{self.file} row {self.number}"


def read(path: Path, most: int | None = None) -> list[Record]:
    """The rows of a file, the first `most` of them; InputError names file and line."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; a task folder needs it")
    if path.suffix == ".parquet":
        try:
            return _numbered(path, pl.read_parquet(path, n_rows=most).to_dicts())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path.name} is no readable Parquet file; write it again") from error
    if path.suffix == ".csv":
        return list(itertools.islice(_table(path, _decoded(path, path.read_bytes())), most))
    text = _decoded(path, _head(path, most))
    if text.lstrip().startswith("["):
        return _numbered(path, _parsed(text, path.name, 1, list)[:most])
    if path.suffix == ".json" and (whole := _single(text, path.name)) is not None:
        return _numbered(path, [whole])
    lines = enumerate(text.split("\n"), start=1)
    return [Record(path.name, n, _parsed(line, path.name, n, dict)) for n, line in lines if line.strip()]


def values(path: Path, most: int | None = None) -> list[Any]:
    """The values of `read`."""
    return [record.value for record in read(path, most)]


def _numbered(path: Path, rows: Sequence[Any]) -> list[Record]:
    return [Record(path.name, number, row) for number, row in enumerate(rows, start=1)]


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _head(path: Path, most: int | None) -> bytes:
    """The first lines of a file that may be too large to be read whole; all of an array."""
    with path.open("rb") as stream:
        lines = b"".join(itertools.islice(stream, most))
        return lines + stream.read() if lines.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else lines


def _parsed(text: str, name: str, line: int, kind: type) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{name} line {line + error.lineno - 1}: invalid JSON ({error.msg}); mend that line"
        ) from error
    except RecursionError as error:
        raise InputError(f"{name} line {line}: JSON nested too deeply; a row is one flat object") from error
    _refuse_lone_surrogate(text, value, f"{name} line {line}")
    if not isinstance(value, kind):
        raise InputError(f"{name} line {line}: expected a JSON {'array' if kind is list else 'object'}")
    return value


def _refuse_lone_surrogate(text: str, value: Any, where: str) -> None:
    """InputError for half of a pair of escapes in a JSON value, which no encoding can write. text: what it was read from."""
    if "\\ud" not in text.lower():
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: half of a pair of \\u escapes is no character; write the text again as UTF-8"
        ) from error


def _single(text: str, name: str) -> dict[str, Any] | None:
    """The one object of a file that writes it over several lines; None for lines that are objects, or that are not JSON."""
    if text.lstrip().partition("\n")[0].rstrip().endswith("}"):
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    _refuse_lone_surrogate(text, value, f"{name} line 1")
    return value if isinstance(value, dict) else None


def _table(path: Path, text: str) -> Iterator[Record]:
    """Rows of a CSV file. The delimiter is the most frequent one in the header; empty fields are None."""
    header_line = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=header_line.count)
    csv.field_size_limit(LONGEST_FIELD)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise InputError(f"{path.name} line {lines.line_num}: no valid CSV ({error}); mend that line") from error
    header = [name.strip() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InputError(
                f"{path.name} row {number} has {len(row)} fields, the header has {len(header)}; put text with "
                f"{delimiter!r} or line breaks in double quotes"
            )
        yield Record(path.name, number, {name: value or None for name, value in zip(header, row, strict=True)})
