"""The claim to be certified, its p-values and upper bounds. Torch-free.

Numbers of a certificate are rounded here, always against the claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from froc import procedures
from froc.bounds import Bound, FloatArray, IntArray, Level, Losses
from froc.loss_table import SCALE, WEIGHTED
from froc.plugins import find, make
from froc.risk import ratios, shift, weighted_sum
from froc.risk.rounding import up, up_p
from froc.risk.weighted_sum import COMBINED

POPULATIONS = ("queries", "sample", "census")
MIN_REPORTED_UNITS = 50
"""Sampling units below which a mean may reveal single losses: reports on fewer need --allow-small-sample."""
MEANS = {"query": "mean over queries", "group": "mean of group means", WEIGHTED: "mean over queries, drawn by group"}
LISTED = {"sample": "of a list that is measured in part", "census": "of a list that is measured completely"}


@dataclass(frozen=True)
class Candidate:
    """A configuration to be tested. Candidates are listed in testing order; weight: 1 / rank.

    weights_digest: digest of its parameters (`froc.models.weights_digest`), where the seal names it.
    """

    config: str
    method: str
    params: dict[str, Any]
    weight: float
    weights_digest: str | None = None


@dataclass(frozen=True)
class Claim:
    """What is to be certified; fixed before calibration losses are opened.

    budget: risk -> accepted risk in (0, 1); `combined` is the sum of `weights` times risks. bound, unit: per measured risk.
    population: per risk, `queries` by default: `queries` are drawn from an unlimited population, `sample` without
    replacement from `listed` units, `census` is all of them. radius: Hellinger distance within which the budget must hold.
    openings: planned openings of these queries, each at delta / openings; opening: the number of this one, from 1.
    sequential: candidates may be measured on fewer units than planned. unmeasured: number of earlier removal requests that
    are not measured. largest: risk -> maximal number of queries in a group, for `queries-by-group`. estimand: risk -> what
    its mean is a mean of (`estimands`); empty in older plans. keyed: units and queries are named by keyed digests, so that
    their order carries no information. relative: risks whose budget is a fraction of the base model's score:
    E[L] <= budget E[score].
    """

    budget: dict[str, float]
    bound: dict[str, str]
    unit: Mapping[str, str]
    confidence: float = 0.9
    procedure: str = procedures.DEFAULT
    population: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    radius: float = 0.0
    openings: int = 1
    opening: int = 1
    joint: bool = False
    sequential: bool = False
    unmeasured: int = 0
    largest: Mapping[str, int] = field(default_factory=dict)
    estimand: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = False
    relative: tuple[str, ...] = ()

    @property
    def risks(self) -> list[str]:
        """Measured risks: those with a budget, then those that only the combined risk needs."""
        named = [risk for risk in self.budget if risk != COMBINED]
        return named + [risk for risk in self.parts if risk not in named]

    @property
    def parts(self) -> list[str]:
        """Parts of the combined risk."""
        return list(self.weights) if COMBINED in self.budget else []

    def kind(self, risk: str) -> str:
        """The population of a risk."""
        return self.population.get(risk, "queries")

    def is_ratio(self, risk: str) -> bool:
        """Whether a risk is a ratio of means (`froc.risk.ratios`)."""
        return ratios.is_ratio(risk, self.unit, self.population, self.relative)


@dataclass(frozen=True)
class Evidence:
    """Losses of one risk. losses: (m, n) thousandths of calibration units, or m arrays (1, n_i) of different lengths.

    search_sums, n_searched: for a listed population, the (m,) sums of losses on units that the search measured,
    and the number of those units: they are known, not sampled, and part of the list's mean. planned: planned number of
    units. sizes: (n,) queries per unit, where the claim is about the mean over queries; losses are sums then. absences:
    (n,) absences of the base model on these units (`froc.risk.control`), for relative budgets. pooled: (m,) means over all
    queries, where units have several; fractions of the base model's score for relative budgets.
    """

    losses: Losses | Sequence[Losses]
    search_sums: IntArray
    n_searched: int = 0
    planned: int = 0
    sizes: IntArray | None = None
    absences: IntArray | None = None
    pooled: FloatArray | None = None

    def count(self, place: int) -> int:
        """Number of calibration units on which a candidate was measured."""
        row = self.losses if isinstance(self.losses, np.ndarray) else self.losses[place]
        return int(row.shape[1])


def evidence_from_matrix(losses: Losses) -> Evidence:
    """A plain matrix as evidence."""
    return Evidence(losses, np.zeros(len(losses), dtype=np.int64), 0, losses.shape[1])


def evidence_of_candidate(evidence: Evidence, place: int) -> Evidence:
    """The evidence of one candidate."""
    row = evidence.losses[place : place + 1] if isinstance(evidence.losses, np.ndarray) else evidence.losses[place]
    pooled = None if evidence.pooled is None else evidence.pooled[place : place + 1]
    return replace(evidence, losses=row, search_sums=evidence.search_sums[place : place + 1], pooled=pooled)


def level(claim: Claim) -> float:
    """The error level of one statement of this opening."""
    # 1 - 0.9 is 0.0999...98 in floats
    return round(1.0 - claim.confidence, 12) / claim.openings / (2 if claim.joint else 1)


def estimands(claim: Claim) -> dict[str, str]:
    """risk -> what the bounded mean is a mean of, in fixed words."""
    names = {}
    for risk in claim.risks:
        unit, kind = MEANS[claim.unit[risk]], claim.kind(risk)
        # in a census nothing is drawn
        unit = MEANS["query"] if (kind, claim.unit[risk]) == ("census", WEIGHTED) else unit
        names[risk] = f"{unit} {LISTED[kind]}" if kind in LISTED else unit
    return names


def automatic(*, binary: bool, unit: str, population: str, sequential: bool, procedure: str) -> str:
    """The bound that `auto` stands for, by rules that do not depend on losses.

    binary: losses can only be 0 or 1 by the metric's definition.
    """
    exact = binary and unit == "query"
    if population == "census":
        return "census"
    if population == "sample":
        return "hypergeometric" if exact else "betting_without_replacement"
    if procedures.find(procedure).evidence == "e":
        return "mixture"
    return "binomial" if exact and not sequential else "betting"


def p_values(
    claim: Claim, risk: str, evidence: Mapping[str, Evidence], candidates: int, alpha: float | None = None
) -> list[float]:
    """(m,) rounded p-values of one risk, or the combined one, at its budget, or at `alpha`. evidence: of the measured risks."""
    budget = claim.budget[risk] if alpha is None else alpha
    if risk != COMBINED:
        exact = claim.kind(risk) == "census"
        return [up_p(float(p), exact=exact) for p in raw_p(claim, risk, evidence[risk], candidates, budget)]

    def part(name: str) -> tuple[float, weighted_sum.PValueFunction]:
        return claim.weights[name], lambda level: raw_p(claim, name, evidence[name], candidates, level)

    first, second = map(part, claim.parts)
    combined = weighted_sum.p_value(first, second, budget, len(evidence[claim.parts[0]].search_sums))
    return [up_p(float(p)) for p in combined]


def raw_p(claim: Claim, risk: str, evidence: Evidence, candidates: int, alpha: Level) -> FloatArray:
    """(m,) unrounded p-values of one risk at one level, or (m,) levels, within the claim's radius."""
    # bets are tuned for the level of equally weighted candidates, which is known before calibration
    aim = float(procedures.first_levels(claim.procedure, np.ones(candidates), level(claim))[0])
    risks = np.broadcast_to(np.asarray(alpha, dtype=np.float64), evidence.search_sums.shape)
    if claim.radius:
        risks = np.asarray(shift.shrunk(risks, claim.radius))
    evidence = at_levels(claim, risk, evidence, risks)
    if claim.kind(risk) != "sample":
        return _p_values(_bound(claim, risk, evidence, aim), evidence, risks, claim)
    # the mean that the rest of the list may have, without the units that the search measured
    listed, left = claim.listed[risk], claim.listed[risk] - evidence.n_searched
    rest = (listed * risks - evidence.search_sums / SCALE) / left
    p = _p_values(_bound(claim, risk, evidence, aim), evidence, np.clip(rest, 0.0, 1.0 - 1e-12), claim)
    return np.where(rest < -1e-12, 1.0, np.where(rest >= 1.0, 0.0, p))


