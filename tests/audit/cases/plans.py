"""The plan, the seal over what it left open, and the draw of the queries."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from froc import hashing
from froc.audit import bundle, canonical_json, cross_checks
from tests.audit import variants
from tests.audit.cases.forging import Attack, Case, Change, document, edited, report
from tests.audit.conftest import NOW, Made


def _plan_statement(change: Change) -> Attack:
    """Edit what is signed of the plan."""

    def attack(made: Made) -> None:
        made.restate(change, "plan.dsse.json")
        made.resign()

    return attack


def _plan_text(change: Callable[[str], str]) -> Attack:
    """Edit the plan's text and sign the digest of what it then is."""

    def attack(made: Made) -> None:
        made.edit("plan.json", change)
        plan_digest = hashing.sha256_file(made.bundle / "plan.json")
        made.restate(lambda body: body["subject"][0]["digest"].update(sha256=plan_digest), "plan.dsse.json")
        made.resign()

    return attack


def _state_plan(made: Made, change: Change) -> tuple[str, str]:
    """Write another plan and sign it; digests of the old one and of the new one."""
    path = made.bundle / "plan.json"
    old = hashing.sha256_file(path)
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))
    new = hashing.sha256_file(path)
    body = made.read("plan.dsse.json")
    body["predicate"]["plan"] = canonical_json.exact(plan)
    body["subject"][0]["digest"]["sha256"] = new
    made.sign(canonical_json.compact(body), "plan.dsse.json")
    return old, new


def _plan_alone(change: Change) -> Attack:
    """Another plan, signed; trials and seal still refer to the old one."""

    def attack(made: Made) -> None:
        _state_plan(made, change)
        made.resign()

    return attack


_TAGS = {"method npo": "code-checked", "metric exact_memorization": "code-checked", "metric rouge_l": "code-checked"}
"""What a plan that searches `npo` says of it and of its metrics."""


def _replan(change: Change, seal: Change = bool) -> Attack:
    """Another plan in all places that refer to it: a lie that only what was measured can refute."""

    def attack(made: Made) -> None:
        old, new = _state_plan(made, change)
        made.edit("trials.jsonl", lambda text: text.replace(old, new))
        sealed = json.loads((made.bundle / "seal.json").read_text()) | {"plan": new}
        seal(sealed)
        (made.bundle / "seal.json").write_text(json.dumps(sealed))
        made.resign(lambda report: report["plan"].update(sha256=new))

    return attack


def _measured_by(text: str, **plan: Any) -> Attack:
    """Another measurement of forgetting, in plan and report."""

    def attack(made: Made) -> None:
        _replan(lambda p: (p["metrics"].update(forgetting=text), p.update(plan)))(made)
        made.resign(lambda report: report["method"]["metric"].update(forgetting=text))

    return attack


def _twice_in_order(seal: dict[str, Any]) -> None:
    seal["order"].append(seal["order"][0])


