"""Page 1: what a reader without statistics needs, and no more than fits on one sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from froc.audit.rendering import figures
from froc.audit.rendering.meanings import NAMELESS, SUM, as_defined, meaning, measured_by
from froc.audit.rendering.numbers import capitalised, cut, down, measured, percent, small, up
from froc.audit.rendering.words import ASSURANCE, DECISIONS, LIMITS, MEANINGS, PLANS, POPULATIONS, UNITS
from froc.risk.positive_control import vacuous
from froc.risk.wording import PLAIN

FEW = 3
"""Number of risks that the claim names one by one; beyond, it refers to the table."""
ROWS = 12
"""Number of risks that fit on page 1: those nearest to, or above, their budgets."""
DENSE = ((18, "dense tight"), (13, "dense"))
"""From this many risks and limits on, page 1 is set smaller in print, to stay on one sheet."""


@dataclass(frozen=True)
class Verified:
    """The result of `froc audit verify`, for the copy that it writes.

    when: UTC.
    keys: role or kind of key, and keyid.
    model: whether the model was compared.
    level: how far verification went, in words.
    checks: name of a step and what it found.
    """

    when: str
    keys: Sequence[tuple[str, str]]
    model: bool
    level: str
    checks: Sequence[tuple[str, str]]


def view(report: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
    """Values of the template of page 1, besides the report itself. strict: `words.STRICT`."""
    certificate = report["certificate"]
    subject = next((row for row in certificate["candidates"] if row["config"] == report["config"]), None)
    risks = [risk_of(report, subject, risk, strict) for risk in ordered(certificate["budget"])] if subject else []
    shown = _nearest(risks)
    if shown:
        most = figures.top([Decimal(k[name]) for k in shown for name in ("bound", "budget", "measured")])
        for k in shown:
            mean, bound, budget = (Decimal(k[name]) for name in ("measured", "bound", "budget"))
            k["bar"] = figures.bar(k["name"], mean, bound, budget, most, k["within"])
    return {
        "subject": subject,
        "risks": risks,
        "shown": shown,
        "scale": figures.scale(most) if shown else "",
        "density": next((kind for many, kind in DENSE if len(shown) + len(report["limits"]) >= many), ""),
        "decision": DECISIONS[report["verdict"]],
        "sentence": _sentence(report, subject, strict),
        "claim": claim(report, certificate, strict),
        "before": before(report, subject, strict),
        "established": not vacuous(certificate.get("base")),
        "cost": _cost(report, subject, strict),
        "limits": [LIMITS[name] for name in report["limits"]],
        "plan": PLANS[report["plan"]["status"]],
        "assurance": capitalised(ASSURANCE[report["assuranceLevel"]]),
    }


def _nearest(risks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The risks shown on page 1, in their order: the nearest to their budgets if there are too many."""
    if len(risks) <= ROWS:
        return list(risks)
    near = sorted(risks, key=lambda k: Decimal(k["bound"]) / Decimal(k["budget"]), reverse=True)[:ROWS]
    return [k for k in risks if k in near]


def risk_of(report: Mapping[str, Any], row: Mapping[str, Any], risk: str, strict: bool = True) -> dict[str, Any]:
    """One risk of the reported configuration: its signed numbers, and its words."""
    certificate = report["certificate"]
    combined = risk not in certificate["unit"]
    metric = _metric(report, risk)
    bound, budget = row["cur"][risk]["simultaneous"], certificate["budget"][risk]
    return {
        "name": risk,
        "meaning": meaning(risk, metric, strict) + _share(certificate, risk),
        "metric": measured_by(metric, strict),
        "n": "" if combined else row["n"][risk],
        "unit": _weights(certificate) if combined else UNITS[certificate["unit"][risk]],
        "by": "its parts" if combined else certificate["bound"][risk].replace("_", " "),
        "measured": row["empirical"][risk],
        "bound": bound,
        "budget": budget,
        "within": row["certified"] or Decimal(bound) <= Decimal(budget),
        "strict": row["certified"] and Decimal(bound) > Decimal(budget),
        "radius": row["robust_radius"][risk],
        "before": _before(certificate.get("base"), risk),
        "p": small(row["p_values"][risk]),
    }


def _metric(report: Mapping[str, Any], risk: str) -> str:
    return str(report["method"]["metric"].get(risk, SUM))


