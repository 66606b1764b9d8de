"""The claim to be certified, its p-values and upper bounds. Torch-free.

Numbers of a certificate are rounded here, always against the claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from froc import procedures
from froc.bounds import FloatArray, IntArray, Losses
from froc.loss_table import WEIGHTED
from froc.risk import ratios
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
class Stage:
    """Fresh queries with which a run was continued. number: from 2, as the calibration queries are the first stage. rows: keyed
    digest (64 hexadecimal digits) of its rows; seed: from which the order of its units follows.
    """

    number: int
    rows: str
    seed: str

    @property
    def split(self) -> str:
        """What loss tables call it."""
        return f"calibration-{self.number}"


@dataclass(frozen=True)
class Claim:
    """What is to be certified; fixed before calibration losses are opened.

    budget: risk -> accepted risk in (0, 1); `combined` is the sum of `weights` times risks. bound, unit: per measured risk.
    population: per risk, `queries` by default: `queries` are drawn from an unlimited population, `sample` without
    replacement from `listed` units, `census` is all of them. radius: Hellinger distance within which the budget must hold.
    openings: planned openings of these queries, each at delta / openings; opening: the number of this one, from 1.
    series: declared attempts with fresh queries each, of which this is one, each at delta / series.
    sequential: candidates may be measured on fewer units than planned. unmeasured: number of earlier removal requests that
    are not measured. largest: risk -> maximal number of queries in a group, for `queries-by-group`. estimand: risk -> what
    its mean is a mean of (`estimands`); empty in older plans. keyed: units and queries are named by keyed digests, so that
    their order carries no information. relative: risks whose budget is a fraction of the base model's score:
    E[L] <= budget E[score]. own_levels: bets aim at, and simultaneous CURs hold at, each candidate's share of the level by its weight
    (`own_levels`); False in older plans, where all shares are equal. extendable: whether further stages may follow, `stages` those
    that did, in their order.
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
    series: int = 1
    joint: bool = False
    sequential: bool = False
    unmeasured: int = 0
    largest: Mapping[str, int] = field(default_factory=dict)
    estimand: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = False
    relative: tuple[str, ...] = ()
    own_levels: bool = False
    extendable: bool = False
    stages: tuple[Stage, ...] = ()

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
    (n,) absences of the base model on these units (`froc.risk.positive_control`), for relative budgets. pooled: (m,) means over all
    queries, where units have several; fractions of the base model's score for relative budgets. ends: numbers of units after which
    each stage but the last ended.
    """

    losses: Losses | Sequence[Losses]
    search_sums: IntArray
    n_searched: int = 0
    planned: int = 0
    sizes: IntArray | None = None
    absences: IntArray | None = None
    pooled: FloatArray | None = None
    ends: tuple[int, ...] = ()

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
    return round(1.0 - claim.confidence, 12) / claim.openings / claim.series / (2 if claim.joint else 1)


def own_levels(claim: Claim, weights: FloatArray) -> FloatArray:
    """(m,) the level at which each candidate is tested first; the whole level for one that is tested only after others are rejected."""
    first = procedures.first_levels(claim.procedure, weights, level(claim))
    return np.where(first > 0, first, level(claim))


def simultaneous_levels(claim: Claim, weights: FloatArray) -> FloatArray:
    """(m,) error levels of the bounds of one risk that hold simultaneously over candidates and measured risks."""
    shares = weights / weights.sum() if claim.own_levels else np.full(len(weights), 1.0 / len(weights))
    return np.asarray(level(claim) * shares / len(claim.risks))


def estimands(claim: Claim) -> dict[str, str]:
    """risk -> what the bounded mean is a mean of, in fixed words."""
    names = {}
    for risk in claim.risks:
        unit, kind = MEANS[claim.unit[risk]], claim.kind(risk)
        # in a census nothing is drawn
        unit = MEANS["query"] if (kind, claim.unit[risk]) == ("census", WEIGHTED) else unit
        names[risk] = f"{unit} {LISTED[kind]}" if kind in LISTED else unit
    return names


def automatic(
    *,
    binary: bool,
    unit: str,
    population: str,
    sequential: bool,
    procedure: str,
    combined: bool = False,
    extendable: bool = False,
) -> str:
    """The bound that `auto` stands for, by rules that do not depend on losses.

    binary: losses can only be 0 or 1 by the metric's definition. combined: part of a combined risk, whose test needs p-values that
    never rise with the risk. extendable: further queries may follow, for which aimed bets leave no capital.
    """
    exact = binary and unit == "query"
    if population == "census":
        return "census"
    if population == "sample":
        return "hypergeometric" if exact else "betting_without_replacement"
    if procedures.find(procedure).evidence == "e":
        return "mixture"
    if exact and not sequential and not extendable:
        return "binomial"
    return "betting" if combined or extendable else "normal_test_betting"
