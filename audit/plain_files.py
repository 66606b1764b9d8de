"""Reading files of folders that somebody else filled, without following links, blocking on a pipe, or exhausting memory."""

import errno
from pathlib import Path

from froc import bounded_file
from froc.errors import VerificationError


def read(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes. VerificationError for a link, a pipe, a device, or a larger file."""
    try:
        return bounded_file.read(path, limit, links=False)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise VerificationError("bundle-file-too-large", f"{path.name} holds more than {limit} bytes") from error
        raise VerificationError("bundle-symlink-or-special", f"{path.name} is no plain readable file") from error
