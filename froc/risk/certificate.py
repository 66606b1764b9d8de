"""Losses -> p-values -> certified set, upper bounds (CUR), certificate. Torch-free; verification runs the same code.

A certificate makes two statements, each with probability at least 1 - delta over the calibration draw (both
simultaneously with `joint`): no certified configuration exceeds any budget; and no candidate's risk exceeds its
simultaneous CUR. A procedure that controls the false discovery rate certifies nothing; its rejections are `screened`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from froc import procedures
from froc.bounds import Losses
from froc.errors import InputError
from froc.loss_table import SCALE, WEIGHTED
from froc.risk import exchangeability, requirements, shift, wording
from froc.risk import positive_control as controls
from froc.risk.bisection import bracket
from froc.risk.claim import Candidate, Claim, Evidence, evidence_from_matrix, level, own_levels, simultaneous_levels
from froc.risk.claim_checks import refuse_unknown
from froc.risk.evidence import evidence_from_table, shares_lost
from froc.risk.p_values import p_values, uppers
from froc.risk.positive_control import BASE, Control
from froc.risk.rounding import down, up
from froc.risk.weighted_sum import COMBINED

__all__ = ["Candidate", "Claim", "bounds", "certify", "choose", "decide", "level", "refuse_unknown"]


def certify(
    table: pl.DataFrame,
    candidates: Sequence[Candidate],
    claim: Claim,
    order: pl.DataFrame | None = None,
    control: Control | None = None,
) -> dict[str, Any]:
    """The certificate as a JSON document; the same input gives the same document on any machine.

    table: a checked loss table, in any row order; search rows are read only for risks about a listed population, of which
    they are a part. order: risk, unit and query of all planned measurements, for a sequential claim. control: the base
    model's results on the same queries. p-values and CURs are rounded up, robust radii down, and decisions use the
    rounded values. Raises InputError where the claim cannot be tested with this table.
    """
    refuse_unknown(claim)
    names = [candidate.config for candidate in candidates]
    if len(set(names)) < len(names):
        raise InputError("a configuration is listed twice among the candidates; list it once")
    if claim.sequential and order is None:
        raise InputError("a sequential claim needs the list of everything that was to be measured")
    base = None if control is None else control.table
    if names:
        _refuse_missing_control(claim, control)
    evidence = {
        risk: evidence_from_table(table, risk, names, claim, order, base) for risk in (claim.risks if names else ())
    }
    warnings = [
        line
        for risk in evidence
        if claim.kind(risk) == "queries" and not claim.keyed
        for line in exchangeability.warnings(table, risk=risk, configs=names, unit=claim.unit[risk])
    ]
    base_document = None if control is None or not names else _base(control, claim, order)
    return _document(evidence, candidates, claim, warnings, base_document)


def decide(losses: Mapping[str, Losses], candidates: Sequence[Candidate], claim: Claim) -> dict[str, Any]:
    """The certificate from loss matrices: risk -> (m candidates, n units) whole thousandths, columns in a fixed order.

    For tables that are too large as rows, and for simulations. Order-dependent bounds need columns whose order was
    fixed before losses were known. Exchangeability is not tested.
    """
    refuse_unknown(claim)
    if WEIGHTED in claim.unit.values():
        raise InputError(f"matrices hold no sizes of groups, which {WEIGHTED} needs; give a table to certify")
    _refuse_missing_control(claim, None)
    return _document({risk: evidence_from_matrix(losses[risk]) for risk in claim.risks}, candidates, claim, [])


def bounds(
    table: pl.DataFrame,
    config: str,
    weights: Mapping[str, float],
    claim: Claim,
    order: pl.DataFrame | None = None,
    control: Control | None = None,
) -> dict[str, float]:
    """risk -> the simultaneous CUR of one configuration as one of the candidates, equal to that of `certify` without `joint`.

    weights: configuration -> weight, of all candidates. For what-if analyses, which need no losses of the other candidates. Raises InputError as `certify` does.
    """
    refuse_unknown(claim)
    _refuse_missing_control(claim, control)
    base = None if control is None else control.table
    evidence = {risk: evidence_from_table(table, risk, [config], claim, order, base) for risk in claim.risks}
    shares = dict(zip(weights, simultaneous_levels(claim, np.array(list(weights.values()))), strict=True))
    simultaneous_upper = uppers(claim, evidence, shares[config])
    return {risk: _shifted(simultaneous_upper, risk, 0, claim) for risk in simultaneous_upper}


def choose(rows: Sequence[Mapping[str, Any]], budget: Mapping[str, float]) -> str | None:
    """The certified configuration with the smallest CUR / budget in its worst risk; of equal ones the first; None without any.

    Any rule would be valid: the statements hold for all certified configurations simultaneously.
    """

    def budget_ratio(row: Mapping[str, Any]) -> float:
        return max(float(row["cur"][risk]["simultaneous"]) / alpha for risk, alpha in budget.items())

    best = min((row for row in rows if row["certified"]), key=budget_ratio, default=None)
    return None if best is None else str(best["config"])


def _base(control: Control, claim: Claim, order: pl.DataFrame | None) -> dict[str, Any]:
    absences = {risk: evidence_from_table(control.table, risk, [BASE], claim, order) for risk in claim.risks}
    return controls.document(control.kinds, absences, claim)


def _refuse_missing_control(claim: Claim, control: Control | None) -> None:
    """InputError for relative budgets without the base model's scores, or of risks that are not a loss of score."""
    for risk in claim.relative:
        if control is None:
            raise InputError(
                f"--relative {risk}: a share of what the base model scored needs its rows on the same queries; they are not there"
            )
        if control.kinds.get(risk) != "ceiling":
            raise InputError(
                f"--relative {risk}: only what is lost against the base model can be a share of its score; leave {risk} out"
            )


