"""Every benchmark's quick form still runs: by `python -m pytest -m benchmark [-k NAME]`. A run of all tests takes a short one in turn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICK = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if '"--quick"' in path.read_text())
SHORT = ("arrows", "guarantees", "monitoring", "planning", "pythons", "verifying")
"""What takes at most 20 seconds of processor time: the number of commits says which of them a run of all tests takes."""
HOURS = 3600


def short_one() -> str:
    """The same for every process that tests a commit; the first where nobody counts commits."""
    command = ["git", "rev-list", "--count", "HEAD"]
    counted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return SHORT[int(counted or 0) % len(SHORT)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All benchmarks where they are asked for."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", QUICK if metafunc.config.option.markexpr == "benchmark" else [short_one()])


@pytest.mark.benchmark
@pytest.mark.timeout(HOURS)
def test_the_quick_form_runs(name: str, tmp_path: Path) -> None:
    """Whether its promises hold depends on what else the machine does; that it ends, and with its figures, does not."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FROC_STATE": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    print(last)
    assert isinstance(json.loads(last), dict)


def test_short_ones_are_benchmarks_with_a_quick_form() -> None:
    assert set(SHORT) <= set(QUICK)
