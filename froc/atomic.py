"""Atomic writes and locks: every file that froc writes appears whole or not at all, and no symbolic link is followed. Torch-free.

Data go to a temporary file with a random name (O_EXCL, O_NOFOLLOW), which is flushed to the disk and renamed. A target that
is a symbolic link is refused, so that no file elsewhere is replaced.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from froc.errors import InputError

UNFINISHED = ".part"
"""How the names of files that are being written end: no pattern such as *.json matches one."""


def write_text(path: Path, text: str, *, parents: bool = True) -> None:
    """Replace a file by `text` in UTF-8, whole or not at all. InputError where the place is a symbolic link.

    parents: make folders that are missing; else FileNotFoundError.
    """
    if not parents and not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666, beside: Path | None = None) -> None:
    """Replace a file by `data`, whole or not at all. InputError where the place is a symbolic link.

    mode: permissions before the umask. beside: folder on the same disk that the temporary file lies in; the file's own by default.
    """
    with replacing(path, mode=mode, beside=beside) as part, part.open("r+b") as stream:
        stream.write(data)


@contextmanager
def replacing(path: Path, *, mode: int = 0o666, beside: Path | None = None) -> Iterator[Path]:
    """An empty file under a random name, for libraries that write to a path; it takes the place of `path` at the end."""
    refuse_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = (beside or path.parent) / f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}"
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        refuse_link(path)
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):  # renamed, it is no longer here
            part.unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder that nobody writes to now."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def create(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file that is not there yet; FileExistsError where anything is."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def lock(path: Path, *, wait: bool = True) -> IO[str]:
    """A lock file, open and locked until it is closed; created where there is none.

    wait: until the process that holds it releases it; else BlockingIOError where another process holds it. Raises InputError
    where the path is a symbolic link, OSError where the file cannot be opened.
    """
    refuse_link(path)
    stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise
    return stream


def open_log(path: Path) -> IO[str]:
    """A file in UTF-8 that lines are added to; made where there is none. InputError where the place is a symbolic link."""
    refuse_link(path)
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a", encoding="utf-8"
    )


def refuse_link(path: Path) -> None:
    """InputError where a file that is to be written is a symbolic link."""
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link, which is not written through; remove it, or choose another place")
