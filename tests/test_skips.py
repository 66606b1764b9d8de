"""A run with a test that is skipped for a reason that tests/conftest.py does not expect fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("skip", "workers", "code"),
    [
        ("pytest.skip('the logs are not at hand')", 1, 0),
        ("pytest.skip('it was red')", 0, 1),
        ("pytest.importorskip('no_such_package')", 1, 1),
    ],
)
def test_an_unexpected_skip_fails(tmp_path: Path, skip: str, workers: int, code: int) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(f"import pytest\n\ndef test_it():\n    {skip}\n", encoding="utf-8")
    # other plugins take seconds to import
    words = [
        "-p",
        "tests.conftest",
        "-p",
        "xdist",
        "-n",
        str(workers),
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *words, "-c", "/dev/null", str(test)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert ("does not expect" in done.stdout) == (code == 1)
