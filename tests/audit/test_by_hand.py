"""docs/verify-by-hand.md and docs/audit.md say what is so: their code runs, their list of steps is the verifier's."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from froc.audit import cross_checks

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the page, as a reader would cut it out."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "verify-by-hand.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    path = tmp_path_factory.mktemp("hand") / "by_hand.py"
    path.write_text(blocks[0])
    return path


def run(script: Path, bundle: Path, key: Path) -> subprocess.CompletedProcess[str]:
    # isolated: nothing of froc can be imported from where the tests run
    command = [sys.executable, "-I", str(script), str(bundle), str(key)]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False, timeout=60)


def test_it_needs_nothing_of_froc(script: Path) -> None:
    text = script.read_text()
    imported = set(re.findall(r"^(?:import|from) ([\w, .]+?)(?: import .*)?$", text, re.MULTILINE))
    names = {name.strip().partition(".")[0] for modules in imported for name in modules.split(",")}
    assert names == {"base64", "hashlib", "json", "math", "sys", "cryptography"}


@pytest.mark.parametrize("name", ["good", "failing", "short", "continued"])
def test_the_numbers_of_a_report_are_found_by_hand(originals: dict[str, Any], script: Path, name: str) -> None:
    made = originals[name]
    done = run(script, made.bundle, made.public)
    assert done.returncode == 0, done.stderr
    report = made.read()["predicate"]
    assert done.stdout.rstrip().endswith(f"and the report says {report['verdict']}")
    assert (" is certified " in done.stdout) == (report["verdict"] == "PASS")
    for risk, bound in next(
        row["cur"] for row in report["certificate"]["candidates"] if row["config"] == report["config"]
    ).items():
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(risk))
        match = re.search(r"at most ([0-9.]+)", line)
        assert match
        assert abs(float(match[1]) - float(bound["simultaneous"])) < 2e-6


def test_a_lie_is_found_by_hand(good: Any, copy: Any, keys: Path, script: Path) -> None:
    made = copy(good)
    for change in (
        lambda r: r["certificate"]["candidates"][0]["p_values"].update(forgetting="1e-09"),
        lambda r: r["certificate"]["candidates"][0]["cur"]["utility"].update(simultaneous="0.01"),
        lambda r: r["certificate"]["certified"].append("c0000"),
    ):
        made.resign(change)
        done = run(script, made.bundle, made.public)
        assert done.returncode == 1
        assert "AssertionError" in done.stderr
        (made.bundle / "report.dsse.json").write_bytes((good.bundle / "report.dsse.json").read_bytes())
        (made.bundle / "report.html").write_bytes((good.bundle / "report.html").read_bytes())
    assert run(script, made.bundle, made.public).returncode == 0
    assert "InvalidSignature" in run(script, made.bundle, keys / "other.pub").stderr
    made.edit("losses.csv", lambda text: text.replace(",1000\n", ",0\n", 1))
    assert "AssertionError" in run(script, made.bundle, made.public).stderr


def test_steps_have_the_same_numbers_in_code_and_docs() -> None:
    listed = re.findall(r"^([0-9]+)\. \*\*([a-z]+)\*\*", (DOCS / "audit.md").read_text(), re.MULTILINE)
    assert [(int(number), name) for number, name in listed] == list(enumerate(cross_checks.STEPS, start=1))
