"""A comparison of methods that is signed with the run."""

import json
from typing import Any

from froc import hashing
from tests.audit.cases.forging import Attack, Case, Change, document, edited, lines, report
from tests.audit.conftest import Made


def _compared(change: Change) -> Attack:
    """Edit plan or seal of a comparison; the seal names the plan as it then is."""

    def edit(comparison: dict[str, Any]) -> None:
        change(comparison)
        plan = json.dumps(comparison["plan"], indent=2, sort_keys=True) + "\n"
        comparison["seal"]["plan"] = hashing.sha256_bytes(plan.encode())

    return document("comparison.json", edit)


def _without_base(made: Made) -> None:
    """Neither its point nor its rows."""
    _compared(lambda found: found["seal"]["candidates"].pop(0))(made)
    lines(
        lambda rows: rows.__setitem__(slice(None), [row for row in rows if not row.startswith("base,")]),
        "comparison.csv",
    )(made)


def _mixed_otherwise(made: Made) -> None:
    """A share of which page and name say different things."""
    _compared(lambda found: found["seal"]["candidates"][1]["params"].update(mix=0.25))(made)
    made.resign(lambda report: report["comparison"]["stages"]["0.95"]["npo"].update(mix="0.25"))


CASES: dict[str, Case] = {
    "comparison: a verdict turned round": Case("comparison-differ", report(lambda r: r["comparison"]["pairs"]["0.95"][0].update(verdict="rmu")), "compared"),
    "comparison: a bound made smaller": Case("comparison-differ", report(lambda r: r["comparison"]["stages"]["0.95"]["rmu"]["forgetting"].update(upper="0.1")), "compared"),
    "comparison: a front left out": Case("comparison-differ", report(lambda r: r["comparison"]["fronts"].pop("rmu")), "compared"),
    "comparison: the comparison left out": Case("comparison-differ", report(lambda r: r.pop("comparison")), "compared"),
    "comparison: its losses left out": Case("bundle-missing-file", lambda m: (m.bundle / "comparison.csv").unlink(), "compared"),
    "comparison: losses edited": Case("evidence-digest:comparison.csv", lambda m: m.edit("comparison.csv", lambda t: t.replace(",0\n", ",1\n", 1)), "compared"),
    "comparison: losses edited and signed": Case("comparison-differ", edited("comparison.csv", lambda t: t.replace(",60\n", ",61\n", 1)), "compared"),
    "comparison: a row removed and signed": Case("table-missing-row", lines(lambda ls: ls.pop(), "comparison.csv"), "compared"),
    "comparison: another base model": Case("comparison-other-plan", document("comparison.json", lambda d: d["plan"]["model"].update(digest="1" * 64)), "compared"),
    "comparison: a point that was not sealed": Case("comparison-shape", document("comparison.json", lambda d: d["seal"]["stages"]["0.95"].update(npo="x/c0009@1.0000")), "compared"),
    "a comparison edited": Case("evidence-digest:comparison.json", lambda m: m.edit("comparison.json", lambda t: t.replace("0.95", "0.94")), "compared"),
    "a comparison about another model": Case("comparison-other-task", _compared(lambda d: d["plan"]["model"].update(digest="1" * 64)), "compared"),
    "a comparison of more planned openings than any plan has": Case("comparison-openings", _compared(lambda d: d.update(opening=5, planned=10)), "compared"),
    "a comparison by code that nothing names": Case("comparison-plugins", _compared(lambda d: d["plan"]["metrics"].update(forgetting="rouge_l@secret_attack")), "compared"),
    "a comparison of other rows": Case("comparison-other-digest", _compared(lambda d: d["plan"]["task"].update(digest="1" * 64)), "compared"),
    "a comparison of other queries": Case("comparison-other-queries", _compared(lambda d: d["seal"]["calibration"].update(utility="f" * 64)), "compared"),
    "a comparison of a point mixed by nothing": Case("comparison-shape", _compared(lambda d: d["seal"]["candidates"][1]["params"].pop("mix")), "compared"),
    "a comparison of a point mixed by words": Case("comparison-shape", _compared(lambda d: d["seal"]["candidates"][1]["params"].update(mix="verified by nobody")), "compared"),
    "a comparison of a point mixed by more than all": Case("comparison-shape", _compared(lambda d: d["seal"]["candidates"][1]["params"].update(mix=99.0)), "compared"),
    "a comparison of a point mixed by another share than its name's": Case("comparison-shape", _mixed_otherwise, "compared"),
    "a comparison of a mixture that is called trained": Case("comparison-before", _compared(lambda d: d["seal"]["stages"]["before"].update(npo="npo/c0001@0.5000")), "compared"),
    "a comparison without the base model": Case("comparison-refused", _without_base, "compared"),
    "a comparison of no method": Case("comparison-stages", _compared(lambda d: (d["seal"].update(fronts={}), [stage.clear() for stage in d["seal"]["stages"].values()])), "compared"),
    "a comparison of a method without a front": Case("comparison-stages", _compared(lambda d: d["seal"]["fronts"].update(npo=[])), "compared"),
    "a comparison with a level twice": Case("comparison-stages", _compared(lambda d: d["plan"]["levels"].append(0.95000000001)), "compared"),
    "a comparison with words about its bends": Case("comparison-shape", _compared(lambda d: d["seal"]["monotone"].update(worst="verified by nobody")), "compared"),
    "a comparison without a level": Case("comparison-stages", _compared(lambda d: d["seal"]["stages"].pop("0.95")), "compared"),
    "a comparison without a method at one level": Case("comparison-stages", _compared(lambda d: d["seal"]["stages"]["0.95"].pop("rmu")), "compared"),
    "a comparison under another method's name": Case("comparison-shape", _compared(lambda d: d["seal"]["stages"]["0.95"].update(rmu="npo/c0001@0.5000")), "compared"),
    "a comparison opened never": Case("comparison-shape", _compared(lambda d: d.update(opening=0)), "compared"),
}  # fmt: skip
