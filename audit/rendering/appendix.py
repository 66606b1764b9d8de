"""The appendix: what a reader with statistics needs, from verified evidence; only aggregates, never a single query's loss."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from froc import fidelity, procedures, provenance
from froc.audit.bundle_files import Average, Trial, Variant
from froc.audit.documents import Plan
from froc.audit.rendering import figures
from froc.audit.rendering.curves import _classes, _curves, sensitivity
from froc.audit.rendering.figures import Both
from froc.audit.rendering.meanings import as_defined, measured_by
from froc.audit.rendering.numbers import count, cut, percent, up
from froc.audit.rendering.summary import ordered
from froc.audit.rendering.words import STATUS
from froc.audit.report import Facts
from froc.bounds import Bound
from froc.comparison import document
from froc.configuration_id import ConfigurationId
from froc.data.task import WORDINGS
from froc.measuring.named_risks import KNOWN, NAMED_BEFORE_LISTS
from froc.plugins import find

ROWS = 300
"""Number of trials with a row of their own; the others are counted, and are in the evidence."""


def view(
    report: Mapping[str, Any], facts: Facts, subject: Mapping[str, Any] | None, strict: bool = True
) -> dict[str, Any]:
    """Values of the appendix' template, besides report and facts. strict: `words.STRICT`."""
    budget = {risk: Decimal(report["certificate"]["budget"][risk]) for risk in ordered(report["certificate"]["budget"])}
    return {
        "data": [_drawn(facts.plan, risk) for risk in ordered(facts.plan.task.units)],
        "bounds": _theorems(report, strict),
        "procedure": procedures.find(facts.plan.procedure).theorem,
        "certifies": not strict or procedures.find(facts.plan.procedure).promise == "family-wise",
        "deviations": deviations(report, facts),
        "trials": _trials(facts),
        "hidden": max(0, len(facts.trials) - ROWS),
        "timeline": _timeline(facts.trials),
        "landscape": _landscape(facts, report, budget),
        "curves": _curves(report, subject, budget) if subject else [],
        "classes": _classes(facts, report["config"]) if subject else [],
        "sensitivity": sensitivity(facts, report) if subject else None,
        "averages": _averages(facts.trials, report["config"]),
        "attacks": _attacks(report, subject, strict, facts.plan.named_risks or NAMED_BEFORE_LISTS),
        "compared": _compared(report.get("comparison"), strict),
        "foreign": provenance.sentences(report.get("plugins", [])),
        "fidelity": _fidelity(facts.plan),
    }


def _fidelity(plan: Plan) -> list[dict[str, str]]:
    """A line for each tag that occurs: what has it, by kind and name, and what it means; strongest first."""
    tags = plan.fidelity or {}
    return [
        {
            "tag": tag,
            "names": ", ".join(sorted(name for name, source in tags.items() if source == tag)),
            "meaning": meaning,
        }
        for tag, meaning in fidelity.MEANINGS.items()
        if tag in tags.values()
    ]


def _drawn(plan: Plan, risk: str) -> dict[str, Any]:
    """How one risk's queries were divided."""
    return {
        "risk": risk,
        "population": plan.population[risk],
        "listed": plan.listed.get(risk),
        "unit": plan.task.units[risk],
        "search": plan.split.search[risk],
        "calibration": plan.split.calibration[risk],
        "digest": plan.split.queries.get(risk, ""),
    }


def _theorems(report: Mapping[str, Any], strict: bool) -> list[dict[str, str]]:
    return [
        {
            "risk": risk,
            "metric": measured_by(report["method"]["metric"][risk], strict),
            "raw": report["method"]["metric"][risk],
            "bound": name.replace("_", " "),
            "theorem": find(Bound, name).theorem,
        }
        for risk, name in sorted(report["method"]["bound"].items())
    ]


