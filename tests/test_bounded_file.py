"""Files of unknown origin are read up to a limit, and only where they are plain."""

import os
from pathlib import Path

import pytest

from froc import bounded_file


def test_a_plain_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path, link = tmp_path / "plain", tmp_path / "link"
    path.write_bytes(b"12345")
    link.symlink_to(path)
    assert bounded_file.read(path, 5) == bounded_file.read(link, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        bounded_file.read(path, 4)
    with pytest.raises(OSError, match="symbolic links"):
        bounded_file.read(link, 5, links=False)
    with pytest.raises(FileNotFoundError):
        bounded_file.read(tmp_path / "absent", 5)
    with pytest.raises(OSError, match="no plain file"):
        bounded_file.read(tmp_path, 5)


def test_a_file_that_grows_while_it_is_read_is_still_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fstat = tmp_path / "log", os.fstat
    path.write_bytes(b"12345")

    def then_grow(handle: int) -> os.stat_result:
        facts = fstat(handle)
        with path.open("ab") as stream:
            stream.write(b"6")
        return facts

    monkeypatch.setattr(os, "fstat", then_grow)
    with pytest.raises(OSError, match="more than 5 bytes"):
        bounded_file.read(path, 5)


def test_a_refused_folder_is_closed(tmp_path: Path) -> None:
    """The system gives the smallest free number to the next file that is opened."""
    numbers = []
    for _ in range(2):
        handle = os.open(tmp_path, os.O_RDONLY)
        numbers.append(handle)
        os.close(handle)
        with pytest.raises(OSError, match="no plain file"):
            bounded_file.read(tmp_path, 5)
    assert numbers[0] == numbers[1]
