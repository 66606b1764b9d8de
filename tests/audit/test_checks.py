"""Every case is refused by the check that it is for, and every check is needed: without it a case is no longer refused so."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from froc import hashing
from froc.audit import canonical_json
from froc.audit.bundle_files import COMPARED, LIMITS, PLAN_TOKEN
from froc.errors import InputError, VerificationError
from tests.audit import switches
from tests.audit.cases import CASES, mutant
from tests.audit.cases.forging import Case
from tests.audit.conftest import NOW, Made

COMPUTED = {
    "verification._evidence.2": [f"evidence-digest:{name}" for name in (*LIMITS, *COMPARED, PLAN_TOKEN) if name != "report.dsse.json"],
    "verification._derived.5": [f"{part}-differ" for part in ("claims", "comparison", "environment", "limits", "method", "plan", "trials", "verdict")],
    "documents.parse.1": ["comparison-shape", "plan-shape", "reexecution-shape", "report-shape", "seal-shape"],
    "bundle_files.read_losses.4": ["table-duplicate-row", "table-order"],
    "bundle_files._cells.1": ["table-config", "table-example-id", "table-loss-format", "table-risk", "table-split", "table-unit-id"],
    "bundle_files._trial.1": ["trial-shape", "trial-status"],
}  # fmt: skip
"""Codes of the refusals that compute theirs."""


CHECKS = [
    (place, code)
    for place, code_of_place in switches.listed().items()
    for code in ([code_of_place] if code_of_place else COMPUTED[place])
]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its mutant, and the check that refused it."""

    made: Made
    check: switches.Check


@pytest.fixture(scope="module")
def room() -> switches.Switched:
    return switches.switched()


@pytest.fixture(scope="module")
def outcomes(originals: dict[str, Made], room: switches.Switched, tmp_path_factory: Any) -> dict[str, Outcome]:
    """Case -> outcome, all of them."""
    reached = {}
    for name, case in CASES.items():
        made = mutant(originals[case.of], case, tmp_path_factory.mktemp("mutant"))
        room.raised.clear()
        verdict(room, made, case)
        reached[name] = Outcome(made, room.raised[-1] if room.raised else ("accepted", ""))
    return reached


def verdict(room: switches.Switched, made: Made, case: Case) -> str | None:
    """The code that refuses, or the name of another error where a check is off; None where it is accepted."""
    arguments = {"keys": [made.public], "model": made.model, "now": NOW, **case.how(made)}
    try:
        room.verification.verify(made.bundle, **arguments)
    except VerificationError as error:
        if "\n" in str(error):
            raise AssertionError("a refusal is one line") from error
        return error.check
    except Exception as error:  # where a check is off, anything may go wrong behind it
        if not room.off:
            raise
        return type(error).__name__
    return None


def test_the_originals_verify(originals: dict[str, Made], room: switches.Switched) -> None:
    results = {
        name: room.verification.verify(m.bundle, keys=[m.public], model=m.model, now=NOW)
        for name, m in originals.items()
    }
    assert {name: result.verdict for name, result in results.items()} == dict.fromkeys(results, "PASS") | {
        "failing": "FAIL",
        "short": "NOT_ESTABLISHED",
    }


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_refused_by_the_check_it_is_for(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].check[1] == CASES[name].check


@pytest.mark.parametrize("check", CHECKS, ids=" ".join)
def test_without_any_check_a_case_is_refused_so_no_more(
    outcomes: dict[str, Outcome], room: switches.Switched, check: switches.Check
) -> None:
    names = [name for name, outcome in outcomes.items() if outcome.check == check]
    assert names, "no case is refused here"
    with room.without(check):
        assert any(verdict(room, outcomes[name].made, CASES[name]) != check[1] for name in names), (
            "another check masks it"
        )


def test_further_signatures_change_nothing_that_is_signed(originals: dict[str, Made], tmp_path: Path) -> None:
    """Who is not trusted may sign, too: an approver's signature must not make the engineer's worthless."""
    two_signers, alone = originals["both"], originals["good"]
    assert two_signers.verify().verdict == "PASS"
    made = Made(Path(shutil.copytree(alone.bundle, tmp_path / alone.bundle.name)), alone.run, alone.key)
    document = json.loads((made.bundle / "report.dsse.json").read_bytes())
    document["signatures"].append({"keyid": "c" * 64, "sig": document["signatures"][0]["sig"]})
    (made.bundle / "report.dsse.json").write_bytes(canonical_json.compact(document))
    assert made.verify().signers == alone.verify().signers
    with pytest.raises(VerificationError, match="signature-threshold"):
        made.verify(threshold=2, keys=[made.public, made.key.with_name("other.pub")])


@pytest.mark.parametrize("step", ["sha256_file", "walk"])
def test_a_model_that_cannot_be_read_in_full_is_not_verified(
    originals: dict[str, Made], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made, scan = originals["good"], os.scandir

    def refuse(path: Any) -> Any:
        if made.model is not None and str(path).startswith(str(made.model)):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(hashing, "sha256_file", refuse) if step == "sha256_file" else patch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match="cannot read all of"):
            made.verify()
    assert made.verify().verdict == "PASS"