def deviations(report: Mapping[str, Any], facts: Facts) -> list[str]:
    """Where the run departed from its plan, in words; empty if it did not."""
    trials, plan, opening = report["trials"], facts.plan, report["certificate"]["opening"]
    begun = len({trial.trial for trial in facts.trials})
    sentences = {
        f"{begun} of {trials['planned']} planned trials were begun.": begun < trials["planned"],
        f"{count(trials['failed'], 'trial')} failed: what those configurations would have shown is not known.": trials["failed"] > 0,
        f"{count(trials['interrupted'], 'attempt')} ended with the process that ran it, and {'was' if trials['interrupted'] == 1 else 'were'} "
        "made again or left out.": trials["interrupted"] > 0,
        f"The calibration queries were opened {opening['number']} times; {plan.openings} planned.": opening["number"] > plan.openings,
        "The plan was signed after the run; nothing shows that it was not changed.": report["plan"]["status"] == "asserted-signed-after-run",
        "The report is about another configuration than the chosen one, as its signer asked.": report["asked"] is not None
        and report["config"] != report["chosen"],
    }  # fmt: skip
    return [text for text, holds in sentences.items() if holds]


def _trials(facts: Facts) -> list[dict[str, Any]]:
    first = min((trial.started for trial in facts.trials), default="")
    sealed = Counter(ConfigurationId.parse(candidate.config).trial for candidate in facts.seal.candidates)
    return [
        {
            "t": trial,
            "after": _seconds(first, trial.started),
            "seconds": str(Decimal(trial.seconds).quantize(Decimal("0.1"))),
            "status": STATUS[trial.status],
            "good": trial.status == "complete",
            "reason": cut(trial.reason or "", 90),
            "tested": sealed[trial.trial] if trial.status == "complete" else 0,
        }
        for trial in facts.trials[:ROWS]
    ]


def _seconds(first: str, then: str | None) -> int:
    if then is None:
        return 0
    return int((datetime.fromisoformat(then) - datetime.fromisoformat(first)).total_seconds())


def _timeline(trials: Sequence[Trial]) -> Any:
    kinds = {status: "failed" if words.startswith("failed") else status for status, words in STATUS.items()}
    first = min((trial.started for trial in trials), default="")
    spans = []
    for trial in trials:
        start = _seconds(first, trial.started)
        # a killed process leaves no end of its trial
        end = _seconds(first, trial.ended) if trial.ended else start + int(Decimal(trial.seconds))
        spans.append(figures.Span(start, max(start, end), kinds[trial.status]))
    return figures.timeline(figures.lanes(spans)) if spans else None


def _points(trials: Sequence[Trial]) -> list[Both]:
    """(utility, forgetting) search losses of every configuration that was measured."""
    searched = [end.search for trial in trials if trial.status == "complete" for end in _ends(trial)]
    return [(Decimal(s["utility"]), Decimal(s["forgetting"])) for s in searched if s and {"utility", "forgetting"} <= s.keys()]  # fmt: skip


def _landscape(facts: Facts, report: Mapping[str, Any], budget: Mapping[str, Decimal]) -> dict[str, Any] | None:
    points = [point for point in _points(facts.trials) if 0 <= min(point) <= max(point) <= 1]
    pair = {risk: budget[risk] for risk in ("forgetting", "utility") if risk in budget}
    if len(pair) < 2 or not points:
        return None
    ends = (_end(max(u for u, _ in points)), _end(max(f for _, f in points)))
    shown, line = figures.cells(points, ends), _best(points)
    rows = [{**row, "reported": row["config"] == report["config"]} for row in report["certificate"]["candidates"]]
    within = sum(u <= pair["utility"] and f <= pair["forgetting"] for u, f in points)
    return {
        "picture": figures.landscape(shown, ends, pair),
        "count": len(points),
        "within": within,
        "cells": [(_span(i, ends[0]), _span(j, ends[1]), n) for (i, j), n in _largest(shown)],
        "more": max(0, len(shown) - len(_largest(shown))),
        "front": figures.front(line, rows, pair) if rows else None,
        "line": line[:20],
        "longer": max(0, len(line) - 20),
    }


def _largest(counts: Mapping[tuple[int, int], int]) -> list[tuple[tuple[int, int], int]]:
    """The fullest cells, at most twenty."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]


def _end(most: Decimal) -> Decimal:
    """The end of a landscape's axis: the next whole tenth."""
    return max(Decimal("0.1"), most.quantize(Decimal("0.1"), ROUND_CEILING))


def _span(cell: int, end: Decimal) -> str:
    return f"{percent(str(end * cell / figures.GRID))} to {percent(str(end * (cell + 1) / figures.GRID))}"


