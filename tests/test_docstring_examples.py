"""Examples in docstrings (`>>>`) run and print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.commands import ROOT

ROOMS = {"froc": "froc", "search": "froc.search", "audit": "froc.audit", "cli": "froc.cli"}
"""Folder -> name of its package."""


def _module_name(path: Path) -> str:
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([ROOMS[folder], *(part for part in rest if part != "__init__")])


def _modules() -> dict[str, Path]:
    """Module name -> file, for every module whose source has an example; links to other rooms are followed once."""
    paths = {path.resolve() for folder in ROOMS for path in (ROOT / folder).rglob("*.py")}
    return {_module_name(path): path for path in sorted(paths) if ">>> " in path.read_text(encoding="utf-8")}


def _wrong(test: doctest.DocTest) -> str:
    """What doctest reports about a docstring's examples; empty where all are right."""
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("name", _modules())
def test_examples_print_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FROC_STATE", str(tmp_path))
    tests = doctest.DocTestFinder().find(importlib.import_module(name), name)
    assert "".join(_wrong(test) for test in tests) == ""
    written = _modules()[name].read_text(encoding="utf-8").count(">>> ")
    assert sum(len(test.examples) for test in tests) == written, "an example is in no docstring that doctest reads"


def test_public_functions_and_theorems_have_examples() -> None:
    functions = {"froc.certification.certify", "froc.planning.plan", "froc.monitoring.monitor", "froc.loss_table"}
    theorems = {
        _module_name(path) for folder in ("bounds", "procedures") for path in (ROOT / "froc" / folder).glob("*.py")
    }
    assert functions | theorems <= set(_modules())


def test_a_wrong_output_is_reported() -> None:
    parser = doctest.DocTestParser()
    right = parser.get_doctest(">>> 1 + 1\n2\n", {}, "right", None, 0)
    wrong = parser.get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert _wrong(right) == ""
    assert "Expected:\n    3\nGot:\n    2" in _wrong(wrong)
