"""Files of a folder that was handed over never block and never exhaust memory."""

import os
from pathlib import Path

import pytest

from froc import bounded_file
from froc.errors import InputError
from froc.search.run_folder import Folder


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


@pytest.mark.parametrize("name", ["plan.json", "certificate.json", "trials.jsonl"])
def test_a_run_folder_with_an_endless_file_is_refused(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as stream:
        stream.truncate(2**40)
    folder = Folder(tmp_path)
    with pytest.raises(InputError, match="is damaged"):
        _ = folder.log() if name == "trials.jsonl" else folder.read(tmp_path / name)


def test_a_run_folder_with_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(InputError, match="is damaged"):
        Folder(tmp_path).require_plan()