def _best(points: Sequence[Both]) -> list[Both]:
    """Points that no other point dominates, from the smallest utility loss; at most 100."""
    front: list[Both] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front[:: -(-len(front) // 100)] if front else []


def _averages(trials: Sequence[Trial], config: str | None) -> dict[str, Average]:
    """risk -> accuracies and plain losses of the reported configuration, measured in the search."""
    ends = (end for trial in trials if trial.status == "complete" for end in _ends(trial))
    return next((end.averages for end in ends if end.config == config and end.averages), {})


def _ends(trial: Trial) -> list[Trial | Variant]:
    """The configurations of one training."""
    return [trial, *trial.variants]


def _attacks(
    report: Mapping[str, Any], subject: Mapping[str, Any] | None, strict: bool, named: Sequence[str]
) -> list[dict[str, str]]:
    """Every risk that had a name when the plan was written, and those that the report defines: measured as what, or not run.

    A risk of a known name that is measured otherwise is one that the report defines.
    """
    metrics: Mapping[str, str] = report["method"]["metric"]
    known_risks = {name: known for name, known in KNOWN.items() if name in named}
    usual = {risk for risk in metrics if risk in known_risks and (not strict or as_defined(risk, metrics[risk]))}
    own = [risk for risk in ordered(metrics) if risk not in usual]
    attacks = []
    for name, known in known_risks.items():
        run = [name] if name in usual else [risk for risk in own if metrics[risk] == known.of]
        if not run and known.of.endswith(f"/{WORDINGS}"):
            continue  # queries that few tasks have: no way of asking that was left out
        how = measured_by(metrics[run[0]] if run else known.of, strict)
        attacks.append({"name": name, "says": known.says, "how": how, "run": _ran(run, name, subject)})
    listed = {known.of for known in known_risks.values()}
    return attacks + [
        {
            "name": risk,
            "says": "defined for this report",
            "how": measured_by(metrics[risk], strict),
            "run": _ran([risk], risk, subject),
        }
        for risk in own
        if metrics[risk] not in listed or (strict and risk in known_risks)
    ]


def _ran(risks: Sequence[str], name: str, subject: Mapping[str, Any] | None) -> str:
    """What the report states about a risk; empty if it was not measured."""
    if not risks:
        return ""
    as_ = "" if list(risks) == [name] else f" as {', '.join(risks)}"
    bounds = [up(subject["cur"][risk]["simultaneous"]) for risk in risks if risk in subject["cur"]] if subject else []
    return f"run{as_}" + (f": at most {', '.join(bounds)}" if bounds else ", on no configuration")


def _compared(comparison: Mapping[str, Any] | None, strict: bool) -> dict[str, Any] | None:
    """A comparison's tables: per stage a line for each method, least remaining first, and the results of its pairs."""
    if comparison is None:
        return None
    stages = [
        {
            "name": _stage(stage, strict),
            "tied": comparison["ranking"][stage]["tied"],
            "rows": [{"method": m, **comparison["stages"][stage][m]} for m in comparison["ranking"][stage]["methods"]],
            "pairs": _pairs(comparison["pairs"][stage], comparison["ranking"][stage]["methods"]),
        }
        for stage in document.ordered(comparison["ranking"])
    ]
    region = [{"method": method, "at": area["at"]} for method, area in comparison["region"].items()]
    return {"stages": stages, "region": region, "budgets": list(region[0]["at"]), "c": comparison}


def _stage(stage: str, strict: bool) -> str:
    if stage == document.BEFORE:
        return "as trained, before mixing"
    heading = f"mixed to keep {percent(stage)}, by the signer’s word"
    return heading if strict else f"at {percent(stage)} retained performance"


def _pairs(pairs: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[str]:
    """A phrase for each method that leaves less than others, the best first, then the ties."""
    less = {
        method: [p["other"] if p["one"] == method else p["one"] for p in pairs if p["verdict"] == method]
        for method in order
    }
    ties = [f"{p['one']} and {p['other']}" for p in pairs if p["verdict"] == "tie"]
    phrases = [f"{m} leaves less than {', '.join(o for o in order if o in less[m])}" for m in order if less[m]]
    return [*phrases, *([f"ties: {', '.join(ties)}"] if ties else [])]
