"""Sentences of a certificate. Torch-free."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from froc.loss_table import WEIGHTED
from froc.risk import positive_control as control
from froc.risk.claim import MEANS, Claim, level
from froc.risk.rounding import at_most

MAX_LISTED_BUDGETS = 3
"""Budgets that are listed singly; more are grouped by value."""
PLAIN = MEANS["query"]
"""The default estimand, which is not spelled out."""


def statement(claim: Claim) -> str:
    """Which opening of these calibration queries this is, of which series of attempts, and the resulting confidence."""
    if claim.series > 1:
        return (
            f"{_opening(claim)}; one of {claim.series} attempts with fresh queries that were declared beforehand: all of them together hold "
            f"with confidence {claim.confidence:g}"
        )
    return _opening(claim)


def _opening(claim: Claim) -> str:
    spent = level(claim) * (2 if claim.joint else 1)
    if claim.opening > claim.openings:
        joint_confidence = max(0.0, 1.0 - claim.opening * spent * claim.series)
        return f"opening {claim.opening}, {claim.openings} planned: jointly {joint_confidence:.6g}, not {claim.confidence:g}"
    if claim.openings > 1:
        return (
            f"opening {claim.opening} of {claim.openings} planned: "
            f"all together hold with confidence {claim.confidence:g}"
        )
    return "first and only opening of these calibration queries"


def unmeasured_warnings(claim: Claim) -> list[str]:
    """Warnings about earlier removals that are not measured."""
    if not claim.unmeasured:
        return []
    many = f"{claim.unmeasured} earlier removals were" if claim.unmeasured > 1 else "the earlier removal was"
    return [
        f"{many} not measured: what was removed before may have come back, and that the queries of this run are new to "
        "the runs before it is not checked"
    ]


def reason(certificate: Mapping[str, Any], claim: Claim, short: str | None) -> str:
    """The outcome in one line. short: the sentence of `requirements.shortage`, if any."""
    rows, chosen, closest = certificate["candidates"], certificate["chosen"], certificate["closest"]
    limits = _limits(claim)
    if claim.radius:
        limits += f" within a Hellinger radius of {claim.radius:g}"
    if certificate["screened"]:
        return (
            f"{len(certificate['screened'])} of {len(rows)} candidates screened ({limits}): the expected share of wrong "
            f"ones among them is at most {level(claim):.6g}; nothing is certified, each alone may be wrong"
        )
    unshown = control.vacuous(certificate.get("base"))
    if unshown:
        why = "; ".join(control.complaint(risk, certificate["base"][risk], claim.budget[risk]) for risk in unshown)
        return f"NOT ESTABLISHED for {' and '.join(unshown)}, so nothing is certified for {limits}; {why}"
    if closest is not None:
        return (
            f"nothing certified for {limits}; " + (f"{short}; " if short else "") + closest_words(closest, rows, claim)
        )
    if chosen is None:
        return f"nothing certified: no configuration came near {limits} on the search queries"
    count = sum(row["certified"] for row in rows)
    method = next(row["method"] for row in rows if row["config"] == chosen)
    sure = f"confidence {claim.confidence:.6g}" if claim.opening <= claim.openings else statement(claim)
    named = f"{chosen} ({method})" if method else chosen
    return f"{count} of {len(rows)} candidates certified ({limits}, {sure}); chosen {named} for the widest margin"


def estimand_warnings(rows: Sequence[Mapping[str, Any]], claim: Claim) -> list[str]:
    """Warnings where a mean of group means is certified and the mean over queries is above the budget."""
    lines = []
    for risk in claim.risks if claim.estimand else ():
        means = [row["empirical_queries"][risk] for row in rows if row["certified"] and claim.unit.get(risk) == "group"
                 and risk in row.get("empirical_queries", {})]  # fmt: skip
        if risk in claim.budget and max(means, default=0.0) > claim.budget[risk]:
            lines.append(
                f"{risk}: what is certified is the {claim.estimand[risk]}; over all queries, the mean was up to {max(means):g}, "
                f"above the budget of {claim.budget[risk]:g}, for large groups do worse: {WEIGHTED} as the unit is about that mean"
            )
    return lines


def _limits(claim: Claim) -> str:
    budget = claim.budget
    if len(budget) <= MAX_LISTED_BUDGETS:
        return " and ".join(f"{_at_most(risk, alpha, claim)}{_of(risk, claim)}" for risk, alpha in budget.items())
    absolute = {risk: alpha for risk, alpha in budget.items() if risk not in claim.relative}
    alike = {alpha: [risk for risk, limit in absolute.items() if limit == alpha] for alpha in absolute.values()}
    kinds = sorted({words for risk in claim.risks if (words := _of(risk, claim))})
    phrases = [f"{', '.join(risks)} at most {alpha:g}" for alpha, risks in alike.items()]
    return " and ".join(phrases + [_at_most(risk, budget[risk], claim) for risk in claim.relative]) + "".join(kinds)


def _at_most(risk: str, alpha: float, claim: Claim) -> str:
    if risk in claim.relative:
        return f"{risk} loss at most {alpha:g} of what the base model had"
    return f"{risk} at most {alpha:g}"


def _of(risk: str, claim: Claim) -> str:
    """The estimand in brackets, unless it is the default."""
    named = claim.estimand.get(risk, PLAIN)
    return "" if named == PLAIN else f" ({named})"


def closest_words(closest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], claim: Claim) -> str:
    """What would have sufficed, in words. The bound is that of the table."""
    risk, need, others = closest["risk"], closest["needs"], closest["also"]
    named = f"{closest['config']} ({closest['method']})" if closest["method"] else closest["config"]
    fresh = "fresh " if claim.estimand else ""
    units = f"about {need['units']} {fresh}calibration units of {risk} with losses like these" if need["units"] else ""
    budget = f"a {risk} budget of {need['budget']:g}" if need["budget"] else ""
    if claim.extendable:
        more_units = need.get("further")
        units = f"about {more_units} further units of {risk} with losses like these (froc extend)" if more_units else ""
    either = " or ".join(filter(None, (units, budget)))
    wanted = f"it would take {either or 'another configuration, for no budget below 1 would do'}"
    more = f"; its {' and '.join(others)} too {'falls' if len(others) == 1 else 'fall'} short" if others else ""
    if not claim.estimand:  # the wording of older plans: verification compares it letter by letter
        return (
            f"closest is {named} with {risk} bounded by {math.ceil(closest['bound'] * 1000) / 1000:g}: {wanted}{more}"
        )
    bound = next(row["cur"][risk]["simultaneous"] for row in rows if row["config"] == closest["config"])
    of = " of what the base model had" if risk in claim.relative else ""
    return (
        f"closest is {named} with {risk} at most {at_most(bound)}{of} (budget {claim.budget[risk]:g}): {wanted}{more}"
    )
