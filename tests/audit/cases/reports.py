"""What a report says, against what follows from the evidence: numbers, choice, verdict, limits."""

from typing import Any

from froc import hashing
from tests.audit.cases.forging import Attack, Case, Change, report
from tests.audit.conftest import Made


def _certificate(change: Change) -> Attack:
    return lambda made: made.resign(lambda report: change(report["certificate"]))


def _first(certificate: dict[str, Any]) -> dict[str, Any]:
    candidate: dict[str, Any] = certificate["candidates"][0]
    return candidate


def _widen(report: dict[str, Any]) -> None:
    report["certificate"]["candidates"][2]["certified"] = True
    report["certificate"]["certified"].append("c0000")


def _pass_another(made: Made) -> None:
    """A report about a configuration that is certified, not chosen, and covers no model."""
    plan = hashing.sha256_file(made.bundle / "plan.json")
    made.restate(lambda body: body.update(subject=[{"name": "plan.json", "digest": {"sha256": plan}}]))

    def change(report: dict[str, Any]) -> None:
        report.update(asked="c0003", config="c0003")
        report["model"].update(config="c0003", files=0)
        report["model"]["treeDigest"].update(value=None)
        sealed = next(row for row in report["certificate"]["candidates"] if row["config"] == "c0003")
        report["model"]["weightsDigest"].update(value=sealed["weights_digest"])
        report["limits"].append("no-model-covered")

    made.resign(change)


CASES: dict[str, Case] = {
    "p-value lowered": Case("statistics-differ", _certificate(lambda c: _first(c)["p_values"].update(forgetting="1e-09"))),
    "largest p-value lowered": Case("statistics-differ", _certificate(lambda c: _first(c).update(p_value="1e-09"))),
    "bound lowered": Case("statistics-differ", _certificate(lambda c: _first(c)["cur"]["utility"].update(simultaneous="0.01"))),
    "mean lowered": Case("statistics-differ", _certificate(lambda c: _first(c)["empirical"].update(utility="0.001"))),
    "radius raised": Case("statistics-differ", _certificate(lambda c: _first(c)["robust_radius"].update(utility="0.9"))),
    "sample enlarged": Case("statistics-differ", _certificate(lambda c: c["n"].update(forgetting=2400))),
    "confidence raised": Case("statistics-differ", _certificate(lambda c: c.update(confidence="0.99"))),
    "budget in the report lowered": Case("statistics-differ", _certificate(lambda c: c["budget"].update(forgetting="0.05"))),
    "a true number as another type": Case("statistics-differ", _certificate(lambda c: c["opening"].update(number=True))),
    "reason rewritten": Case("statistics-differ", _certificate(lambda c: c.update(reason="all is well"))),
    "added to the certified set": Case("feasible-differ", report(_widen)),
    "one flag set": Case("feasible-differ", _certificate(lambda c: c["candidates"][2].update(certified=True))),
    "true as 1": Case("feasible-differ", _certificate(lambda c: _first(c).update(certified=1))),
    "another certified one chosen": Case("selected-differ", _certificate(lambda c: c.update(chosen="c0003"))),
    "another one reported as chosen": Case("selected-differ", report(lambda r: r.update(config="c0003", chosen="c0003"))),
    "another one asked for": Case("selected-differ", report(lambda r: r.update(asked="c0003", config="c0003"))),
    "an untested one asked for": Case("selected-differ", report(lambda r: r.update(asked="c0002"))),
    "FAIL written over PASS": Case("verdict-differ", report(lambda r: r.update(verdict="FAIL"))),
    "a claim not passed": Case("claims-differ", report(lambda r: r["claims"][0].update(threshold="0.01"))),
    "a limit removed": Case("limits-differ", report(lambda r: r["limits"].pop())),
    "fewer trials": Case("trials-differ", report(lambda r: r["trials"].update(failed=0))),
    "plan called signed before": Case("plan-differ", report(lambda r: r["plan"].update(status="signed-before-first-trial"))),
    "another procedure named": Case("method-differ", report(lambda r: r["method"].update(procedure="holm"))),
    "an earlier opening": Case("report-shape", report(lambda r: r.update(opening=0))),
    "a later opening": Case("statistics-differ", report(lambda r: r.update(opening=3))),
    "PASS over FAIL": Case("verdict-differ", report(lambda r: r.update(verdict="PASS")), "failing"),
    "PASS over NOT_ESTABLISHED": Case("verdict-differ", report(lambda r: r.update(verdict="PASS")), "short"),
    "claims passed over FAIL": Case("claims-differ", report(lambda r: r["claims"][0].update(passed=True)), "failing"),
    "an unplanned opening called the first": Case("statistics-differ", report(lambda r: r["certificate"]["opening"].update(number=1, statement="first")), "short"),
    "another certified one passes": Case("selected-differ", _pass_another, how=lambda m: {"model": None}),
    "another environment": Case("environment-differ", report(lambda r: r["environment"].update(python="3.99"))),
    "a small sample that is not said": Case("limits-differ", report(lambda r: r["limits"].remove("small-sample")), "small"),
    "a small sample that there is not": Case("limits-differ", report(lambda r: r["limits"].append("small-sample"))),
}  # fmt: skip
