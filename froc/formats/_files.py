"""Log files: finding and naming them, and parsing their bytes as JSON. Torch-free."""

import gzip
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from froc.errors import InputError

GZIP = b"\x1f\x8b"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
MAX_UNPACKED_BYTES = 1 << 32
"""Largest decompressed size of a file, in bytes."""


class JsonError(InputError):
    """Invalid JSON. line: of the error, from 1."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def text_of(data: bytes) -> str:
    """UTF-8 text of plain or gzip bytes, with or without byte order mark; InputError for other encodings."""
    if data[:2] == GZIP:
        data = _unpacked(data)
    if data[:2] in UTF16:
        raise InputError("this is UTF-16, which spreadsheets call Unicode text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start}); is it this format's file?") from error


def _unpacked(data: bytes) -> bytes:
    try:
        whole = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("the gzip data ends too early or is damaged; copy the file again") from error
    if len(whole) > MAX_UNPACKED_BYTES:
        raise InputError(
            f"the gzip data unfolds to more than {MAX_UNPACKED_BYTES >> 30} GiB; give the log without its transcripts"
        )
    return whole


def json_of(text: str) -> Any:
    """A JSON document, with NaN and infinities. Duplicate keys are refused, as a value would be lost."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise JsonError(_broken(error.lineno), error.lineno) from error
    except (RecursionError, ValueError) as error:  # ValueError: a whole number of thousands of digits
        raise JsonError(_broken(None), None) from error


def lines_of(text: str) -> list[Any]:
    """JSON Lines. Lines end at `\\n` alone: U+2028, U+0085 and others may stand inside of strings."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json_of(line))
            except JsonError as error:
                raise JsonError(_broken(number), number) from error
    return rows


def _broken(line: int | None) -> str:
    where = f" (line {line})" if line is not None else ""
    return f"no whole JSON{where}; the tool may have been stopped while writing, run it again"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise InputError("an object has a key twice, so that one of its values would be lost; write the log again")
    return document


def inside(paths: Sequence[Path], patterns: Sequence[str], no_logs: Sequence[str] = ()) -> dict[Path, bool]:
    """File -> whether it was found in a given folder rather than given itself. no_logs: names of files to ignore."""
    found_in_folder: dict[Path, bool] = {}
    for path in paths:
        if path.is_dir():
            files = sorted({f for pattern in patterns for f in path.rglob(pattern) if f.name not in no_logs})
            if not files:
                raise InputError(f"{path} holds no {' or '.join(patterns)}; give the files themselves")
            found_in_folder |= {file: found_in_folder.get(file, True) for file in files}
        elif path.is_file():
            found_in_folder[path] = False
        else:
            raise InputError(f"{path} does not exist; give a log, or a folder of them")
    return found_in_folder


def tail(path: Path, folders: Sequence[Path]) -> str:
    """The path below the given folder that holds it."""
    for folder in folders:
        if folder.is_dir() and path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def names(paths: Sequence[Path]) -> dict[Path, str]:
    """Short names for paths: their words that are not common to all, or their paths below the common folder.

    Text after a # in a path's last part is used only to distinguish equal names.
    """
    bare = {path: path.with_name(path.name.partition("#")[0] or path.name) for path in paths}
    told_apart = len(set(bare.values())) == len(paths)
    places = {path: (bare[path] if told_apart else path).resolve() for path in paths}
    # a file is named by its folder where every file has its own
    folders = {path: place.parent if path.is_file() else place for path, place in places.items()}
    if len(set(folders.values())) == len(paths):
        places = folders
    if len(paths) == 1:
        return {path: place.name for path, place in places.items()}
    top = Path(os.path.commonpath(places.values()))
    below = {path: place.relative_to(top) for path, place in places.items()}
    words = {path: [word for part in place.parts for word in part.split("_")] for path, place in below.items()}
    return _short(words) or {path: place.as_posix() for path, place in below.items()}


def _short(words: Mapping[Path, Sequence[str]]) -> dict[Path, str] | None:
    """Names without common words; None where those are not distinct."""
    shared = set.intersection(*(set(parts) for parts in words.values()))
    short = {path: "_".join(dict.fromkeys(w for w in parts if w not in shared)) for path, parts in words.items()}
    return short if all(short.values()) and len(set(short.values())) == len(words) else None
