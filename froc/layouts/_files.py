"""Files of benchmarks: found under any of the endings they are published with, read, and cut where they are long."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from froc.data import Row, read_rows, records
from froc.errors import InputError

SUFFIXES = (".json", ".jsonl", ".parquet")
LONGEST = 1000
"""UTF-8 bytes of a row of plain text: no byte-level tokenizer makes more tokens of them than `froc.batches.encode` takes."""
SHORTEST = 50
"""Characters that a row of plain text has at least; what is left of a text is dropped (RMU's code does so too)."""
END = re.compile(r"[.!?][\"')\]”’]*\s+|\n\s*\n")


def paths(folder: Path, *names: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The file of the first of some names that is there, or its Parquet shards; [] where none is.

    `a/b` is found as a/b.json, a/b.jsonl, a/b.parquet, a/b-00000-of-00001.parquet or a/b/test-00000-of-00001.parquet.
    """
    for name in names:
        found = [folder / f"{name}{suffix}" for suffix in suffixes if (folder / f"{name}{suffix}").is_file()]
        if len(found) > 1:
            raise InputError(f"{folder} holds {found[0].name} and {found[1].name}; keep one of them")
        place = folder / name
        shards = sorted(place.parent.glob(f"{place.name}-*-of-*.parquet")) or sorted(place.glob("*-*-of-*.parquet"))
        if found or shards:
            return found or shards
    return []


def needed(folder: Path, *names: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """As `paths`; InputError where none is there."""
    found = paths(folder, *names, suffixes=suffixes)
    if not found:
        raise InputError(
            f"{folder} has no {' nor '.join(names)} ({', '.join(suffixes)}); take it from the benchmark's release"
        )
    return found


def questions(folder: Path, *names: str) -> tuple[Row, ...]:
    """Rows of question and answer of the first of some files."""
    return tuple(row for path in needed(folder, *names) for row in read_rows(path))


def objects(folder: Path, *names: str) -> list[tuple[str, dict[str, Any]]]:
    """Where each row stands (file and number, from 1) and the row; InputError for one that is no object."""
    found = []
    for path in needed(folder, *names):
        for number, record in enumerate(records(path), start=1):
            where = f"{path.name} row {number}"
            if not isinstance(record, dict):
                raise InputError(f"{where} is no object; take the file from the benchmark's release")
            found.append((where, record))
    if not found:
        raise InputError(f"{names[0]} is empty; take it from the benchmark's release")
    return found


def field(record: dict[str, Any], name: str, where: str) -> str:
    """A text of a row; InputError where it is missing, blank or no text."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        have = ", ".join(sorted(map(str, record)))
        raise InputError(f"{where}: {name!r} must be text that is not blank (it has: {have}); mend the row")
    return value


def texts(folder: Path, *names: str, most: int | None = None) -> list[str]:
    """Documents of the first of some files: a .txt file is one; else rows are strings or have a `text`.

    most: how many are read at most.
    """
    found: list[str] = []
    for path in needed(folder, *names, suffixes=(*SUFFIXES, ".txt")):
        if path.suffix == ".txt":
            found.append(_plain(path))
            continue
        left = None if most is None else most - len(found)
        for number, record in enumerate(records(path, left), start=1):
            where = f"{path.name} row {number}"
            row = {"text": record} if isinstance(record, str) else record
            if not isinstance(row, dict):
                raise InputError(f"{where} is neither text nor an object; give 'text'")
            found.append(field(row, "text", where))
        if most is not None and len(found) >= most:
            return found[:most]
    if not found:
        raise InputError(f"{names[0]} is empty; take it from the benchmark's release")
    return found


def _plain(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise InputError(f"{path.name} is empty; take it from the benchmark's release")
    return text


def pieces(text: str, longest: int = LONGEST) -> list[str]:
    """A text in order, in pieces of at most `longest` UTF-8 bytes, cut after sentences, else words, else anywhere."""
    found, start = [], 0
    while start < len(text):
        head = text[start : start + longest].encode()[:longest].decode("utf-8", "ignore")
        cut = len(head) if start + len(head) >= len(text) else _boundary(head)
        found.append(head[:cut].strip())
        start += cut
    return [piece for piece in found if len(piece) >= SHORTEST]


def _boundary(head: str) -> int:
    ends = [match.end() for match in END.finditer(head)]
    if ends and ends[-1] > len(head) // 2:
        return ends[-1]
    blank = max(head.rfind(" "), head.rfind("\n"), head.rfind("\t"))
    return blank + 1 if blank > 0 else len(head)


def plain(documents: Iterable[str], label: str, most: int | None = None) -> tuple[Row, ...]:
    """Rows of plain text, the document as their group; most: pieces of each document at most."""
    return tuple(
        Row("", piece, f"{label} {number}")
        for number, text in enumerate(documents, start=1)
        for piece in pieces(text)[:most]
    )
