"""Losses -> p-values -> certified set, CUR, certificate. Torch-free; the verifier runs this very code.

A certificate makes two statements, each with probability at least 1 - delta over the calibration draw (both at once
with `joint`): no certified configuration exceeds any budget; and no candidate's risk exceeds its simultaneous CUR.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from froc.bounds import Bound, Losses
from froc.errors import InputError
from froc.losses import SCALE, matrix
from froc.plugins import make
from froc.procedures import certified, first_level
from froc.shift import robust_radius

MOST_UNITS = 1_000_000


@dataclass(frozen=True)
class Candidate:
    """A configuration to be tested; candidates stand in testing order, weight is 1 / rank."""

    config: str
    method: str
    params: dict[str, Any]
    weight: float


@dataclass(frozen=True)
class Claim:
    """What is to be certified, all of it fixed before calibration is opened.

    budget: risk -> accepted risk in (0, 1). bound, unit: per risk. openings: planned looks, each at delta / openings.
    """

    budget: dict[str, float]
    bound: dict[str, str]
    unit: dict[str, Any]
    confidence: float = 0.9
    procedure: str = "weighted-holm"
    population: str = "queries"
    openings: int = 1
    opening: int = 1
    joint: bool = False


def level(claim: Claim) -> float:
    """The error level that one statement of this opening spends."""
    # 1 - 0.9 is 0.0999...98 in floats; the user said 0.1
    return round(1.0 - claim.confidence, 12) / claim.openings / (2 if claim.joint else 1)


def certify(calibration: pl.DataFrame, candidates: Sequence[Candidate], claim: Claim) -> dict[str, Any]:
    """The certificate as a JSON document; the same input gives the same document on any machine.

    calibration: a checked loss table. p-values and CURs are rounded up, robust radii down, and decisions are made
    from the rounded values, so that no machine's last bit can change them.
    """
    losses = {
        risk: matrix(calibration, risk=risk, split="calibration", configs=[c.config for c in candidates], unit=claim.unit[risk]).values
        for risk in (claim.budget if candidates else ())
    }  # fmt: skip
    delta = level(claim)
    p_values = {risk: _p_values(claim, risk, some, len(candidates)) for risk, some in losses.items()}
    worst = np.array([max(p_values[risk][i] for risk in losses) for i in range(len(candidates))])
    weights = np.array([candidate.weight for candidate in candidates])
    flags = certified(claim.procedure, worst, weights, delta)
    share = delta / max(1, len(candidates) * len(claim.budget))
    wide = {risk: _uppers(claim, risk, some, share) for risk, some in losses.items()}
    narrow = {risk: _uppers(claim, risk, some, delta) for risk, some in losses.items()}
    rows = []
    for i, candidate in enumerate(candidates):
        curs = {risk: {"pointwise": narrow[risk][i], "simultaneous": wide[risk][i]} for risk in losses}
        rows.append(
            {
                "config": candidate.config, "method": candidate.method, "params": candidate.params,
                "weight": candidate.weight,
                "empirical": {risk: round(int(some[i].sum()) / (SCALE * some.shape[1]), 6) for risk, some in losses.items()},
                "p_values": {risk: p_values[risk][i] for risk in losses},
                "p_value": float(worst[i]), "certified": bool(flags[i]), "cur": curs,
                "robust_radius": {risk: _radius(wide[risk][i], claim.budget[risk]) for risk in losses},
            }
        )  # fmt: skip
    chosen = choose(rows, claim.budget)
    closest = None if chosen or not rows else _closest(rows, losses, candidates, claim)
    return {
        "format": 1,
        "budget": dict(claim.budget),
        "confidence": claim.confidence,
        "level": delta,
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
    """The certified configuration with the widest margin: smallest CUR / budget in its worst risk; ties to the earlier.

    Any rule is valid: the certified set and the simultaneous CURs hold for all members together.
    """
    certified_rows = [row for row in rows if row["certified"]]
    if not certified_rows:
        return None
    best = min(certified_rows, key=lambda row: max(row["cur"][risk]["simultaneous"] / alpha for risk, alpha in budget.items()))
    return str(best["config"])


def required(claim: Claim, candidates: int) -> dict[str, int]:
    """risk -> smallest number of calibration units with which the first of `candidates` is certified at zero loss."""
    weights = 1.0 / np.arange(1, candidates + 1)
    target = first_level(claim.procedure, weights, level(claim))

    def enough(risk: str, units: int) -> bool:
        zero = np.zeros((1, units), dtype=np.int64)
        return _p_values(claim, risk, zero, candidates)[0] <= target

    return {risk: _smallest(lambda units, risk=risk: enough(risk, units)) or MOST_UNITS for risk in claim.budget}  # type: ignore[misc]  # the default binds the loop's value


def _bound(claim: Claim, risk: str, aim: float) -> Bound:
    name = claim.bound[risk]
    return make(Bound, name, {"level": aim} if name == "betting" else None)


def _p_values(claim: Claim, risk: str, losses: Losses, candidates: int) -> list[float]:
    # what the p-values will be compared with, as far as it is known before calibration
    aim = first_level(claim.procedure, np.ones(candidates), level(claim))
    return [_up(float(p), significant=6) for p in _bound(claim, risk, max(1e-6, min(0.5, aim))).p_value(losses, claim.budget[risk])]


def _uppers(claim: Claim, risk: str, losses: Losses, delta: float) -> list[float]:
    return [_up(float(u), decimals=6) for u in _bound(claim, risk, 0.1).upper(losses, delta)]


def _up(value: float, *, significant: int | None = None, decimals: int = 6) -> float:
    """Round up to so many significant digits, or decimals; at most 1."""
    if value <= 0:
        return 0.0
    if significant is not None:
        decimals = significant - 1 - math.floor(math.log10(value))
    scaled = math.ceil(value * 10.0**decimals * (1 - 1e-12)) if decimals < 300 else 1
    return min(1.0, float(f"{scaled}e{-decimals}"))


def _radius(upper: float, budget: float) -> float | None:
    radius = robust_radius(upper, budget)
    return None if radius is None else math.floor(radius * 1e6) / 1e6


def _smallest(holds: Any, start: int = 1, most: int = MOST_UNITS) -> int | None:
    """Smallest number from `start` on for which `holds`, by doubling and bisection; None beyond `most`."""
    high = start
    while not holds(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _closest(
    rows: Sequence[Mapping[str, Any]], losses: Mapping[str, Losses], candidates: Sequence[Candidate], claim: Claim
) -> dict[str, Any]:
    """The candidate nearest to being certified, the risk that stopped it, and what it would have taken."""
    def strain(row: Mapping[str, Any]) -> float:
        return max(float(row["cur"][risk]["pointwise"]) / alpha for risk, alpha in claim.budget.items())

    place = min(range(len(rows)), key=lambda i: strain(rows[i]))
    row = rows[place]
    risk = max(claim.budget, key=lambda r: float(row["cur"][r]["pointwise"]) / claim.budget[r])
    some = losses[risk][place : place + 1]
    weights = np.array([candidate.weight for candidate in candidates])
    # at its own weighted share, which it gets whatever happens to the others
    own = first_level(claim.procedure, np.concatenate([weights[place:], weights[:place]]), level(claim))
    bound = _bound(claim, risk, max(1e-6, min(0.5, own)))
    times = None
    if some.mean() / SCALE < claim.budget[risk]:
        times = _smallest(lambda k: float(bound.p_value(np.tile(some, k), claim.budget[risk])[0]) <= own, most=4096)
    return {
        "config": row["config"], "method": row["method"], "risk": risk, "bound": row["cur"][risk]["pointwise"],
        "needs": {"units": times * some.shape[1] if times else None, "budget": _up(float(bound.upper(some, own)[0]), decimals=3)},
    }  # fmt: skip


def _statement(claim: Claim) -> str:
    spent = level(claim) * (2 if claim.joint else 1)
    if claim.opening > claim.openings:
        together = max(0.0, 1.0 - claim.opening * spent)
        return f"opening {claim.opening}, {claim.openings} planned: jointly {together:.6g}, not {claim.confidence:g}"
    if claim.openings > 1:
        return f"opening {claim.opening} of {claim.openings} planned: all together hold with confidence {claim.confidence:g}"
    return "first and only opening of these calibration queries"


def _reason(
    rows: Sequence[Mapping[str, Any]], chosen: str | None, closest: Mapping[str, Any] | None, claim: Claim
) -> str:
    limits = " and ".join(f"{risk} at most {alpha:g}" for risk, alpha in claim.budget.items())
    if not rows:
        return f"nothing certified: no configuration came near {limits} on the search queries"
    if chosen is not None:
        count = sum(row["certified"] for row in rows)
        row = next(row for row in rows if row["config"] == chosen)
        sure = f"confidence {claim.confidence:.6g}" if claim.opening <= claim.openings else _statement(claim)
        return (
            f"{count} of {len(rows)} candidates certified ({limits}, {sure}); chosen {chosen} ({row['method']}) for the "
            "widest margin"
        )
    assert closest is not None
    need = closest["needs"]
    units = f"about {need['units']} calibration units with the same losses, or " if need["units"] else ""
    return (
        f"nothing certified for {limits}; closest is {closest['config']} ({closest['method']}) with {closest['risk']} at "
        f"most {closest['bound']:.3f}; it would take {units}a {closest['risk']} budget of {need['budget']:.3f}"
    )


def refuse_unknown(claim: Claim) -> None:
    """InputError for unknown procedures, bounds and impossible levels, before anything is trained."""
    certified(claim.procedure, np.zeros(0), np.zeros(0), level(claim))
    for risk in claim.budget:
        make(Bound, claim.bound[risk])
    if not 0 < level(claim) < 1:
        raise InputError(f"confidence {claim.confidence:g} is outside (0, 1)")
