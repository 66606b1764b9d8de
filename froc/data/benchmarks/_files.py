"""Files of benchmarks, with any of their published suffixes; long texts are cut."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from froc.data.passages import pieces
from froc.data.row_files import read
from froc.data.rows import Row, read_rows
from froc.errors import InputError

SUFFIXES = (".json", ".jsonl", ".parquet")


def paths(folder: Path, *names: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The first of these names that exists as a file, or its Parquet shards; [] if none does.

    `a/b` is found as a/b.json, a/b.jsonl, a/b.parquet, a/b-00000-of-00001.parquet or a/b/test-00000-of-00001.parquet.
    """
    for name in names:
        matches = [folder / f"{name}{suffix}" for suffix in suffixes if (folder / f"{name}{suffix}").is_file()]
        if len(matches) > 1:
            raise InputError(f"{folder} holds {matches[0].name} and {matches[1].name}; keep one of them")
        place = folder / name
        shards = sorted(place.parent.glob(f"{place.name}-*-of-*.parquet")) or sorted(place.glob("*-*-of-*.parquet"))
        if matches or shards:
            return matches or shards
    return []


def needed(folder: Path, *names: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """As `paths`; InputError where no such file exists."""
    matches = paths(folder, *names, suffixes=suffixes)
    if not matches:
        raise InputError(
            f"{folder} has no {' nor '.join(names)} ({', '.join(suffixes)}); take it from the benchmark's release"
        )
    return matches


def questions(folder: Path, *names: str) -> tuple[Row, ...]:
    """Rows of question and answer of the first of some files."""
    return tuple(row for path in needed(folder, *names) for row in read_rows(path))


def objects(folder: Path, *names: str) -> list[tuple[str, dict[str, Any]]]:
    """Each row with its location (file and number, from 1); InputError for a row that is no object."""
    rows = []
    for path in needed(folder, *names):
        for record in read(path):
            if not isinstance(record.value, dict):
                raise InputError(f"{record.origin} is no object; take the file from the benchmark's release")
            rows.append((record.origin, record.value))
    if not rows:
        raise InputError(f"{names[0]} is empty; take it from the benchmark's release")
    return rows


def field(record: dict[str, Any], name: str, where: str) -> str:
    """A text of a row; InputError where it is missing, blank or no text."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        have = ", ".join(sorted(map(str, record)))
        raise InputError(f"{where}: {name!r} must be text that is not blank (it has: {have}); mend the row")
    return value


def texts(folder: Path, *names: str, most: int | None = None) -> list[tuple[str, str]]:
    """Documents of the first of these files that exists, each with its location: a .txt file is one document; otherwise
    rows are strings or have a `text`.

    most: largest number of documents read.
    """
    documents: list[tuple[str, str]] = []
    for path in needed(folder, *names, suffixes=(*SUFFIXES, ".txt")):
        if path.suffix == ".txt":
            documents.append((_plain(path), path.name))
            continue
        left = None if most is None else most - len(documents)
        for record in read(path, left):
            row = {"text": record.value} if isinstance(record.value, str) else record.value
            if not isinstance(row, dict):
                raise InputError(f"{record.origin} is neither text nor an object; give 'text'")
            documents.append((field(row, "text", record.origin), record.origin))
        if most is not None and len(documents) >= most:
            return documents[:most]
    if not documents:
        raise InputError(f"{names[0]} is empty; take it from the benchmark's release")
    return documents


def _plain(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise InputError(f"{path.name} is empty; take it from the benchmark's release")
    return text


def plain(documents: Iterable[tuple[str, str]], label: str, most: int | None = None) -> tuple[Row, ...]:
    """Rows of plain text, the document as their group; most: pieces of each document at most."""
    return tuple(
        Row("", piece, f"{label} {number}", origin=origin)
        for number, (text, origin) in enumerate(documents, start=1)
        for piece in pieces(text)[:most]
    )
