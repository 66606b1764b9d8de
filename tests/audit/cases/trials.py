"""The log of trials."""

import json

from froc.audit import canonical_json
from tests.audit.cases.forging import Attack, Case, Change, document, edited, lines


def _line(place: int, change: Change) -> Attack:
    """Edit a line of the log."""

    def edit(rows: list[str]) -> None:
        record = json.loads(rows[place])
        change(record)
        rows[place] = canonical_json.compact(record).decode().rstrip()

    return lines(edit, "trials.jsonl")


CASES: dict[str, Case] = {
    "trial removed": Case("trial-index", lines(lambda ls: ls.pop(0), "trials.jsonl")),
    "failed trial removed": Case("trial-index", lines(lambda ls: ls.pop(2), "trials.jsonl")),
    "first attempt removed": Case("trial-index", lines(lambda ls: ls.pop(4), "trials.jsonl")),
    "trial run twice": Case("trial-repeated", lines(lambda ls: ls.append(ls[1].replace('"attempt":1', '"attempt":2')), "trials.jsonl")),
    "trial of another plan": Case("trial-other-plan", _line(0, lambda t: t.update(plan="e" * 64))),
    "trial before the plan": Case("trial-before-plan", _line(0, lambda t: t.update(started="2026-03-01T07:00:00Z"))),
    "trial that ended before it began": Case("trial-dates", _line(0, lambda t: t.update(ended="2026-03-01T08:59:59Z"))),
    "trial that took longer than it ran": Case("trial-duration", _line(0, lambda t: t.update(seconds="4000.0"))),
    "complete trial without an end": Case("trial-shape", _line(0, lambda t: t.update(ended=None))),
    "interrupted trial that took a lifetime": Case("trial-duration", _line(4, lambda t: t.update(ended=None, seconds="999999999999"))),
    "mean above the worst loss": Case("trial-shape", _line(2, lambda t: t.update(search={"utility": "999999999999"}))),
    "mean of a risk that was not planned": Case("trial-risks", _line(0, lambda t: t["search"].update(privacy="0.1"))),
    "average of a risk that was not planned": Case("trial-risks", _line(0, lambda t: t["averages"].update({"verified-by-nobody": t["averages"]["utility"]}))),
    "trial that failed after it was complete": Case("trial-repeated", lines(lambda ls: ls.append(ls[1].replace('"attempt":1', '"attempt":2').replace('"complete"', '"failed"')), "trials.jsonl")),
    "trial of a method that was not planned": Case("trial-method", _line(2, lambda t: t.update(method="rmu"))),
    "stop after the last step": Case("trial-steps", _line(1, lambda t: t.update(steps=1, variants=[{"config": "c0001-s20", "stop": 20, "mix": "1.0", "search": {"forgetting": "0.2", "utility": "0.2"}, "averages": None}]))),
    "trial of another century": Case("trial-after-report", _line(1, lambda t: t.update(started="2999-03-01T09:00:00Z", ended="2999-03-01T10:00:00Z"))),
    "candidate behind a worse one": Case("seal-rank", _line(3, lambda t: t["search"].update(forgetting="0.01", utility="0.01"))),
    "candidate behind a worse one of which a mean is left out": Case("seal-rank-means", _line(1, lambda t: t["search"].pop("utility"))),
    "no means of any trial": Case("seal-rank-means", edited("trials.jsonl", lambda t: t.replace('"search":{"forgetting":"0.05","utility":"0.031"}', '"search":null'))),
    "weight of a candidate that nobody tests": Case("seal-rank-weights", document("seal.json", lambda s: s["candidates"][2].update(weight=1e-6))),
    "weights all alike": Case("seal-rank-weights", document("seal.json", lambda s: s["candidates"][1].update(weight=1.0))),
    "candidates reversed": Case("seal-rank-weights", document("seal.json", lambda s: s["candidates"].reverse())),
    "unknown trial status": Case("trial-status", _line(2, lambda t: t.update(status="ok"))),
    "further trial field": Case("trial-shape", _line(2, lambda t: t.update(host="node7"))),
    "other hyperparameters": Case("trial-config-set", _line(1, lambda t: t["params"].update(lr="0.5"))),
    "float in a trial": Case("json-nan-or-float", _line(1, lambda t: t.update(seconds=1.5))),
    "more trials than planned": Case("trial-index", lines(lambda ls: ls.append(ls[2].replace('"trial":2', '"trial":5').replace("c0002", "c0005")), "trials.jsonl")),
    "sealed trial failed": Case("trial-config-set", _line(1, lambda t: t.update(status="failed"))),
    "seal counts more trials": Case("trial-count", document("seal.json", lambda s: s.update(trials=40))),
    "seal counts fewer trials": Case("trial-count", document("seal.json", lambda s: s.update(trials=0))),
    "log without a last line feed": Case("trial-line-ending", edited("trials.jsonl", lambda t: t[:-1])),
    "text as a trial's reason": Case("trial-shape", edited("trials.jsonl", lambda t: t.replace('"ValueError at froc.methods.npo:33"', '"ann lives in paris"', 1))),
    "text as a trial's seed": Case("trial-shape", _line(1, lambda t: t.update(seed="PASS <b>x</b>"))),
    "text as a trial's method": Case("trial-shape", _line(2, lambda t: t.update(method="npo, verified"))),
    "stop of a trial by another name": Case("trial-repeated", _line(1, lambda t: t.update(variants=[{"config": "c0001s20", "stop": 20, "mix": "1.0", "search": {"forgetting": "0.2", "utility": "0.2"}, "averages": None}]))),
    "text as a trial's mean": Case("trial-shape", edited("trials.jsonl", lambda t: t.replace('"utility":"0.031"', '"utility":"ann"', 1))),
    "text as a trial's end": Case("trial-shape", edited("trials.jsonl", lambda t: t.replace('"ended":"2026', '"ended":"ann', 1))),
    "trial of another name": Case("trial-index", edited("trials.jsonl", lambda t: t.replace('"config":"c0001"', '"config":"c0009"', 1))),
}  # fmt: skip