def _document(
    evidence: Mapping[str, Evidence],
    candidates: Sequence[Candidate],
    claim: Claim,
    warnings: Sequence[str],
    base: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    rows = _rows(evidence, candidates, claim) if candidates else []
    certifies = procedures.find(claim.procedure).promise == "family-wise"
    vacuous = controls.vacuous(base)
    screened = [row["config"] for row in rows if row["certified"] and not vacuous]
    if not certifies or vacuous:
        rows = [{**row, "certified": False} for row in rows]
    chosen = choose(rows, claim.budget)
    closest = None if chosen or not rows or screened else _closest(rows, evidence, claim, vacuous)
    estimand_entries: dict[str, Any] = {"estimand": dict(claim.estimand)} if claim.estimand else {}
    document = {
        "format": 2,
        "budget": dict(claim.budget),
        "confidence": claim.confidence,
        "level": level(claim),
        "joint": claim.joint,
        "opening": {"number": claim.opening, "planned": claim.openings, "statement": wording.statement(claim)},
        "procedure": claim.procedure,
        "promise": procedures.find(claim.procedure).promise,
        "bound": {risk: claim.bound[risk] for risk in claim.risks},
        "population": {risk: claim.kind(risk) for risk in claim.risks},
        "listed": {risk: claim.listed[risk] for risk in claim.risks if risk in claim.listed},
        "weights": dict(claim.weights),
        "radius": claim.radius,
        "sequential": _sequential_savings(evidence, candidates) if claim.sequential else None,
        "unit": {risk: claim.unit[risk] for risk in claim.risks},
        "n": {risk: max((units.count(i) for i in range(len(rows))), default=0) for risk, units in evidence.items()},
        "candidates": rows,
        "certified": screened if certifies else [],
        "screened": None if certifies else screened,
        "chosen": chosen,
        "closest": closest,
        "warnings": [*wording.unmeasured_warnings(claim), *warnings, *wording.estimand_warnings(rows, claim)],
        **({"relative": list(claim.relative)} if claim.relative else {}),
        **({"stages": _stages(evidence, claim)} if claim.stages else {}),
        **(estimand_entries | ({"largest": dict(claim.largest)} if claim.largest else {})),
        # certificates of older versions have no base model's results
        **({} if base is None else {"base": dict(base)}),
    }
    shortage = requirements.shortage(evidence, len(rows), claim) if closest and not vacuous else None
    return document | {"reason": wording.reason(document, claim, shortage)}


def _closest(
    rows: Sequence[Mapping[str, Any]], evidence: Mapping[str, Evidence], claim: Claim, vacuous: Sequence[str]
) -> dict[str, Any]:
    if not vacuous:
        return requirements.closest_candidate(rows, evidence, claim)
    # neither smaller losses nor more queries would help: report the first candidate
    row, risk = rows[0], vacuous[0]
    return {
        "config": row["config"], "method": row["method"], "risk": risk, "bound": row["cur"][risk]["simultaneous"],
        "needs": {"units": None, "budget": None}, "also": list(vacuous[1:]),
    }  # fmt: skip


def _stages(evidence: Mapping[str, Evidence], claim: Claim) -> list[dict[str, Any]]:
    """The further stages, with their numbers of units."""
    return [
        {
            "number": stage.number,
            "rows": stage.rows,
            "seed": stage.seed,
            "n": {risk: _stage_ends(units)[place + 1] - units.ends[place] for risk, units in evidence.items()},
        }
        for place, stage in enumerate(claim.stages)
    ]


def _stage_ends(units: Evidence) -> tuple[int, ...]:
    return *units.ends, units.count(0)


def _rows(evidence: Mapping[str, Evidence], candidates: Sequence[Candidate], claim: Claim) -> list[dict[str, Any]]:
    m, delta = len(candidates), level(claim)
    weights = np.array([candidate.weight for candidate in candidates], dtype=np.float64)
    own = own_levels(claim, weights)
    p = {risk: p_values(claim, risk, evidence, m, own=own) for risk in claim.budget}
    # simultaneous over candidates and measured risks; the combined bound follows from those of its parts
    simultaneous_upper = uppers(claim, evidence, simultaneous_levels(claim, weights))
    pointwise_upper = uppers(claim, evidence, delta)
    # the weighted sum is bounded where all its parts are, so each part gets an equal share of the level
    parts = uppers(claim, evidence, delta / len(claim.parts)) if COMBINED in claim.budget else {}
    means = {risk: _means(units, claim, risk) for risk, units in evidence.items()}
    if COMBINED in claim.budget:
        means[COMBINED] = [sum(w * means[risk][i] for risk, w in claim.weights.items()) for i in range(m)]
    worst = np.array([max(values[i] for values in p.values()) for i in range(m)])
    flags = procedures.certified(claim.procedure, worst, weights, delta)
    # both statements hold together, so a certified configuration is within its budgets wherever its bounds are
    cut = claim.joint and claim.own_levels and procedures.find(claim.procedure).promise == "family-wise"
    within = [claim.budget if cut and flag else {} for flag in flags]
    return [
        {
            "config": candidate.config,
            "method": candidate.method,
            "params": candidate.params,
            **({} if candidate.weights_digest is None else {"weights_digest": candidate.weights_digest}),
            "weight": candidate.weight,
            "n": {risk: units.count(i) for risk, units in evidence.items()},
            "empirical": {risk: round(values[i], 6) for risk, values in means.items()},
            **_query_means(evidence, i, claim),
            "p_values": {risk: values[i] for risk, values in p.items()},
            "p_value": float(worst[i]),
            "certified": bool(flags[i]),
            "cur": {
                risk: {
                    "pointwise": _shifted(parts if risk == COMBINED else pointwise_upper, risk, i, claim),
                    "simultaneous": min(_shifted(simultaneous_upper, risk, i, claim), within[i].get(risk, 1.0)),
                }
                for risk in simultaneous_upper
            },
            "robust_radius": {risk: _radius(simultaneous_upper, risk, i, claim) for risk in claim.budget},
        }
        for i, candidate in enumerate(candidates)
    ]


def _query_means(evidence: Mapping[str, Evidence], place: int, claim: Claim) -> dict[str, Any]:
    """Mean losses over all queries of risks whose units are groups."""
    means = {risk: round(float(units.pooled[place]), 6) for risk, units in evidence.items() if units.pooled is not None}
    return {"empirical_queries": means} if means and claim.estimand else {}


def _means(units: Evidence, claim: Claim, risk: str) -> list[float]:
    """(m,) mean losses over the measured units (those of a list include searched ones), or fractions of the base model's score."""
    if units.sizes is not None and units.pooled is not None:
        return [float(mean) for mean in units.pooled]
    m = len(units.search_sums)
    if units.absences is not None:
        score = SCALE * len(units.absences) - int(units.absences.sum())
        return [
            float(share) for share in shares_lost(np.array([_total(units, i) for i in range(m)], dtype=np.int64), score)
        ]
    sums = [int(units.search_sums[i]) + _total(units, i) for i in range(m)]
    return [
        total / (SCALE * (units.n_searched + units.count(i))) if units.count(i) else 1.0 for i, total in enumerate(sums)
    ]


def _total(units: Evidence, place: int) -> int:
    row = units.losses[place] if isinstance(units.losses, np.ndarray) else units.losses[place][0]
    return int(row.sum(dtype=np.int64))


def _shifted(upper: Mapping[str, Sequence[float]], risk: str, place: int, claim: Claim) -> float:
    """The upper bound for distributions within the claim's radius, rounded up."""
    return upper[risk][place] if claim.radius == 0 else up(_within(upper, risk, place, claim, claim.radius))


def _within(upper: Mapping[str, Sequence[float]], risk: str, place: int, claim: Claim, rho: float) -> float:
    if risk != COMBINED:
        return float(shift.shifted(upper[risk][place], rho))
    return sum(weight * float(shift.shifted(upper[name][place], rho)) for name, weight in claim.weights.items())


def _radius(upper: Mapping[str, Sequence[float]], risk: str, place: int, claim: Claim) -> float | None:
    """Largest radius at which the budget holds, rounded down; None where it does not hold at 0, and for ratios."""
    budget = claim.budget[risk]
    if any(claim.is_ratio(name) for name in (claim.parts if risk == COMBINED else [risk])):
        return None
    if risk != COMBINED:
        radius = shift.robust_radius(upper[risk][place], budget)
        return None if radius is None else down(radius)
    if _within(upper, risk, place, claim, 0.0) > budget:
        return None
    return down(bracket(lambda rho: _within(upper, risk, place, claim, rho) > budget, 0.0, 1.0, 1e-9)[0])


def _sequential_savings(evidence: Mapping[str, Evidence], candidates: Sequence[Candidate]) -> dict[str, int]:
    """Planned, measured and saved numbers of units, over all candidates and risks."""
    planned = sum(units.planned * len(candidates) for units in evidence.values())
    measured = sum(units.count(i) for units in evidence.values() for i in range(len(candidates)))
    return {"planned": planned, "measured": measured, "saved": planned - measured}
