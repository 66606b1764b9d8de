"""A package that is not installed is one sentence with the extra that brings it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from froc import extras
from froc.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
WITHOUT = "import sys\nfor name in {names!r}: sys.modules[name] = None\n"
"""Python that finds none of these packages, as where they were never installed."""


def _without(code: str, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT.format(names=names) + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["search", "--budget", "0.1"], ["bench"], ["list", "methods", "npo"]])
def test_a_command_names_the_extra(words: list[str]) -> None:
    done = _without(f"sys.argv = {['froc', *words]}\nfrom froc.cli.main import main\nmain()", "torch", "transformers")
    assert done.returncode == 2
    assert "pip install 'froc[search]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_python_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"froc\[search\]"):
        extras.require("search")


def test_an_extra_needs_its_own_packages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ray" else object())
    extras.require("search")
    with pytest.raises(InputError, match=r"ray is not installed; pip install 'froc\[ray\]'"):
        extras.require("ray")


def test_readers_need_no_extra() -> None:
    """Certify, plan, monitor, show and verify work without what engineers install."""
    code = "import froc.certification.certify, froc.planning.plan, froc.monitoring.monitor, froc.audit.verification, froc.cli.show\n"
    done = _without(code, *extras.EXTRAS)
    assert done.returncode == 0, done.stderr


def test_every_package_of_an_extra_is_one_that_it_installs() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {
        extra: {re.split(r"[\[<>=]", requirement)[0].replace("-", "_") for requirement in requirements}
        for extra, requirements in listed.items()
    }
    assert {package for package, extra in extras.EXTRAS.items() if package not in names[extra]} == set()
