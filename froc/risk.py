"""Losses -> p-values -> certified set, CUR, certificate. Torch-free; the verifier runs this very code.

A certificate makes two statements, each with probability at least 1 - delta over the calibration draw (both at
once with `joint`): no certified configuration exceeds any budget; and no candidate's risk exceeds its
simultaneous CUR.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from froc import power, procedures
from froc.bounds import Losses
from froc.claim import Candidate, Claim, down, level, p_values, refuse_unknown, uppers
from froc.errors import InputError
from froc.losses import SCALE, matrix
from froc.power import required
from froc.shift import robust_radius

__all__ = ["Candidate", "Claim", "certify", "choose", "level", "refuse_unknown", "required"]


def certify(calibration: pl.DataFrame, candidates: Sequence[Candidate], claim: Claim) -> dict[str, Any]:
    """The certificate as a JSON document; the same input gives the same document on any machine.

    calibration: a checked loss table, in any row order. p-values and CURs are rounded up, robust radii down, and
    decisions are made from the rounded values. Raises InputError where the table cannot bear the claim.
    """
    refuse_unknown(claim)
    names = [candidate.config for candidate in candidates]
    if len(set(names)) < len(names):
        raise InputError("a configuration is listed twice among the candidates; list it once")
    losses = {
        risk: matrix(calibration, risk=risk, split="calibration", configs=names, unit=claim.unit[risk]).values
        for risk in (claim.budget if names else ())
    }
    rows = _rows(losses, candidates, claim)
    chosen = choose(rows, claim.budget)
    closest = None if chosen or not rows else power.closest(rows, losses, claim)
    return {
        "format": 1,
        "budget": dict(claim.budget),
        "confidence": claim.confidence,
        "level": level(claim),
        "joint": claim.joint,
        "opening": {"number": claim.opening, "planned": claim.openings, "statement": _statement(claim)},
        "procedure": claim.procedure,
        "bound": dict(claim.bound),
        "population": claim.population,
        "unit": dict(claim.unit),
        "n": {risk: int(some.shape[1]) for risk, some in losses.items()},
        "candidates": rows,
        "certified": [row["config"] for row in rows if row["certified"]],
        "chosen": chosen,
        "closest": closest,
        "reason": _reason(rows, chosen, closest, claim),
    }


def choose(rows: Sequence[Mapping[str, Any]], budget: Mapping[str, float]) -> str | None:
    """The certified configuration with the widest margin: smallest CUR / budget in its worst risk; ties: earlier.

    Any rule is valid: the certified set and the simultaneous CURs hold for all members together.
    """

    def strain(row: Mapping[str, Any]) -> float:
        return max(float(row["cur"][risk]["simultaneous"]) / alpha for risk, alpha in budget.items())

    best = min((row for row in rows if row["certified"]), key=strain, default=None)
    return None if best is None else str(best["config"])


def _rows(losses: Mapping[str, Losses], candidates: Sequence[Candidate], claim: Claim) -> list[dict[str, Any]]:
    m, delta = len(candidates), level(claim)
    if m == 0:
        return []
    share = delta / (m * len(claim.budget))
    p = {risk: p_values(claim, risk, some, m) for risk, some in losses.items()}
    wide = {risk: uppers(claim, risk, some, share) for risk, some in losses.items()}
    narrow = {risk: uppers(claim, risk, some, delta) for risk, some in losses.items()}
    worst = np.array([max(p[risk][i] for risk in losses) for i in range(m)])
    weights = np.array([candidate.weight for candidate in candidates], dtype=np.float64)
    flags = procedures.certified(claim.procedure, worst, weights, delta)
    return [
        {
            "config": candidate.config,
            "method": candidate.method,
            "params": candidate.params,
            "weight": candidate.weight,
            "empirical": {risk: _mean(some[i]) for risk, some in losses.items()},
            "p_values": {risk: p[risk][i] for risk in losses},
            "p_value": float(worst[i]),
            "certified": bool(flags[i]),
            "cur": {risk: {"pointwise": narrow[risk][i], "simultaneous": wide[risk][i]} for risk in losses},
            "robust_radius": {risk: _radius(wide[risk][i], alpha) for risk, alpha in claim.budget.items()},
        }
        for i, candidate in enumerate(candidates)
    ]


def _mean(losses: Losses) -> float:
    return round(int(losses.sum()) / (SCALE * len(losses)), 6)


def _radius(upper: float, budget: float) -> float | None:
    radius = robust_radius(upper, budget)
    return None if radius is None else down(radius)


def _statement(claim: Claim) -> str:
    spent = level(claim) * (2 if claim.joint else 1)
    if claim.opening > claim.openings:
        together = max(0.0, 1.0 - claim.opening * spent)
        return f"opening {claim.opening}, {claim.openings} planned: jointly {together:.6g}, not {claim.confidence:g}"
    if claim.openings > 1:
        return (
            f"opening {claim.opening} of {claim.openings} planned: "
            f"all together hold with confidence {claim.confidence:g}"
        )
    return "first and only opening of these calibration queries"


def _reason(
    rows: Sequence[Mapping[str, Any]], chosen: str | None, closest: Mapping[str, Any] | None, claim: Claim
) -> str:
    limits = " and ".join(f"{risk} at most {alpha:g}" for risk, alpha in claim.budget.items())
    if closest is not None:
        return f"nothing certified for {limits}; {closest_words(closest)}"
    if chosen is None:
        return f"nothing certified: no configuration came near {limits} on the search queries"
    count = sum(row["certified"] for row in rows)
    method = next(row["method"] for row in rows if row["config"] == chosen)
    sure = f"confidence {claim.confidence:.6g}" if claim.opening <= claim.openings else _statement(claim)
    named = f"{chosen} ({method})" if method else chosen
    return f"{count} of {len(rows)} candidates certified ({limits}, {sure}); chosen {named} for the widest margin"


def closest_words(closest: Mapping[str, Any]) -> str:
    """What it would have taken, in words."""
    risk, need, others = closest["risk"], closest["needs"], closest["also"]
    named = f"{closest['config']} ({closest['method']})" if closest["method"] else closest["config"]
    units = f"about {need['units']} calibration units of {risk} with losses like these" if need["units"] else ""
    budget = f"a {risk} budget of {need['budget']:g}" if need["budget"] else ""
    either = " or ".join(filter(None, (units, budget)))
    wanted = f"it would take {either or 'another configuration, for no budget below 1 would do'}"
    more = f"; its {' and '.join(others)} too {'falls' if len(others) == 1 else 'fall'} short" if others else ""
    return f"closest is {named} with {risk} bounded by {math.ceil(closest['bound'] * 1000) / 1000:g}: {wanted}{more}"
