"""What it takes to certify: numbers of units before a search, and how far the closest candidate was from passing after it.

Computed with the certificate's own p-values, not with formulas. For the probability of passing see
`froc.planning.pass_probability`. Torch-free.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from froc.bounds import FloatArray, Losses
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.procedures import first_levels
from froc.risk import shift
from froc.risk.bisection import bracket, first_integer
from froc.risk.claim import Claim, Evidence, evidence_from_matrix, evidence_of_candidate, level
from froc.risk.p_values import at_levels, p_values
from froc.risk.rounding import up
from froc.risk.weighted_sum import COMBINED

MAX_UNITS = 1_000_000
"""Larger numbers of units are not recommended to anybody."""
MAX_CLOSE_CANDIDATES = 10
"""Candidates whose required budgets are computed to find the closest one."""
MAX_FURTHER = 100
"""Further units, as a multiple of the measured ones, from which on none are recommended."""
ORDERS = 9
"""Orders of further units of which at least half must pass: one alone decides by where its last loss lies."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def required_units(claim: Claim, candidates: int, searched: Mapping[str, int] | None = None) -> dict[str, int]:
    """risk -> smallest number of units with which the first of `candidates` (weights 1 / rank) passes at zero loss.

    searched: risk -> units of a listed population that the search measures, also at zero loss. The combined risk needs this
    number for each of its parts. Raises InputError where it is above MAX_UNITS.
    """
    first = first_level(claim, candidates)
    units = dict.fromkeys(claim.risks, 1)
    for budget in claim.budget:
        for risk in claim.parts if budget == COMBINED else [budget]:
            units[risk] = max(units[risk], _units_at_zero(claim, budget, candidates, first, searched or {}))
    return units


def first_level(claim: Claim, candidates: int) -> float:
    """The error level at which the first of `candidates` (weights 1 / rank) is tested before any other is rejected."""
    return float(first_levels(claim.procedure, 1.0 / np.arange(1, candidates + 1), level(claim))[0])


def shortage(evidence: Mapping[str, Evidence], candidates: int, claim: Claim) -> str | None:
    """A sentence where too few units were measured to certify anything, whatever the losses; else None."""
    try:
        needed = required_units(claim, candidates, {risk: of_risk.n_searched for risk, of_risk in evidence.items()})
    except InputError as error:
        return str(error)
    for risk, of_risk in evidence.items():
        n = max(of_risk.count(i) for i in range(candidates))
        if not claim.sequential and n < needed[risk]:
            return f"{n} {claim.unit[risk]} units of {risk} cannot certify this even at zero loss, {needed[risk]} are needed"
    return None


def closest_candidate(
    rows: Sequence[Mapping[str, Any]], evidence: Mapping[str, Evidence], claim: Claim
) -> dict[str, Any]:
    """The candidate closest to being certified where none is, the risk that failed, and what would have sufficed.

    rows: the certificate's candidates. In the result, bound: the smallest budget at which that risk passes at the
    candidate's own level (before any other is rejected); needs: that budget to 3 decimals, or the approximate number of
    units with the same loss distribution, of which `further` are not measured yet where others may follow; also: other risks that failed.
    """
    own = first_levels(claim.procedure, np.array([row["weight"] for row in rows]), level(claim))
    place = (_nearest if claim.estimand else _nearest_by_p)(rows, evidence, claim, own)
    row, own_level = rows[place], float(own[place])
    risk = max(sorted(claim.budget), key=lambda name: (row["p_values"][name], _budget_ratio(row, name, claim)))
    of_candidate = {name: evidence_of_candidate(of_risk, place) for name, of_risk in evidence.items()}
    budget = _budget_needed(claim, risk, of_candidate, len(rows), own_level)
    return {
        "config": row["config"],
        "method": row["method"],
        "risk": risk,
        "bound": budget,
        "needs": {
            "units": _units_alike(claim, risk, of_candidate, len(rows), own_level),
            "budget": up(budget, 3) if up(budget, 3) < 1 else None,
            **(
                {"further": _further_units(claim, risk, of_candidate, len(rows), own_level)} if claim.extendable else {}
            ),
        },
        "also": [name for name in sorted(claim.budget) if name != risk and row["p_values"][name] > own_level],
    }


def _nearest(rows: Sequence[Mapping[str, Any]], evidence: Mapping[str, Evidence], claim: Claim, own: FloatArray) -> int:
    """Index of the candidate that passes at its own level when its budgets grow by the smallest factor.

    Among the MAX_CLOSE_CANDIDATES with the smallest bounds relative to their budgets. p-values alone do not rank well: early
    lucky bets make them small even if the mean is large.
    """

    def factor(i: int) -> float:
        own_evidence = {name: evidence_of_candidate(of_risk, i) for name, of_risk in evidence.items()}
        failed = [risk for risk in claim.budget if rows[i]["p_values"][risk] > own[i]]
        needed = {risk: _budget_needed(claim, risk, own_evidence, len(rows), float(own[i])) for risk in failed}
        return max((needed[risk] / claim.budget[risk] for risk in failed), default=1.0)

    able = [i for i in range(len(rows)) if own[i] > 0]
    near = sorted(able, key=lambda i: max(_budget_ratio(rows[i], risk, claim) for risk in claim.budget))[
        :MAX_CLOSE_CANDIDATES
    ]
    return min(near, key=lambda i: (factor(i), near.index(i)))


