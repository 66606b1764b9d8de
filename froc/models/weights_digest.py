"""One digest of a model's weights, independent of how files split them: names, dtypes, shapes and bytes. Torch-free.

The digest is `hashing.sha256_tree` over tensor name -> SHA-256 of `torch.DTYPE (SHAPE) ` followed by the tensor's
bytes, little-endian in C order, as safetensors holds them; the shape is written as a Python tuple. The number of files,
the order of tensors and header metadata do not count.

Tied weights: an output embedding (`HEADS`) with the dtype, shape and bytes of another tensor does not count. Most
savers omit such a copy and some write it; the digest is the same either way. Nothing else is left out.
"""

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from froc import hashing
from froc.errors import InputError

FILE_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md")
"""Suffixes of files in a model folder that are data: weights, tokenizer, configuration. No code, no pickles."""
HEADS = ("lm_head.weight", "embed_out.weight", "lm_head.decoder.weight", "cls.predictions.decoder.weight")
"""Names of output embeddings: a tensor's whole name, or its end after a dot."""
DTYPES = {
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "U16": ("uint16", 2), "I16": ("int16", 2), "U32": ("uint32", 4),
    "I32": ("int32", 4), "U64": ("uint64", 8), "I64": ("int64", 8), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "F32": ("float32", 4), "F64": ("float64", 8), "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8),
}  # fmt: skip
"""dtype in a safetensors header -> torch's name, and bytes per number."""
INDEX = ".safetensors.index.json"
"""Suffix of the index that lists which file holds which tensor."""
HEADER_BYTES = 2**25
"""Longest header, of some 200,000 tensors; the safetensors library reads three times as much. It takes twenty times as much memory."""
DIMENSIONS = 64
"""More dimensions than any tensor has; keeps products short."""
DISGUISES = {b"PK": "a zip archive, such as a pickled checkpoint", b"GGUF": "a GGUF file", b"\x1f\x8b": "a gzip archive", b"\x89HDF": "an HDF5 file"}  # fmt: skip
"""First bytes -> the kind of a file that is not safetensors."""
_TAR = 257


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file.

    dtype: as in the header.
    begin, end: its bytes, as offsets in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def prefix(self) -> bytes:
        """The bytes hashed before the tensor's own."""
        return prefix(f"torch.{DTYPES[self.dtype][0]}", self.shape)


def prefix(dtype: str, shape: Iterable[int]) -> bytes:
    """dtype and shape as hashed before a tensor's bytes; dtype: torch's full name.

    >>> prefix("torch.float32", (2, 3))
    b'torch.float32 (2, 3) '
    """
    return f"{dtype} {tuple(shape)} ".encode()


def of_tensors(parts: Mapping[str, str]) -> str:
    """The digest of a model. parts: tensor name -> SHA-256 of prefix and bytes."""
    own = {value for name, value in parts.items() if not is_head(name)}
    return hashing.sha256_tree({name: value for name, value in parts.items() if not (is_head(name) and value in own)})


def of_files(paths: Iterable[Path]) -> str:
    """The digest of the model in these safetensors files; each file is read once, in order.

    InputError for a file that is not a complete safetensors file, or a tensor that occurs twice.
    """
    parts: dict[str, str] = {}
    for path in paths:
        for name, value in _parts(path):
            if name in parts:
                raise InputError(f"{path.name} holds {name!r}, which another file holds, too; save the model again")
            parts[name] = value
    return of_tensors(parts)


def beside(files: Mapping[str, str]) -> dict[str, str]:
    """Of a model's files (name -> digest), those that are neither weights nor their index: they decide how weights are used."""
    return {name: value for name, value in files.items() if not name.endswith((".safetensors", INDEX))}


def of_folder(folder: Path) -> str:
    """The digest of the model in a folder's safetensors files."""
    return of_files(sorted(folder.glob("*.safetensors")))


def names(folder: Path) -> set[str]:
    """Names of the tensors in a folder's safetensors files."""
    return {tensor.name for path in folder.glob("*.safetensors") for tensor in header(path)}


def header(path: Path) -> list[Stored]:
    """The tensors of a safetensors file in the order of their bytes.

    InputError, saying what the file is instead, unless the header is plain JSON whose tensors cover the rest of the
    file without gap or overlap.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        first = stream.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or not 2 <= length <= min(HEADER_BYTES, size - 8):
            raise _broken(path, "it does not begin with a header's length")
        text = stream.read(length)
    try:
        read = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        entries = [_stored(name, entry, 8 + length) for name, entry in _tensors(read).items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(path, "its header is not as the format has it") from error
    entries.sort(key=lambda tensor: (tensor.begin, tensor.end))
    place = 8 + length
    for tensor in entries:
        if tensor.begin != place or tensor.end - tensor.begin != prod(tensor.shape) * DTYPES[tensor.dtype][1]:
            raise _broken(
                path, f"the bytes of {tensor.name!r} are not as many as its shape takes, or not in their place"
            )
        place = tensor.end
    if place != size:
        raise _broken(path, f"{abs(size - place)} bytes are {'left over' if size > place else 'missing'}")
    return entries


def disguise(first: bytes) -> str | None:
    """The kind of an archive or pickle, from a file's first 512 bytes; None for anything else."""
    known = next((kind for start, kind in DISGUISES.items() if first.startswith(start)), None)
    if known is None and first[_TAR : _TAR + 5] == b"ustar":
        known = "a tar archive, such as a pickled checkpoint"
    # pickle protocols 2 and later; older ones start with text, and nobody writes weights in them
    if known is None and first[:1] == b"\x80" and first[1:2] and first[1] in range(2, 6):
        known = "a pickle, which can run code"
    return known


def _parts(path: Path) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of every tensor, streamed from the file."""
    entries = header(path)
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        for tensor in entries:
            with view[tensor.begin : tensor.end] as part:
                yield tensor.name, hashing.sha256_parts(tensor.prefix, part)


def _tensors(read: Any) -> dict[str, Any]:
    metadata = read.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError
    return dict(read)


def _stored(name: str, entry: Mapping[str, Any], offset: int) -> Stored:
    begin, end = entry["data_offsets"]
    numbers = (begin, end, *entry["shape"])
    if set(entry) != {"dtype", "shape", "data_offsets"} or entry["dtype"] not in DTYPES:
        raise ValueError
    if len(entry["shape"]) > DIMENSIONS or any(
        type(number) is not int or not 0 <= number < 2**63 for number in numbers
    ):
        raise ValueError
    return Stored(name, entry["dtype"], tuple(entry["shape"]), offset + begin, offset + end)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError
    return made


def is_head(name: str) -> bool:
    """Whether a tensor has an output embedding's name.

    >>> is_head("model.lm_head.weight"), is_head("model.embed_tokens.weight")
    (True, False)
    """
    return any(name == head or name.endswith(f".{head}") for head in HEADS)


def _broken(path: Path, why: str) -> InputError:
    with path.open("rb") as stream:
        kind = disguise(stream.read(512))
    fault = f"is {kind}, under another name" if kind else f"is no whole safetensors file: {why}"
    return InputError(f"{path.name} {fault}; save the model with save_pretrained and give all of that folder")
