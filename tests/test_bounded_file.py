"""Files of unknown origin are read up to a limit, and only where they are plain."""

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
