"""Every benchmark's quick form still runs. Not part of the other tests: `python -m pytest -m benchmark [-k NAME]`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICK = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if '"--quick"' in path.read_text())
HOURS = 3600


@pytest.mark.benchmark
@pytest.mark.timeout(HOURS)
@pytest.mark.parametrize("name", QUICK)
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