def _pick(made: Made) -> None:
    """Another bundle in its place, built by somebody who leaves the check of the draw out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_checks, "_draw", lambda *_: None)
        run = variants.PICKED["run"]
        built = bundle.build(run, made.bundle.parent / "picked", made.key, name="drawn", now=NOW)
    shutil.rmtree(made.bundle)
    shutil.move(built, made.bundle)


_SHADY = {
    "kind": "metric",
    "name": "shady",
    "distribution": "shady",
    "version": "1.0",
    "sha256": "a" * 64,
    "rule": "module",
}


CASES: dict[str, Case] = {
    "another package's bound": Case("plan-plugins", _replan(lambda p: p["bound"].update(utility="shady"))),
    "froc's own code said to be another package's": Case("plan-plugins", _replan(lambda p: p.update(plugins=[_SHADY]))),
    "a method that is not said to be true to any paper": Case("plan-fidelity", _replan(lambda p: p.update(fidelity={"method npo": "code-checked"}))),
    "an attack that was not run is not named": Case("plan-named-risks", _replan(lambda p: p.update(named_risks=["forgetting", "utility"]))),
    "a method's tag that the search never tried": Case("plan-fidelity", _replan(lambda p: p.update(fidelity={**_TAGS, "method rmu": "formula"}))),
    "code of another package that is not named": Case("plan-plugins", _replan(lambda p: (p["search"].update(methods=["shady"]), p.update(plugins=[])))),
    "plan edited and signed": Case("seal-other-plan", _plan_alone(lambda p: p["budget"].update(utility=0.95))),
    "plan with another budget in its statement": Case("plan-digest", _plan_statement(lambda b: b["predicate"]["plan"]["budget"].update(utility="0.95"))),
    "plan with NaN": Case("json-nan-or-float", _plan_text(lambda t: t.replace("0.15", "NaN"))),
    "plan with an endless number": Case("json-nan-or-float", _plan_text(lambda t: t.replace("0.15", "1e999"))),
    "plan with a key twice": Case("json-duplicate-key", _plan_text(lambda t: t.replace("{", '{"joint": false,', 1))),
    "plan changed under its statement": Case("plan-digest", edited("plan.json", lambda t: t.replace("0.15", "0.95"))),
    "plan signed on no day": Case("bad-timestamp", _plan_statement(lambda b: b["predicate"].update(signed="2026-02-30T12:00:00Z"))),
    "plan signed before it was made": Case("plan-signed-before-made", _plan_statement(lambda b: b["predicate"].update(signed="1990-01-01T00:00:00Z"))),
    "plan signed after the report": Case("plan-after-report", _plan_statement(lambda b: b["predicate"].update(signed="2026-03-01T18:00:00Z"))),
    "removed earlier, and measured by no risk": Case("plan-after", _replan(lambda p: p.update(after={"certificate": "c" * 64, "model": "d" * 64, "tasks": ["e" * 64], "measured": True}))),
    "fewer search units of a list than searched": Case("plan-search-units", _replan(lambda p: p["split"]["search"].update(forgetting=43)), "drawn"),
    "signed plan with a remark": Case("plan-shape", _plan_statement(lambda b: b["predicate"].update(note=""))),
    "a blank added to the plan": Case("plan-digest", edited("plan.json", lambda t: t + " ")),
    "plan with a sampler in words": Case("plan-shape", _replan(lambda p: p["search"].update(sampler="tpe, verified by nobody"))),
    "plan with a method in words": Case("plan-shape", _replan(lambda p: p["search"]["methods"].append("npo, verified by nobody"))),
    "plan with an environment in words": Case("plan-shape", _replan(lambda p: p["environment"].update(torch="2.11.0, verified by nobody"))),
    "measurement with free text": Case("plan-shape", _measured_by("extraction_strength@verified by the ICO")),
    "measurement with a setting that its metric has not": Case("plan-shape", _measured_by("extraction_strength:verified=yes")),
    "measurement under an attack in capitals": Case("plan-shape", _measured_by("extraction_strength@Quantize", plugins=[])),
    "measurement under an attack that nobody has": Case("plan-plugins", _measured_by("extraction_strength@drift+nosuch", plugins=[])),
    "plan with a number of 4,000 digits": Case("plan-shape", _replan(lambda p: p["search"].update(seed=10**4000))),
    "plan whose draw has a number of 4,000 digits": Case("plan-shape", _replan(lambda p: p["task"].update(split_seed=10**4000))),
    "plan after more requests than a page holds": Case("plan-shape", _replan(lambda p: p.update(after={"certificate": "c" * 64, "model": "d" * 64, "tasks": ["e" * 64] * 5000, "measured": False}))),
    "plan with a list of what is not listed": Case("plan-shape", _replan(lambda p: p["listed"].update(forgetting=10**9))),
    "plan without a bound": Case("plan-shape", _replan(lambda p: p["bound"].pop("utility"))),
    "plan with units of another risk": Case("plan-shape", _replan(lambda p: p["task"]["units"].update(privacy="query"))),
    "plan with an endless list": Case("plan-shape", _replan(lambda p: p["listed"].update(forgetting=10**15))),
    "methods that the plan lists none of": Case("trial-method", _replan(lambda p: (p["search"].update(methods=[]), p.update(plugins=[])))),
    "nothing asked of the base model's forgetting": Case("plan-control", _replan(lambda p: p["control"].update(forgetting="none"))),
    "nothing asked of forgetting under an unknown metric": Case("plan-control", _replan(lambda p: (p["metrics"].update(forgetting="my_metric"), p["control"].update(forgetting="none"), p.pop("plugins", None)))),
    "nothing asked about utility": Case("plan-control", _replan(lambda p: p["control"].pop("utility"))),
    "rows of the base model that no plan asked for": Case("table-unplanned-row", _replan(lambda p: p.pop("control"))),
    "plan with no opening": Case("plan-shape", _replan(lambda p: p.update(openings=0))),
    "fewer trials planned than sealed": Case("seal-candidates", _replan(lambda p: p["search"].update(candidates=2))),
    "fewer trials planned than run": Case("trial-index", _replan(lambda p: p["search"].update(trials=4))),
    "queries sealed that were not planned": Case("seal-other-queries", document("seal.json", lambda s: s["calibration"].update(utility="f" * 64))),
    "seal with a remark": Case("seal-shape", document("seal.json", lambda s: s.update(note=""))),
    "an order where nothing may stop early": Case("seal-order", document("seal.json", lambda s: s.update(order=[]))),
    "no order where measuring may stop early": Case("seal-order", document("seal.json", lambda s: s.pop("order")), "early"),
    "order of other queries": Case("seal-order", document("seal.json", lambda s: s["order"].pop()), "early"),
    "order names a query twice": Case("seal-order", document("seal.json", _twice_in_order), "early"),
    "more units ordered than planned": Case("plan-units", _replan(lambda p: p["split"]["calibration"].update(utility=59)), "early"),
    "more units planned than measured": Case("plan-units", _replan(lambda p: p["split"]["calibration"].update(forgetting=2400))),
    "other queries planned and sealed": Case("table-other-queries", _replan(lambda p: p["split"]["queries"].update(utility="f" * 64), lambda s: s["calibration"].update(utility="f" * 64))),
    "more search units planned with a list": Case("table-other-queries", _replan(lambda p: p["population"].update(forgetting="sample"))),
    "candidate added to the seal": Case("trial-config-set", edited("seal.json", lambda t: t.replace("c0000", "c0002"))),
    "candidate sealed twice": Case("seal-candidates", edited("seal.json", lambda t: t.replace("c0000", "c0001"))),
    "seal of another plan": Case("seal-other-plan", edited("seal.json", lambda t: json.dumps({**json.loads(t), "plan": "f" * 64}))),
    "no auditor's seed": Case("audit-seed-differs", report(lambda r: r.update(sequence=2)), how=lambda m: {"audit_seed": 5}),
    "queries picked against the auditor's seed": Case("plan-draw", _pick, "drawn"),
}  # fmt: skip
