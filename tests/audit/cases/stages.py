"""Further stages of a run that was continued with fresh queries."""

import json
from typing import Any

from froc import hashing
from tests.audit.cases.forging import Case, Change, document, edited, lines
from tests.audit.conftest import Made


def _chained(change: Change) -> Any:
    """Edit the stages; each then names again what was sealed before it, as who holds the key could write it."""

    def edit(content: dict[str, Any]) -> None:
        change(content)
        for first, second in zip(content["stages"], content["stages"][1:], strict=False):
            second["before"] = hashing.sha256_json(first)

    return document("stages.json", edit)


def _unplanned(made: Made) -> None:
    """Stages beside a plan that says nothing of any."""
    (made.bundle / "stages.json").write_text(
        json.dumps({"format": 1, "stages": [{"number": 2, "created": "2026-03-01T10:00:00Z", "before": "a" * 64, "rows": "b" * 64,
                    "seed": "c" * 64, "queries": {"forgetting": "d" * 64}, "units": {"forgetting": 1}}]})
    )  # fmt: skip
    made.resign()


def _left_out(made: Made) -> None:
    """The losses without what was sealed for them."""
    (made.bundle / "stages.json").unlink()
    made.resign()


def _without_last(rows: list[str]) -> None:
    rows[:] = [row for row in rows if ",calibration-3," not in row]


def _further_risk(rows: list[str]) -> None:
    """Rows about utility in a stage about forgetting, of new queries."""
    new = [row.split(",") for row in rows[1:] if ",calibration-2,utility," in row]
    new = [[c, "calibration-3", r, f"{u[::-1]}", f"{q[::-1]}", loss] for c, _, r, u, q, loss in new]
    rows[1:] = sorted([*rows[1:], *map(",".join, new)], key=lambda row: [row.split(",")[k] for k in (0, 1, 2, 4)])


CASES: dict[str, Case] = {
    "stages: their file left out": Case("table-unplanned-row", _left_out, "continued"),
    "stages: edited by an outsider": Case("evidence-digest:stages.json", lambda m: m.edit("stages.json", lambda t: t.replace("2222", "2223", 1)), "continued"),
    "stages: of a plan that allows none": Case("stages-unplanned", _unplanned),
    "stages: the first left out": Case("stages-order", document("stages.json", lambda d: d["stages"].pop(0)), "continued"),
    "stages: one that names another seal": Case("stages-order", document("stages.json", lambda d: d["stages"][0].update(before="e" * 64)), "continued"),
    "stages: dated before the trials": Case("stages-dates", _chained(lambda d: d["stages"][0].update(created="2026-03-01T08:00:00Z")), "continued"),
    "stages: dated after the report": Case("stages-after-report", _chained(lambda d: d["stages"][-1].update(created="2026-03-01T14:00:00Z")), "continued"),
    "stages: about an unplanned risk": Case("stages-risks", _chained(lambda d: d["stages"][1].update(queries={"relearning": "d" * 64}, units={"relearning": 1})), "continued"),
    "stages: a field too many": Case("stages-shape", document("stages.json", lambda d: d["stages"][0].update(note="fine")), "continued"),
    "stages: rows of one that nothing seals": Case("table-unplanned-row", edited("losses.csv", lambda t: t.replace(",calibration-3,", ",calibration-4,")), "continued"),
    "stages: the rows of one left out": Case("table-other-queries", lines(_without_last), "continued"),
    "stages: rows under a risk that was not sealed": Case("table-other-queries", lines(_further_risk), "continued"),
    "stages: other queries than sealed": Case("table-other-queries", _chained(lambda d: d["stages"][0]["queries"].update(forgetting="d" * 64)), "continued"),
    "stages: more units than measured": Case("plan-units", _chained(lambda d: d["stages"][0]["units"].update(forgetting=10**6)), "continued"),
    "stages: a loss lowered": Case("statistics-differ", edited("losses.csv", lambda t: "\n".join(r[:-5] + ",0" if ",calibration-2,forgetting," in r and r.endswith(",1000") else r for r in t.split("\n"))), "continued"),
    "stages: another order": Case("stages-seed", _chained(lambda d: d["stages"][0].update(seed="f" * 64)), "continued"),
}  # fmt: skip
