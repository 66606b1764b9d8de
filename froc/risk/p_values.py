"""Evidence -> p-values and upper bounds of each risk, by the bound that the claim names. Torch-free."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from froc import procedures
from froc.bounds import Bound, FloatArray, Level, Losses
from froc.loss_table import SCALE
from froc.plugins import find, make
from froc.risk import ratios, shift, weighted_sum
from froc.risk.claim import Claim, Evidence, evidence_of_candidate, level
from froc.risk.rounding import up, up_p
from froc.risk.weighted_sum import COMBINED

MOST_AIM = 0.5
"""Largest error level that bets aim at."""


def p_values(
    claim: Claim,
    risk: str,
    evidence: Mapping[str, Evidence],
    candidates: int,
    alpha: float | None = None,
    own: Level | None = None,
) -> list[float]:
    """(m,) rounded p-values of one risk, or the combined one, at its budget, or at `alpha`. evidence: of the measured risks.

    candidates: how many are tested. own: level of each row, or of all (`froc.risk.claim.own_levels`), at which bets aim under
    `claim.own_levels`; needed there.
    """
    budget = claim.budget[risk] if alpha is None else alpha
    if risk != COMBINED:
        exact = claim.kind(risk) == "census"
        return [up_p(float(p), exact=exact) for p in raw_p(claim, risk, evidence[risk], candidates, budget, own)]

    def part(name: str) -> tuple[float, weighted_sum.PValueFunction]:
        return claim.weights[name], lambda level: raw_p(claim, name, evidence[name], candidates, level, own)

    first, second = map(part, claim.parts)
    combined = weighted_sum.p_value(first, second, budget, len(evidence[claim.parts[0]].search_sums))
    return [up_p(float(p)) for p in combined]


def raw_p(
    claim: Claim, risk: str, evidence: Evidence, candidates: int, alpha: Level, own: Level | None = None
) -> FloatArray:
    """(m,) unrounded p-values of one risk at one level, or (m,) levels, within the claim's radius."""
    m = len(evidence.search_sums)
    risks = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (m,))
    if claim.radius:
        risks = np.asarray(shift.shrunk(risks, claim.radius))
    evidence, aims = at_levels(claim, risk, evidence, risks), _aims(claim, candidates, own, m)
    if claim.kind(risk) != "sample":
        return _p_values(claim, risk, evidence, risks, aims)
    # the mean that the rest of the list may have, without the units that the search measured
    listed, left = claim.listed[risk], claim.listed[risk] - evidence.n_searched
    rest = (listed * risks - evidence.search_sums / SCALE) / left
    p = _p_values(claim, risk, evidence, np.clip(rest, 0.0, 1.0 - 1e-12), aims)
    return np.where(rest < -1e-12, 1.0, np.where(rest >= 1.0, 0.0, p))


def _aims(claim: Claim, candidates: int, own: Level | None, m: int) -> FloatArray:
    """(m,) error levels for which bets are tuned; all are known before calibration."""
    if not claim.own_levels:
        own = float(procedures.first_levels(claim.procedure, np.ones(candidates), level(claim))[0])
    assert own is not None
    # who needs hardly any confidence would bet next to nothing
    aims = np.minimum(own, MOST_AIM) if claim.own_levels else own
    return np.broadcast_to(np.asarray(aims, dtype=np.float64), (m,))


def at_levels(claim: Claim, risk: str, evidence: Evidence, levels: FloatArray) -> Evidence:
    """Evidence to compare with (m,) levels: losses of ratios are tilted to them (`froc.risk.ratios.tilted`)."""
    if evidence.sizes is None and evidence.absences is None:
        return evidence
    assert isinstance(evidence.losses, np.ndarray)
    sizes = np.ones(evidence.losses.shape[1], dtype=np.int64) if evidence.sizes is None else evidence.sizes
    largest = 1 if evidence.sizes is None else claim.largest[risk]
    losses = ratios.tilted(evidence.losses.astype(np.int64), sizes, largest, levels, evidence.absences)
    return replace(evidence, losses=losses, sizes=None, absences=None)


def _p_values(claim: Claim, risk: str, evidence: Evidence, risks: FloatArray, aims: FloatArray) -> FloatArray:
    alike = len(aims) > 0 and bool((aims == aims[0]).all())
    if isinstance(evidence.losses, np.ndarray) and not by_e(claim):
        bound = _bound(claim, risk, evidence, float(aims[0]) if alike else level(claim))
        # some bounds are faster with one level for all
        single_budget = alike and bool((risks == risks[0]).all())
        if alike:
            return bound.p_value(evidence.losses, float(risks[0]) if single_budget else risks)
        return bound.p_values_aimed(evidence.losses, risks, aims)
    rows = [evidence_of_candidate(evidence, i) for i in range(len(risks))]
    return np.array(
        [
            _p_value(_bound(claim, risk, row, float(aims[i])), np.asarray(row.losses), float(risks[i]), claim)
            for i, row in enumerate(rows)
        ]
    )


