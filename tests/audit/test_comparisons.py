"""A comparison signed with a run: every number in it is computed again, and it must be about the same thing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import evidence, records, verification
from froc import digest
from froc.errors import InputError, VerificationError
from tests.audit.conftest import NOW, Made
from tests.audit.variants import make_comparison, text


@pytest.fixture(scope="module")
def compared(good: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison about the task and base model of the synthetic run."""
    return make_comparison(good.run, tmp_path_factory.mktemp("compared"))


@pytest.fixture
def made(good: Made, compared: Path, tmp_path: Path) -> Made:
    bundle = evidence.build(good.run, tmp_path, good.key, comparison=compared, name="compared", now=NOW)
    return Made(bundle, good.run, good.key)


def test_a_comparison_is_signed_and_computed_again(made: Made, compared: Path) -> None:
    found = made.verify()
    assert "comparison" in [check.name for check in found.checks]
    said = json.loads((compared / "comparison.json").read_text())
    assert found.report["comparison"]["ranking"] == said["ranking"]
    assert float(found.report["comparison"]["pairs"]["0.95"][0]["upper"]) == said["pairs"]["0.95"][0]["upper"]
    page = (made.bundle / "report.html").read_text()
    assert "Methods at equal utility" in page
    assert "npo leaves less than rmu" in page
    assert "A comparison certifies nothing" in page


def test_without_one_nothing_of_it_is_in_the_report(good: Made) -> None:
    assert "comparison" not in good.verify().report
    assert "Methods at equal utility" not in (good.bundle / "report.html").read_text()


LIES: dict[str, tuple[str, Callable[[Made], object]]] = {
    "a verdict turned round": (
        "comparison-differ",
        lambda m: m.resign(lambda report: report["comparison"]["pairs"]["0.95"][0].update(verdict="rmu")),
    ),
    "a bound made smaller": (
        "comparison-differ",
        lambda m: m.resign(lambda report: report["comparison"]["stages"]["0.95"]["rmu"]["forgetting"].update(upper="0.1")),
    ),
    "a front left out": (
        "comparison-differ",
        lambda m: m.resign(lambda report: report["comparison"]["fronts"].pop("rmu")),
    ),
    "the comparison left out": ("comparison-differ", lambda m: m.resign(lambda report: report.pop("comparison"))),
    "its losses left out": ("bundle-missing-file", lambda m: (m.bundle / "comparison.csv").unlink()),
    "losses edited": ("evidence-digest:comparison.csv", lambda m: _edit(m, "comparison.csv", b",0\n", b",1\n")),
    "losses edited and signed": ("comparison-differ", lambda m: (_edit(m, "comparison.csv", b",60\n", b",61\n"), m.resign())),
    "a row removed and signed": ("table-missing-row", lambda m: (_shorten(m), m.resign())),
    "another base model": (
        "comparison-other-plan",
        lambda m: (_restate(m, lambda d: d["plan"]["model"].update(digest="1" * 64)), m.resign()),
    ),
    "a point that was not sealed": (
        "comparison-shape",
        lambda m: (_restate(m, lambda d: d["seal"]["stages"]["0.95"].update(npo="x/c0009@1.0000")), m.resign()),
    ),
}  # fmt: skip


def _edit(made: Made, name: str, old: bytes, new: bytes) -> None:
    data = (made.bundle / name).read_bytes()
    assert old in data
    (made.bundle / name).write_bytes(data.replace(old, new, 1))


def _shorten(made: Made) -> None:
    path = made.bundle / "comparison.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _restate(made: Made, change: Callable[[dict[str, Any]], object]) -> None:
    path = made.bundle / "comparison.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_about_a_comparison_verifies(made: Made, lie: str) -> None:
    check, tell = LIES[lie]
    tell(made)
    with pytest.raises(VerificationError) as caught:
        made.verify()
    assert caught.value.check == check


def test_a_comparison_about_another_model_is_refused(good: Made, compared: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(compared, other)
    plan = json.loads((other / "plan.json").read_text())
    plan["model"]["digest"] = "1" * 64
    (other / "plan.json").write_text(text(plan))
    seal = json.loads((other / "seal.json").read_text()) | {"plan": digest.of_file(other / "plan.json")}
    (other / "seal.json").write_text(text(seal))
    with pytest.raises(InputError, match="another base model"):
        evidence.build(good.run, tmp_path, good.key, comparison=other, name="other", now=NOW)
    assert not list(tmp_path.glob("*.froc-audit"))


def test_a_folder_that_is_no_comparison_is_refused(good: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished comparison"):
        evidence.build(good.run, tmp_path, good.key, comparison=tmp_path, name="none", now=NOW)


def test_a_bundle_has_no_other_files_for_it(made: Made) -> None:
    assert {path.name for path in made.bundle.iterdir()} == {*records.LIMITS, *records.COMPARED}
    assert verification.SUFFIX == ".froc-audit"
