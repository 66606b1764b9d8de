"""Files that somebody else may have put there: read whole, without blocking on a pipe or exhausting memory. Torch-free."""

import errno
import os
import stat
from pathlib import Path

RUN_BYTES = 2**29
"""Largest run file that is read whole: a log of very many trials."""


def read(path: Path, limit: int, *, links: bool = True) -> bytes:
    """The content of a plain file of at most `limit` bytes; OSError otherwise, whose `strerror` says why.

    links: whether the file may be a symbolic link.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    handle = os.open(path, flags)
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    with os.fdopen(handle, "rb") as stream:
        data = stream.read(limit + 1) if facts.st_size <= limit else b""
        if facts.st_size > limit or len(data) > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
    return data
