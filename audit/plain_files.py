"""Reading files of folders that somebody else filled, without following links, blocking on a pipe, or exhausting memory."""

import errno
import os
import stat
from pathlib import Path

from froc.errors import VerificationError


def read(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes. VerificationError for a link, a pipe, a device, or a larger file."""
    try:
        return _read(path, limit, os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise VerificationError("bundle-file-too-large", f"{path.name} holds more than {limit} bytes") from error
        raise VerificationError("bundle-symlink-or-special", f"{path.name} is no plain readable file") from error


def named(path: Path, limit: int) -> bytes:
    """The same of a file that the user names, which may be a link; OSError, whose `strerror` says what it is instead."""
    return _read(path, limit, 0)


def _read(path: Path, limit: int, flags: int) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags), "rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        data = stream.read(limit + 1) if facts.st_size <= limit else b""
        if facts.st_size > limit or len(data) > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
    return data
