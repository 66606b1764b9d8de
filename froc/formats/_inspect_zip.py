"""Inspect's `.eval` files: zip archives of a header and one JSON document per sample and epoch.

Nothing is unpacked to disk and no name of an entry is used as a path. Of a sample only what is scored is kept.
"""

import io
import re
import zipfile
import zlib
from typing import Any

from froc.errors import InputError
from froc.formats._files import json_of, text_of

ZIP = b"PK\x03\x04"
HEADER = "header.json"
SAMPLE = re.compile(r"samples/[^/]+(\.json|/sample\.json)")
KEPT_KEYS = ("id", "epoch", "target", "scores", "invalidation")
LARGEST_ENTRY = 1 << 30
LARGEST_TOTAL = 1 << 34
MOST_ENTRIES = 1_000_000
CONVERT = "convert it with Inspect: inspect log convert --to json --output-dir DIR FILE"


def log_of(data: bytes) -> Any:
    """The archive as the JSON document that Inspect writes with `--log-format json`, without transcripts.

    Raises InputError for archives that are damaged, encrypted, larger than any log or compressed in a way that this Python
    cannot undo. A log without a header has no samples: its evaluation did not end.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _document(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InputError("the zip archive ends too early or is damaged; copy the file again") from error
    # zipfile's own words for an unknown compression, and for a password that it was not given
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"the zip archive is encrypted, or packed as this Python cannot unpack; {CONVERT}") from error


def _document(archive: zipfile.ZipFile) -> Any:
    # a rewritten entry occurs twice; the last one counts
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries.values()) > LARGEST_TOTAL:
        raise InputError(f"the archive unfolds to more than {LARGEST_TOTAL >> 30} GiB; {CONVERT}")
    if HEADER not in entries:
        if "_journal/start.json" not in entries:
            raise InputError(f"the archive holds no {HEADER}; is it a log of Inspect?")
        return {"status": "started"}
    header = _entry(archive, entries[HEADER])
    if not isinstance(header, dict):
        raise InputError(f"{HEADER} of the archive is no object; is it a log of Inspect?")
    samples = (_entry(archive, entry) for name, entry in entries.items() if SAMPLE.fullmatch(name))
    return header | {"samples": [_scored(sample) for sample in samples]}


def _scored(sample: Any) -> Any:
    return {key: sample[key] for key in KEPT_KEYS if key in sample} if isinstance(sample, dict) else sample


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    with archive.open(entry) as stream:
        # the size that an archive states may be a lie
        data = stream.read(LARGEST_ENTRY + 1)
    if len(data) > LARGEST_ENTRY:
        raise InputError(f"an entry of the archive unfolds to more than {LARGEST_ENTRY >> 30} GiB; {CONVERT}")
    return json_of(text_of(data))
