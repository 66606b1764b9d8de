"""Runs that older versions wrote stay readable: shown, certified again to the same certificate, and gone on with."""

import base64
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.audit import verification
from froc.errors import InputError
from froc.risk.certificate import Candidate, Claim, certify
from froc.search.earlier_plan import label_of, parallel_of
from froc.search.plan import Plan, as_planned, refuse_other_plan
from froc.search.run_folder import Folder
from tests.commands import ROOT, Commands

OLD = ROOT / "tests" / "data" / "run-2026-11"


def document(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((OLD / name).read_text(encoding="utf-8"))
    return result


def test_it_is_shown(commands: Commands) -> None:
    done = commands.run(["show", str(OLD)])
    assert done.returncode == 0, done.stderr
    assert document("certificate.json")["chosen"] in done.stdout


def test_its_trials_are_read_with_what_they_did_not_say() -> None:
    log = Folder(OLD).log()
    assert [line.trial for line in log] == list(range(5))
    assert all(line.resources == {} for line in log)
    assert any(line.variants for line in log)


def test_its_losses_still_give_its_certificate() -> None:
    plan, seal, certificate = document("plan.json"), document("seal.json"), document("certificate.json")
    names = (
        "budget",
        "confidence",
        "procedure",
        "bound",
        "population",
        "listed",
        "weights",
        "radius",
        "joint",
        "openings",
    )
    claim = Claim(unit=plan["task"]["units"], sequential=plan["sequential"], **{name: plan[name] for name in names})
    losses = pl.read_parquet(OLD / "losses" / "calibration.parquet")
    assert certify(losses, [Candidate(**candidate) for candidate in seal["candidates"]], claim) == certificate


def test_it_goes_on_under_a_newer_version_and_no_other_plan(tmp_path: Path) -> None:
    old = document("plan.json")
    assert "parallel" not in old["search"]
    new = old | {"search": old["search"] | {"parallel": 1, "until": "trials", "shared": False}, "froc": "9.9.9"}
    refuse_other_plan(old, new)
    with pytest.raises(InputError, match=r"search\.parallel differs"):
        refuse_other_plan(old, new | {"search": new["search"] | {"parallel": 2}})
    shutil.copytree(OLD, tmp_path / "run")
    assert parallel_of(Folder(tmp_path / "run")) == 1
    # its queries keep the ids that they were sealed by
    assert label_of(Folder(tmp_path / "run")) == ""
    assert label_of(Folder(tmp_path / "none")) is None


def test_a_report_of_an_older_version_verifies_to_the_last_word_of_its_page() -> None:
    """Signed before weights were sealed: its page has the words of then."""
    place = ROOT / "tests" / "data" / "report-2026-11"
    bundle = place / "not-established.froc-audit"
    issued = json.loads(base64.b64decode(json.loads((bundle / "report.dsse.json").read_bytes())["payload"]))
    now = datetime.fromisoformat(issued["predicate"]["issued"]) + timedelta(days=1)
    result = verification.verify(bundle, keys=[place / "signer.pem.pub"], now=now)
    assert result.verdict == "NOT_ESTABLISHED"
    assert "no trial is missing" in (bundle / "report.html").read_text(encoding="utf-8")


def test_a_plan_without_levels_keeps_its_bounds_unless_the_command_names_another() -> None:
    budget = {"forgetting": 0.1}
    claim = Claim(budget, {"forgetting": "normal_test_betting"}, {"forgetting": "query"}, own_levels=True)
    new = Plan({"bound": dict(claim.bound), "levels": "own"}, claim, 1, ())
    old = {"bound": {"forgetting": "betting"}, "estimand": {}}
    adapted = as_planned(new, old, named_bound=False)
    assert (adapted.document, adapted.claim.bound, adapted.claim.own_levels) == (
        {"bound": old["bound"]},
        old["bound"],
        False,
    )
    assert as_planned(new, old, named_bound=True).document["bound"] == {"forgetting": "normal_test_betting"}
    assert as_planned(new, old | {"levels": "own"}, named_bound=False) == new


def test_a_run_with_the_bets_of_before_keeps_them_unless_the_command_names_others() -> None:
    claim = Claim({"forgetting": 0.1}, {"forgetting": "normal_test_betting"}, {"forgetting": "query"}, own_levels=True)
    new = Plan({"bound": dict(claim.bound), "levels": "own"}, claim, 1, ())
    old = {"bound": {"forgetting": "star_betting"}, "estimand": {}, "levels": "own"}
    kept = as_planned(new, old, named_bound=False)
    assert kept.document["bound"] == kept.claim.bound == old["bound"]
    assert kept.claim.own_levels
    assert as_planned(new, old, named_bound=True) == new
