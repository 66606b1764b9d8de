"""A run folder of unknown origin: its links lead nowhere else, and its files neither block nor exhaust memory."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from froc.errors import InputError
from froc.search import run_folder
from froc.search.external_model import ExternalModel
from froc.search.run_folder import Folder, TrialRecord


@pytest.mark.parametrize("name", ["losses", "figures", "model", ".model.part", "plan.json"])
def test_a_folder_with_a_link_in_it_is_not_taken(tmp_path: Path, name: str) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (run / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=re.escape(f"{name} is a link")):
        Folder(run).hold()
    assert list(elsewhere.iterdir()) == []


def test_a_run_folder_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    folder = Folder(tmp_path / "run")
    folder.hold()
    folder.release()


def test_only_links_within_a_model_or_its_hub_cache_are_copied(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (snapshot / "config.json").symlink_to(blobs / "1")
    ExternalModel(snapshot).copy(tmp_path / "copied")
    assert (tmp_path / "copied" / "config.json").read_text() == "{}"
    (tmp_path / "secret").write_text("what nobody should read")
    (snapshot / "LICENSE.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"LICENSE\.txt is a link to a file outside the model's folder"):
        ExternalModel(snapshot).copy(tmp_path / "again")
    assert not (tmp_path / "again").exists()


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


def test_a_record_becomes_a_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial writes the log twice: its own records are all that may cost more than being written."""
    made: list[str] = []
    line = run_folder._line

    def counted(record: TrialRecord) -> str:
        made.append(record.config)
        return line(record)

    monkeypatch.setattr(run_folder, "_line", counted)
    folder = Folder(tmp_path)
    running = [TrialRecord(trial, 1, f"c{trial:04d}", "npo", {}, 0, "", "") for trial in range(3)]
    folder.write_log(running)
    ended = [replace(running[0], status="complete"), *running[1:]]
    folder.write_log(ended)
    folder.write_log(ended[1:])
    assert made == ["c0000", "c0001", "c0002", "c0000"]
    assert folder.log() == ended[1:]
    assert len(folder._lines) == 2
