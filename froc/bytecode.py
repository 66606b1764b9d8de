"""Whether Python runs what a source file says: its compiled cache may hold other code. Torch-free."""

import importlib.util
import marshal
from pathlib import Path

from froc.errors import InputError


def refuse_other(source: Path) -> None:
    """InputError where Python would run a cache in `__pycache__` that is not what the source compiles to.

    A cache that Python itself ignores, of another version or of an edited source, is no difference.
    """
    try:
        cache = Path(importlib.util.cache_from_source(str(source)))
        data = cache.read_bytes()
    except (FileNotFoundError, NotImplementedError):  # no cache, or an interpreter that keeps none
        return
    if not _is_used(data, source):
        return
    try:
        code = marshal.loads(data[16:])
    except (EOFError, TypeError, ValueError):
        code = None
    if code != compile(source.read_bytes(), str(source), "exec", dont_inherit=True):
        raise InputError(
            f"{cache} is not what {source.name} compiles to: other code would run than is named; remove it"
        )


def _is_used(cache: bytes, source: Path) -> bool:
    """By PEP 552: a cache names the source's time and size, or its hash, which is checked or not."""
    if cache[:4] != importlib.util.MAGIC_NUMBER:
        return False
    flags = int.from_bytes(cache[4:8], "little")
    if flags & 1:
        return not flags & 2 or cache[8:16] == importlib.util.source_hash(source.read_bytes())
    about = source.stat()
    times = int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF
    return (int.from_bytes(cache[8:12], "little"), int.from_bytes(cache[12:16], "little")) == times