def _before(base: Mapping[str, Any] | None, risk: str) -> dict[str, Any] | None:
    """The base model's result, and whether it leaves anything to certify; None in reports without it."""
    if base is None:
        return None
    shown = base[risk]
    return {
        "measured": shown["before"], "lower": shown["lower"], "ceiling": shown["control"] == "ceiling", "vacuous": shown["vacuous"]
    }  # fmt: skip


def before(report: Mapping[str, Any], row: Mapping[str, Any] | None, strict: bool = True) -> str:
    """A sentence on forgetting before and after; empty if unknown, or if its metric reads no answers."""
    if strict and not as_defined("forgetting", _metric(report, "forgetting")):
        return ""
    shown = (report["certificate"].get("base") or {}).get("forgetting")
    if shown is None or row is None or "forgetting" not in row["cur"]:
        return ""
    after = up(row["cur"]["forgetting"]["simultaneous"])
    return (
        f"Before, {measured(shown['before'])} of these answers could be had as measured, at least {down(shown['lower'])} by a bound; "
        f"now at most {after}."
    )


def ordered(budget: Mapping[str, Any]) -> list[str]:
    """Forgetting and utility first, the others by name."""
    first = [risk for risk in ("forgetting", "utility") if risk in budget]
    return [*first, *sorted(risk for risk in budget if risk not in first)]


def _sentence(report: Mapping[str, Any], row: Mapping[str, Any] | None, strict: bool) -> str:
    tested = len(report["certificate"]["candidates"])
    if strict and report["certificate"]["screened"] is not None:
        return (
            f"The procedure screens and certifies nothing: {len(report['certificate']['screened'])} of {tested} tested configurations passed "
            "the screening, and each alone may be wrong."
        )
    confidence = percent(report["certificate"]["confidence"])
    opening = report["certificate"]["opening"]
    if row is None:
        return "No configuration came near the budget during the search, so none was tested."
    named = f"configuration {row['config']} ({cut(row['method'], 20)})"
    if report["verdict"] == "PASS":
        planned = opening["number"] <= opening["planned"]
        sure = f", with {confidence} confidence" if planned else f" ({opening['statement']})"
        return f"The chosen {named} keeps every risk within its budget{sure}."
    if report["verdict"] == "FAIL":
        above = [
            risk
            for risk in ordered(report["certificate"]["budget"])
            if Decimal(row["empirical"][risk]) > Decimal(report["certificate"]["budget"][risk])
        ]
        if len(above) == 1:
            return f"The {above[0]} risk of {named}, as measured, is above its budget."
        which = f"The {' and '.join(above)} risks" if len(above) <= FEW else f"{len(above)} risks"
        return f"{which} of {named}, as measured, are above their budgets."
    unshown = vacuous(report["certificate"].get("base"))
    if unshown:
        return (
            f"Nothing is established about {_few(unshown)}: the base model itself was not shown to be above the budget, so "
            "that nothing could be seen to be removed or kept."
        )
    return f"The risks of {named}, as measured, are within budget, but not surely enough for {confidence} confidence."


def claim(report: Mapping[str, Any], certificate: Mapping[str, Any], strict: bool = True) -> str:
    """What is certified where the report passes, in plain words."""
    budget = certificate["budget"]
    says = {risk: _claimed(risk, _metric(report, risk), strict) for risk in budget}
    limits = " and ".join(
        f"the {risk} risk ({says[risk]}) is at most {percent(budget[risk])}{_share(certificate, risk)}"
        for risk in ordered(budget)
    )
    if len(budget) > FEW:
        limits = f"each of the {len(budget)} risks below is at most its budget"
    sure = (
        f"With {percent(certificate['confidence'])} confidence, every certified configuration keeps all of this at once"
    )
    opening = certificate["opening"]["statement"]
    shift = certificate["radius"]
    if Decimal(shift):
        sure += f" and on every distribution of queries within a Hellinger distance of {shift}"
    about = _sample(report, certificate, strict) + _estimand(report, certificate) + _population(certificate)
    return f"{sure}: {limits}. {about} {capitalised(opening)}.{_early(certificate)}{stages(certificate)}"


def _claimed(risk: str, metric: str, strict: bool) -> str:
    words = meaning(risk, metric, strict) if risk in MEANINGS else NAMELESS
    return "as measured" if words == NAMELESS else words