def at_levels(claim: Claim, risk: str, evidence: Evidence, levels: FloatArray) -> Evidence:
    """Evidence to compare with (m,) levels: losses of ratios are tilted to them (`froc.risk.ratios.tilted`)."""
    if evidence.sizes is None and evidence.absences is None:
        return evidence
    assert isinstance(evidence.losses, np.ndarray)
    sizes = np.ones(evidence.losses.shape[1], dtype=np.int64) if evidence.sizes is None else evidence.sizes
    largest = 1 if evidence.sizes is None else claim.largest[risk]
    losses = ratios.tilted(evidence.losses.astype(np.int64), sizes, largest, levels, evidence.absences)
    return replace(evidence, losses=losses, sizes=None, absences=None)


def _p_values(bound: Bound, evidence: Evidence, risks: FloatArray, claim: Claim) -> FloatArray:
    by_e = procedures.find(claim.procedure).evidence == "e"

    def p_value(losses: Losses, alpha: Level) -> FloatArray:
        return 1.0 / np.maximum(1.0, bound.e_value(losses, alpha)) if by_e else bound.p_value(losses, alpha)

    if isinstance(evidence.losses, np.ndarray):
        # some bounds are faster with one level for all
        return p_value(evidence.losses, float(risks[0]) if len(risks) and bool((risks == risks[0]).all()) else risks)
    return np.array([p_value(row, float(risks[i]))[0] if row.size else 1.0 for i, row in enumerate(evidence.losses)])


