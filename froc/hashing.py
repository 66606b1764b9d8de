"""SHA-256 digests as lower-case hexadecimal strings, HMACs, and seeds derived from them."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_parts(*parts: "bytes | memoryview") -> str:
    """SHA-256 of the concatenated parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sha256_json(document: Any) -> str:
    """SHA-256 of a JSON document with sorted keys and no blanks (for comparison within froc only)."""
    return sha256_bytes(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_files(folder: Path) -> dict[str, str]:
    """POSIX path below `folder` -> digest, for every regular file, sorted by the path's bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    paths = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_file(paths[name]) for name in sorted(paths, key=str.encode)}


def sha256_tree(files: dict[str, str]) -> str:
    """Digest over names and contents, after in-toto's `dirHash`: SHA-256 of the sorted `sha256sum` lines."""
    lines = (f"{files[name]}  {name}\n" for name in sorted(files, key=str.encode))
    return sha256_bytes("".join(lines).encode())


def hmac_sha256(key: bytes, *parts: str) -> str:
    """HMAC-SHA256 of length-prefixed parts, so that different lists of parts have different messages."""
    message = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed derived from all parts: independent random streams from one recorded seed.

    >>> derive_seed("trial", 7) == derive_seed("trial", 7), derive_seed("trial", 7) == derive_seed("trial", 8)
    (True, False)
    """
    text = "\x00".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