def _share(certificate: Mapping[str, Any], risk: str) -> str:
    """What a relative budget is a share of; empty for other budgets."""
    return " of what the base model had" if risk in certificate.get("relative", ()) else ""


def _sample(report: Mapping[str, Any], certificate: Mapping[str, Any], strict: bool) -> str:
    """The number of units that the reported configuration was measured on, where it can be stated briefly."""
    row = next((row for row in certificate["candidates"] if row["config"] == report["config"]), None)
    # a sequential plan measures each configuration until its decision
    units, n = certificate["unit"], row["n"] if strict and row is not None else certificate["n"]
    if len(n) > FEW or not n:
        return ""
    parts = [f"{n[risk]} {UNITS[units[risk]]} for {risk}" for risk in ordered(n)]
    return f"It was measured on {' and '.join(parts)}. "


def _estimand(report: Mapping[str, Any], certificate: Mapping[str, Any]) -> str:
    """What the mean is over, where not over queries, with the mean over queries beside it. Older reports name none."""
    named = certificate.get("estimand", {})
    rows: Sequence[Mapping[str, Any]] = certificate["candidates"]
    row: Mapping[str, Any] = next((row for row in rows if row["config"] == report["config"]), {})
    others = [risk for risk in ordered(named) if named[risk] != PLAIN]
    if len(others) > FEW:
        kinds = sorted({named[risk] for risk in others})
        return f"For {_few(others)}, what is bounded is the {' or the '.join(kinds)}. "
    over = row.get("empirical_queries", {})
    words = (
        f"For {risk}, what is bounded is the {named[risk]}"
        + (
            f" (over all queries: {measured(over[risk])} as measured)"
            if "group means" in named[risk] and risk in over
            else ""
        )
        for risk in others
    )
    return "".join(f"{clause}. " for clause in words)


def _population(certificate: Mapping[str, Any]) -> str:
    kinds = certificate["population"]
    if len(set(kinds.values())) == 1:
        return f"This is about {POPULATIONS[next(iter(kinds.values()))]}."
    alike = {kind: [risk for risk in ordered(kinds) if kinds[risk] == kind] for kind in kinds.values()}
    words = "; ".join(f"{_few(risks)}: {POPULATIONS[kind]}" for kind, risks in alike.items())
    return f"What this is about differs. {capitalised(words)}."


def _few(risks: Sequence[str]) -> str:
    return ", ".join(risks) if len(risks) <= FEW else f"{', '.join(risks[:FEW])} and {len(risks) - FEW} more"


def _early(certificate: Mapping[str, Any]) -> str:
    spent = certificate["sequential"]
    if spent is None or spent["saved"] == 0:
        return ""
    return f" Measuring stopped early, by a rule that keeps the confidence: {spent['measured']} of {spent['planned']} units."


def stages(certificate: Mapping[str, Any]) -> str:
    """How the run was continued with fresh queries, in a sentence with a blank before it; empty where it was not."""
    further = certificate.get("stages", ())
    if not further:
        return ""
    many = "once" if len(further) == 1 else f"{len(further)} times"
    counts = "; ".join(", ".join(f"{n} of {risk}" for risk, n in stage["n"].items() if n) for stage in further)
    return (
        f" The run was continued {many} with fresh queries ({counts}), by tests whose confidence holds whenever and for whatever reason "
        "one goes on; that no stage was left out is the signer’s word."
    )


def _weights(certificate: Mapping[str, Any]) -> str:
    return " + ".join(f"{weight} {risk}" for risk, weight in certificate["weights"].items())


def _cost(report: Mapping[str, Any], row: Mapping[str, Any] | None, strict: bool) -> str:
    """The utility that forgetting cost."""
    if row is None and strict and report["certificate"]["candidates"]:
        return "No configuration was certified: what those that were tested cost stands in appendix F."
    if row is None:
        return "No configuration was tested, so no cost is known."
    if "utility" not in row["cur"]:
        return "Utility was not measured on calibration queries: what this removal costs is not shown."
    mean, bound = row["empirical"]["utility"], row["cur"]["utility"]["simultaneous"]
    known = not strict or as_defined("utility", _metric(report, "utility"))
    of = _share(report["certificate"], "utility") or (
        " of the retained behaviour" if known else " of utility, by its own measure,"
    )
    return f"Against its base model, {measured(mean)}{of} was lost as measured, and at most {up(bound)} by its bound."
