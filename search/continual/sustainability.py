"""How removals accumulate: the record of a chain of runs, each of which extends its predecessor's.

Everything is measured on search queries, for information: nothing is ranked, chosen or certified by it. The runs'
certified results stand beside it. After MUSE's sustainability (Shi et al. 2407.06460, C6): fold k starts from the model
of fold k - 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from froc.data.splits import SearchView
from froc.data.task import FORGETTING, UTILITY, Query, Task
from froc.measuring.measurement import Measurement
from froc.measuring.query_losses import measured, probes
from froc.models.base import Base, load
from froc.search.continual.chain import RunChain
from froc.search.run_folder import Folder, of_document, write_json
from froc.search.trial.outcome import mean

SAYS = "measured on search queries: not certified; what each run certified stands under certificate"


def extend(
    base: Base, view: SearchView, task: Task, after: RunChain, folder: Folder,
    measures: Mapping[str, Measurement], original: Callable[[], Base | None] | None,
) -> None:  # fmt: skip
    """Write `sustainability.json` of a run that chose a model.

    It has one entry per model of the chain (`removals`). `forgetting`: number of the request -> mean forgetting loss,
    including that of the next request before its removal. `utility`: utility loss relative to the answers of the model
    before all removals; None where that model is not available.
    """
    old = Folder(after.run)
    known = old.read(old.sustainability)
    number = len(after.document["tasks"]) + 1
    queries = {str(number): view.queries[FORGETTING]}
    if task.earlier is not None:
        queries |= {str(place): request_queries for place, request_queries in enumerate(task.earlier.searched, start=1)}
    start = original() if original is not None else None
    start = start and replace(start, measured_in=base.measured_in)
    look = _looker(base, view, queries, measures, start)
    base.restore()
    before = look(base)
    rows = [dict(row) for row in known["removals"]] if known else []
    if not rows:
        # the first run of a chain has no record
        rows = [{"removals": number - 1, **before, **_certified(old)}]
    # the request removed now, before its removal
    rows[-1] = rows[-1] | {"forgetting": {**before["forgetting"], **rows[-1]["forgetting"]}}
    model = replace(load(str(folder.model), device=str(base.device), dtype=base.dtype), measured_in=base.measured_in)
    last = {"removals": number, **look(model), **_certified(folder)}
    metrics = {risk: str(measures[risk]) for risk in (FORGETTING, UTILITY)}
    document = {"format": 1, "split": "search", "says": SAYS, "metrics": metrics, "removals": [*rows, last]}
    write_json(folder.sustainability, document)


def _looker(
    base: Base, view: SearchView, queries: Mapping[str, tuple[Query, ...]], measures: Mapping[str, Measurement],
    start: Base | None,
) -> Callable[[Base], dict[str, Any]]:  # fmt: skip
    """A function that measures a model; rows are encoded, and the first model's answers computed, only once."""
    known = dict.fromkeys(queries, measures[FORGETTING]) | {UTILITY: measures[UTILITY]}
    encoded = probes(base, queries, known, view)
    if start is not None:
        encoded += probes(start, {UTILITY: view.queries[UTILITY]}, known, view)

    def look(model: Base) -> dict[str, Any]:
        means = {risk: _four(mean(losses)) for risk, losses in measured(model, encoded).items()}
        utility = means.pop(UTILITY, None)
        many = {number: len(request_queries) for number, request_queries in queries.items()} | {
            UTILITY: len(view.queries[UTILITY])
        }
        return {"forgetting": means, "utility": utility, "queries": many}

    return look


def _certified(folder: Folder) -> dict[str, Any]:
    """What a run certified about its chosen model, by the digest of its certificate."""
    plan, certificate = folder.read(folder.plan), folder.read(folder.certificate)
    assert plan is not None
    assert certificate is not None
    row = next(candidate for candidate in certificate["candidates"] if candidate["config"] == certificate["chosen"])
    risks = {
        risk: {"measured": row["empirical"][risk], "at_most": row["cur"][risk]["simultaneous"], "budget": alpha}
        for risk, alpha in certificate["budget"].items()
    }
    return {
        "task": plan["task"]["name"], "method": row["method"],
        "certificate": {"digest": of_document(folder.certificate), "confidence": certificate["confidence"], "risks": risks},
    }  # fmt: skip


def _four(value: float) -> float:
    # an exact mean could identify the texts behind it
    return round(value, 4)