def uppers(claim: Claim, evidence: Mapping[str, Evidence], delta: float) -> dict[str, list[float]]:
    """risk -> (m,) rounded upper bounds at error `delta` each, without shift; for the combined risk the weighted sum."""
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


def raw_upper(claim: Claim, risk: str, evidence: Evidence, delta: float) -> FloatArray:
    """(m,) unrounded upper bounds of one risk, without shift."""
    bound = _bound(claim, risk, evidence, delta)
    if evidence.sizes is not None or evidence.absences is not None:
        return np.array(
            [
                _inverted(bound, claim, risk, evidence_of_candidate(evidence, i), delta)
                for i in range(len(evidence.search_sums))
            ]
        )
    if isinstance(evidence.losses, np.ndarray):
        upper = bound.upper(evidence.losses, delta)
    else:
        upper = np.array([bound.upper(row, delta)[0] if row.size else 1.0 for row in evidence.losses])
    if claim.kind(risk) != "sample":
        return upper
    listed = claim.listed[risk]
    return (evidence.search_sums / SCALE + (listed - evidence.n_searched) * upper) / listed


def _inverted(bound: Bound, claim: Claim, risk: str, evidence: Evidence, delta: float) -> float:
    """The upper bound of one configuration's ratio, in whole thousandths, by inverting the test."""
    row = np.asarray(evidence.losses)[0]

    def rejected(levels: FloatArray) -> NDArray[np.bool_]:
        tilted = at_levels(claim, risk, replace(evidence, losses=np.broadcast_to(row, (len(levels), len(row)))), levels)
        return np.asarray(bound.p_value(np.asarray(tilted.losses), levels) <= delta)

    return ratios.inverted(rejected)


def _bound(claim: Claim, risk: str, evidence: Evidence, aim: float) -> Bound:
    name = claim.bound[risk]
    listed = max(0, claim.listed.get(risk, 0) - (evidence.n_searched if claim.kind(risk) == "sample" else 0))
    return _make_bound(name, aim, evidence.planned if claim.sequential else 0, listed)


@lru_cache(maxsize=64)
def _make_bound(name: str, aim: float, planned: int, listed: int) -> Bound:
    # looking up a plug-in takes longer than most bounds, and bisection over budgets asks for the same one
    fields = find(Bound, name).__dataclass_fields__
    settings = {"level": aim, "planned": planned, "population": listed}
    return make(Bound, name, {key: value for key, value in settings.items() if key in fields})