def _nearest_by_p(
    rows: Sequence[Mapping[str, Any]], _evidence: Mapping[str, Evidence], claim: Claim, own: FloatArray
) -> int:
    """Index of the candidate with the smallest p-value / level; for plans of older versions."""

    def distance(i: int) -> tuple[float, float]:
        p = float(rows[i]["p_value"])
        return (p / own[i] if p < 1 else math.inf, max(_budget_ratio(rows[i], risk, claim) for risk in claim.budget))

    return min((i for i in range(len(rows)) if own[i] > 0), key=distance)


def _budget_needed(
    claim: Claim, risk: str, evidence: Mapping[str, Evidence], candidates: int, own_level: float
) -> float:
    """The smallest budget above the claim's at which a candidate's risk passes at its own level."""
    return _smallest_budget(
        lambda alpha: p_values(claim, risk, evidence, candidates, alpha, own_level)[0] <= own_level, claim.budget[risk]
    )


def resized(losses: Losses, units: int, orders: int = 1) -> Losses:
    """(orders, units) losses with the distribution of `losses` (1, n), each row in another order; deterministic.

    Quantiles at multiples of the golden ratio, so that every run of consecutive ones covers the distribution evenly.
    """
    ranked, starts = np.sort(losses[0]), (np.arange(orders)[:, None] + 0.5) / orders
    places = np.floor((starts + np.arange(units) * GOLDEN) % 1.0 * len(ranked)).astype(np.int64)
    return np.asarray(ranked[places])


def _budget_ratio(row: Mapping[str, Any], risk: str, claim: Claim) -> float:
    return float(row["cur"][risk]["pointwise"]) / claim.budget[risk]


def _units_at_zero(claim: Claim, budget: str, candidates: int, own_level: float, searched: Mapping[str, int]) -> int:
    risks = claim.parts if budget == COMBINED else [budget]
    if all(claim.kind(risk) == "census" for risk in risks):
        return 1

    def enough(units: int) -> bool:
        zero, none = np.zeros((1, units), dtype=np.int16), np.zeros(1, dtype=np.int64)
        evidence = {risk: Evidence(zero, none, searched.get(risk, 0), units) for risk in risks}
        return p_values(claim, budget, evidence, candidates, own=own_level)[0] <= own_level

    most = min((claim.listed[r] - searched.get(r, 0) for r in risks if claim.kind(r) == "sample"), default=MAX_UNITS)
    start = _fewest(claim.budget[budget], own_level) if budget != COMBINED and claim.kind(budget) == "queries" else 1
    units = smallest_integer(enough, start, most) if start <= most else None
    if units is None:
        raise InputError(f"budget {budget}={claim.budget[budget]:g} needs more than {most} calibration units; raise it")
    return units


def _fewest(budget: float, own_level: float) -> int:
    """A number of units below which no valid test of independent units passes at zero loss.

    Losses that are 1 with probability `budget`, else 0, are all zero with probability (1 - budget) ** units, and a test may
    reject them no more often than `own_level`.
    """
    return max(1, int(math.log(own_level) / math.log1p(-budget))) if 0.0 < budget < 1.0 and own_level > 0.0 else 1


def _units_alike(
    claim: Claim, risk: str, evidence: Mapping[str, Evidence], candidates: int, own_level: float
) -> int | None:
    """Approximate number of units with the same losses that would suffice; None where more do not help or cannot be had."""
    if risk == COMBINED or claim.kind(risk) != "queries" or claim.sequential:
        return None
    at = np.array([shift.shrunk(claim.budget[risk], claim.radius)])
    losses = at_levels(claim, risk, evidence[risk], at).losses
    assert isinstance(losses, np.ndarray)
    n = losses.shape[1]
    if int(losses.sum(dtype=np.int64)) >= shift.shrunk(claim.budget[risk], claim.radius) * SCALE * n:
        return None

    # with other bounds, plans of older versions have had one order: their certificates stay what they were
    orders = ORDERS if claim.bound[risk] == "normal_test_betting" else 1

    def enough(units: int) -> bool:
        alike = {risk: evidence_from_matrix(resized(losses, units, orders))}
        return float(np.median(p_values(claim, risk, alike, candidates, own=own_level))) <= own_level

    return smallest_integer(enough, n + 1)


def _further_units(
    claim: Claim, risk: str, evidence: Mapping[str, Evidence], candidates: int, own_level: float
) -> int | None:
    """Approximate number of units with the same losses that would suffice after those that were measured; None where none would."""
    if risk == COMBINED:
        return None
    at = np.array([shift.shrunk(claim.budget[risk], claim.radius)])
    measured = at_levels(claim, risk, evidence[risk], at)
    losses = np.asarray(measured.losses)
    n = losses.shape[1]
    if int(losses.sum(dtype=np.int64)) >= at[0] * SCALE * n:
        return None

    def enough(units: int) -> bool:
        longer = np.concatenate([losses, resized(losses, units)], axis=1)
        alike = {risk: replace(evidence_from_matrix(longer), ends=(*measured.ends, n))}
        return p_values(claim, risk, alike, candidates, own=own_level)[0] <= own_level

    return smallest_integer(enough, 1, MAX_FURTHER * n)


def smallest_integer(holds: Callable[[int], bool], start: int, most: int = MAX_UNITS) -> int | None:
    """A number from `start` on at which `holds` turns true, by doubling and bisection; None above `most`.

    The smallest one where `holds` is monotone, as at zero loss; near it where p-values are a sawtooth.
    """
    low, high = start - 1, start
    while not holds(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    return first_integer(holds, low, high)


def _smallest_budget(passes: Callable[[float], bool], low: float) -> float:
    """Smallest budget above `low` that passes, rounded up to 6 decimals; 1 where none does."""
    high = 1.0 - 1e-6
    if not passes(high):
        return 1.0
    return up(bracket(passes, low, high, 1e-8)[1])
