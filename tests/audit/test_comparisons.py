"""A comparison signed with a run: every number in it is computed again, and it must be about the same thing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from froc import hashing
from froc.audit import bundle as evidence
from froc.audit import bundle_files
from froc.audit.documents import ComparedPoint
from froc.errors import InputError, VerificationError
from tests.audit.cases.comparisons import CASES
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
    result = made.verify()
    assert "comparison" in [check.name for check in result.checks]
    comparison = json.loads((compared / "comparison.json").read_text())
    assert result.report["comparison"]["ranking"] == comparison["ranking"]
    assert float(result.report["comparison"]["pairs"]["0.95"][0]["upper"]) == comparison["pairs"]["0.95"][0]["upper"]
    page = (made.bundle / "report.html").read_text()
    assert "Methods compared" in page
    assert "by the signer’s word until it kept the same share" in page
    assert "npo leaves less than rmu" in page
    assert "A comparison certifies nothing" in page


def test_without_one_nothing_of_it_is_in_the_report(good: Made) -> None:
    assert "comparison" not in good.verify().report
    page = (good.bundle / "report.html").read_text()
    assert "Not run: no comparison of methods was signed with this report." in page
    assert "A comparison certifies nothing" not in page


def test_a_mixture_is_no_model_that_was_trained(made: Made) -> None:
    case = CASES["a comparison of a mixture that is called trained"]
    case.attack(made)
    with pytest.raises(VerificationError, match=case.check):
        made.verify()


def test_a_comparison_about_another_model_is_refused(good: Made, compared: Path, tmp_path: Path) -> None:
    changed = tmp_path / "other"
    shutil.copytree(compared, changed)
    plan = json.loads((changed / "plan.json").read_text())
    plan["model"]["digest"] = "1" * 64
    (changed / "plan.json").write_text(text(plan))
    seal = json.loads((changed / "seal.json").read_text()) | {"plan": hashing.sha256_file(changed / "plan.json")}
    (changed / "seal.json").write_text(text(seal))
    with pytest.raises(InputError, match="another base model"):
        evidence.build(good.run, tmp_path, good.key, comparison=changed, name="other", now=NOW)
    assert not list(tmp_path.glob("*.froc-audit"))


def test_a_comparison_of_no_method_is_refused_in_a_sentence(good: Made, compared: Path, tmp_path: Path) -> None:
    changed = tmp_path / "none"
    shutil.copytree(compared, changed)
    seal = json.loads((changed / "seal.json").read_text())
    seal |= {"stages": {stage: {} for stage in seal["stages"]}, "fronts": {}}
    (changed / "seal.json").write_text(text(seal))
    with pytest.raises(InputError, match="leaves out a level or a method"):
        evidence.build(good.run, tmp_path, good.key, comparison=changed, name="none", now=NOW)


def test_a_folder_that_is_no_comparison_is_refused(good: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished comparison"):
        evidence.build(good.run, tmp_path, good.key, comparison=tmp_path, name="none", now=NOW)


def test_a_bundle_has_no_other_files_for_it(made: Made) -> None:
    assert {path.name for path in made.bundle.iterdir()} == {*bundle_files.LIMITS, *bundle_files.COMPARED}


@pytest.mark.parametrize(
    ("method", "fine"),
    [("npo", True), ("gu(npo)", True), ("gu(sure(npo))", True), ("gu(<b>)", False), ("npo)", False), ("gu(npo", False), ("gu()", False), ("gu npo", False), ("g" * 65, False)],
)  # fmt: skip
def test_a_points_method_is_a_name_or_names_in_brackets(method: str, fine: bool) -> None:
    """Letters alone decide here: nothing in a claim can carry text or markup. What a name means is the run's business."""
    fields: dict[str, Any] = {"config": "base", "method": method, "params": {"mix": 0.0}, "weight": 1.0}
    if fine:
        assert ComparedPoint(**fields).method == method
        return
    with pytest.raises(ValidationError):
        ComparedPoint(**fields)