def by_e(claim: Claim) -> bool:
    """Whether the procedure reads e-values."""
    return procedures.find(claim.procedure).evidence == "e"


def _p_value(bound: Bound, losses: Losses, alpha: float, claim: Claim) -> float:
    """Of one configuration."""
    if not losses.size:
        return 1.0
    p = 1.0 / np.maximum(1.0, bound.e_value(losses, alpha)) if by_e(claim) else bound.p_value(losses, alpha)
    return float(p[0])


def uppers(claim: Claim, evidence: Mapping[str, Evidence], delta: Level) -> dict[str, list[float]]:
    """risk -> (m,) rounded upper bounds at error `delta`, of all or (m,) of each, without shift.

    For the combined risk the weighted sum.
    """
    bounds = {
        risk: [
            up(float(bound), exact=claim.kind(risk) == "census")
            for bound in raw_upper(claim, risk, evidence[risk], delta)
        ]
        for risk in claim.risks
    }
    if COMBINED in claim.budget:
        parts = zip(*(bounds[risk] for risk in claim.parts), strict=True)
        weights = list(claim.weights.values())
        bounds[COMBINED] = [up(sum(w * bound for w, bound in zip(weights, values, strict=True))) for values in parts]
    return bounds


def raw_upper(claim: Claim, risk: str, evidence: Evidence, delta: Level) -> FloatArray:
    """(m,) unrounded upper bounds of one risk, without shift, at one error level or (m,) levels."""
    m = len(evidence.search_sums)
    deltas = np.broadcast_to(np.asarray(delta, dtype=np.float64), (m,))
    if evidence.sizes is not None or evidence.absences is not None:
        rows = [evidence_of_candidate(evidence, i) for i in range(m)]
        return np.array([_inverted(claim, risk, row, float(deltas[i])) for i, row in enumerate(rows)])
    if not isinstance(evidence.losses, np.ndarray):
        bounds = [_bound(claim, risk, evidence, float(each)) for each in deltas]
        losses = [np.asarray(row) for row in evidence.losses]
        upper = np.array(
            [bounds[i].upper(row, float(deltas[i]))[0] if row.size else 1.0 for i, row in enumerate(losses)]
        )
    elif len(set(deltas)) <= 1:
        error_level = float(deltas[0]) if m else 0.5
        upper = _bound(claim, risk, evidence, error_level).upper(evidence.losses, error_level)
    else:
        upper = _bound(claim, risk, evidence, level(claim)).uppers(evidence.losses, deltas)
    if claim.kind(risk) != "sample":
        return upper
    listed = claim.listed[risk]
    return np.asarray((evidence.search_sums / SCALE + (listed - evidence.n_searched) * upper) / listed)


def _inverted(claim: Claim, risk: str, evidence: Evidence, delta: float) -> float:
    """The upper bound of one configuration's ratio, in whole thousandths, by inverting the test."""
    row, bound = np.asarray(evidence.losses)[0], _bound(claim, risk, evidence, delta)

    def rejected(levels: FloatArray) -> NDArray[np.bool_]:
        tilted = at_levels(claim, risk, replace(evidence, losses=np.broadcast_to(row, (len(levels), len(row)))), levels)
        return np.asarray(bound.p_value(np.asarray(tilted.losses), levels) <= delta)

    return ratios.inverted(rejected)


def _bound(claim: Claim, risk: str, evidence: Evidence, aim: float) -> Bound:
    name = claim.bound[risk]
    listed = max(0, claim.listed.get(risk, 0) - (evidence.n_searched if claim.kind(risk) == "sample" else 0))
    return _make_bound(name, aim, evidence.planned if claim.sequential else 0, listed, evidence.ends)


@lru_cache(maxsize=64)
def _make_bound(name: str, aim: float, planned: int, listed: int, ends: tuple[int, ...]) -> Bound:
    # looking up a plug-in takes longer than most bounds, and bisection over budgets asks for the same one
    fields = find(Bound, name).__dataclass_fields__
    settings = {"level": aim, "planned": planned, "population": listed, "ends": ends}
    return make(Bound, name, {key: value for key, value in settings.items() if key in fields})
