"""`froc.report` and `froc.verify`: the commands as functions, with results that are short to read."""

from importlib.resources import files
from pathlib import Path

import pytest

import froc
from froc.errors import InputError, VerificationError
from tests.audit.conftest import Made


def test_a_report_is_made_and_verified_as_the_commands_do(good: Made, tmp_path: Path) -> None:
    made = froc.report(good.run, key=good.key, out=str(tmp_path), name="again")
    assert made.bundle == tmp_path / "again.froc-audit"
    assert made.page.is_file()
    assert set(made.to_polars()["name"]) == {path.name for path in made.bundle.iterdir()}
    result = froc.verify(made.bundle, key=str(good.public), model=good.model)
    assert (result.verdict, result.model_checked) == ("PASS", good.model is not None)
    assert result.to_polars()["number"].to_list() == [check.number for check in result.checks]
    assert repr(result).startswith("Result(PASS, ")
    assert len(repr(result)) < 200
    assert len(repr(made)) < 200


def test_what_does_not_verify_is_an_error(good: Made, keys: Path) -> None:
    with pytest.raises(VerificationError):
        froc.verify(good.bundle, key=[keys / "other.pub"])
    with pytest.raises(InputError, match="trust file"):
        froc.verify(good.bundle)


def test_a_failing_report_verifies_and_does_not_pass(failing: Made) -> None:
    result = froc.verify(failing.bundle, key=failing.public)
    assert (result.verdict, result.passes) == ("FAIL", False)


def test_the_package_is_typed() -> None:
    assert files("froc").joinpath("py.typed").is_file()
