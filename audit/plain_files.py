"""Reading files of folders that somebody else filled, without following links, blocking on a pipe, or exhausting memory."""

import os
import stat
from pathlib import Path

from froc.errors import VerificationError


def read(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes. VerificationError for a link, a pipe, a device, or a larger file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise VerificationError("bundle-symlink-or-special", f"{path.name} is no plain readable file") from error
    with os.fdopen(handle, "rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise VerificationError("bundle-symlink-or-special", f"{path.name} is no plain file")
        data = stream.read(limit + 1) if facts.st_size <= limit else b" " * (limit + 1)
    if len(data) > limit:
        raise VerificationError("bundle-file-too-large", f"{path.name} holds more than {limit} bytes")
    return data
