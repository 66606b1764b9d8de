"""Diagnostics that fail after calibration was opened: certificate and model are written, and the same call computes what is missing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from froc.cli.search import finish
from froc.cli.show.summary import summary
from froc.models.base import Base
from froc.reporting import landscape
from froc.search import diagnosis
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from tests.search.small_search import Watch, job

FAILURES = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), ValueError("what a row says")]


@pytest.fixture(scope="module")
def whole(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without failures."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(job(base), out, Watch())
    return out


def _failing(out: Path, failure: BaseException, before: Callable[[], None] = lambda: None) -> Callable[[Base], Any]:
    """A run into `out` whose diagnostics fail."""

    def failing(*_: Any) -> Any:
        before()
        raise failure

    def certificate(base: Base) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(diagnosis, "observe", failing)
            return run(job(base), out, Watch())

    return certificate


@pytest.fixture(scope="module")
def failed(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose diagnostics have failed and the openings that it counted; in `before`, copies from just before the diagnostics."""
    place = tmp_path_factory.mktemp("failed")

    def copied() -> None:
        shutil.copytree(place, place / "before", ignore=shutil.ignore_patterns("before"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        _failing(place / "run", FAILURES[0], copied)(base)
    return place


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_the_certificate_does_not_wait_for_diagnostics(
    base: Base, whole: Path, failed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    out = tmp_path / "run"
    if failure is FAILURES[0]:
        shutil.copytree(failed, tmp_path, dirs_exist_ok=True)
        certificate = json.loads((out / "certificate.json").read_text(encoding="utf-8"))
    else:
        # from what is calibrated, without training again
        shutil.copytree(failed / "before", tmp_path, dirs_exist_ok=True)
        (out / "certificate.json").unlink()
        shutil.rmtree(out / "model", ignore_errors=True)
        certificate = _failing(out, failure)(base)
    assert certificate["chosen"]
    assert (out / "certificate.json").read_bytes() == (whole / "certificate.json").read_bytes()
    assert (out / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    document = json.loads((out / "diagnostics.json").read_text(encoding="utf-8"))
    assert set(document) == {"exchangeability", "missing"}
    assert "WARNING diagnostics are missing" in (out / "run.log").read_text(encoding="utf-8")
    assert "what a row says" not in (out / "run.log").read_text(encoding="utf-8") + str(document)
    summary(out, certificate)
    printed = capsys.readouterr().err
    assert "diagnostics are missing" in printed
    assert "same command" in " ".join(printed.split())
    # the same call trains and opens nothing, and computes what is missing
    watch = Watch()
    assert run(job(base), out, watch) == certificate
    assert watch.started == []
    assert (out / "diagnostics.json").read_bytes() == (whole / "diagnostics.json").read_bytes()
    assert not (out / "weights").exists()


def test_a_run_without_diagnostics_whose_weights_are_gone_stays_as_it_is(base: Base, whole: Path) -> None:
    """Such as runs of older versions."""
    kept = (whole / "diagnostics.json").read_bytes()
    (whole / "diagnostics.json").unlink()
    try:
        assert run(job(base), whole, Watch()) == Folder(whole).read(whole / "certificate.json")
        assert not (whole / "diagnostics.json").exists()
    finally:
        (whole / "diagnostics.json").write_bytes(kept)


def test_figures_that_fail_leave_a_result_and_a_warning(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(landscape, "draw", failing)
    certificate = json.loads((whole / "certificate.json").read_text(encoding="utf-8"))
    finish(whole, certificate, False, False)
    printed = capsys.readouterr()
    assert "figures are missing (MemoryError)" in printed.err
    assert certificate["chosen"] in printed.out
