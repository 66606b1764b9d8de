"""The claim that is to be certified, and the p-values and bounds it asks for. Torch-free.

Numbers that a certificate prints are rounded here, always against the claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from froc import combined, procedures, shift, tilting
from froc.bounds import Bound, Level, Losses, Reals, Wholes
from froc.combined import COMBINED
from froc.errors import InputError
from froc.losses import SCALE, UNITS, WEIGHTED
from froc.plugins import find, make

SLACK = Decimal("1e-12")
"""Rounding gives this much (relative) away, so that no machine's last bits can round in the claim's favour."""
TINY = Decimal("1e-300")
"""No p-value is printed smaller; a bound that underflows to 0 has not proved certainty."""
POPULATIONS = ("queries", "sample", "census")
FLOOR = 50
"""Sampling units below which a mean may tell about single ones: reports on fewer are refused unless they say so."""
MEANS = {"query": "mean over queries", "group": "mean of group means", WEIGHTED: "mean over queries, drawn by group"}
LISTED = {"sample": "of a list that is measured in part", "census": "of a list that is measured completely"}


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

    budget: risk -> accepted risk in (0, 1); `combined` stands for the sum of `weights` times risks. bound, unit: per
    measured risk. population: per risk, `queries` where left out: `queries` are drawn from all there might be,
    `sample` is drawn without replacement from `listed` many, `census` is all of them. radius: Hellinger distance
    within which the budget must hold. openings: planned looks, each at delta / openings; opening: which look this is.
    sequential: candidates may be measured on fewer units than planned. unmeasured: requests that were removed before and
    that nothing here is measured about. largest: risk -> queries that no group has more of, for `queries-by-group`.
    estimand: risk -> what its mean is a mean of (`estimands`); older plans name none, and their certificates stay as they were.
    keyed: units and queries are named by keyed digests, whose order says nothing about the queries.
    relative: risks whose budget is a share of what the base model scored: E[L] <= budget E[score].
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
        """The risks that are measured: those with a budget, then those that only the combined risk needs."""
        named = [risk for risk in self.budget if risk != COMBINED]
        return named + [risk for risk in self.parts if risk not in named]

    @property
    def parts(self) -> list[str]:
        """The risks that the combined risk is made of."""
        return list(self.weights) if COMBINED in self.budget else []

    def kind(self, risk: str) -> str:
        """The population that a risk is about."""
        return self.population.get(risk, "queries")

    def of_ratio(self, risk: str) -> bool:
        """Whether the claim about a risk is about a ratio of means (`froc.tilting`)."""
        return tilting.of_ratio(risk, self.unit, self.population, self.relative)


@dataclass(frozen=True)
class Evidence:
    """Losses of one risk. losses: (m, n) thousandths of calibration units, or a list of m rows of different lengths.

    seen, searched: where the population is a list, the (m,) sums of losses of its units that the search has looked
    at, and how many those are. They are no sample any more, but known, and part of the list's mean. planned: units
    that were to be measured. sizes: queries of each unit, where the claim is about the mean over queries: losses are then their
    sums. absences: the (n,) absences of the base model on these units (`froc.control`), where the claim is about a share of what it
    scored. pooled: the (m,) mean losses over all known queries, where units have several, as shares where the claim is about shares.
    """

    losses: Losses | Sequence[Losses]
    seen: Wholes
    searched: int = 0
    planned: int = 0
    sizes: Wholes | None = None
    absences: Wholes | None = None
    pooled: Reals | None = None

    def count(self, place: int) -> int:
        """Units on which a candidate was measured for the claim."""
        row = self.losses if isinstance(self.losses, np.ndarray) else self.losses[place]
        return int(row.shape[1])


def evidence(losses: Losses) -> Evidence:
    """A plain matrix as evidence."""
    return Evidence(losses, np.zeros(len(losses), dtype=np.int64), 0, losses.shape[1])


def only(some: Evidence, place: int) -> Evidence:
    """The evidence of one candidate."""
    row = some.losses[place : place + 1] if isinstance(some.losses, np.ndarray) else some.losses[place]
    pooled = None if some.pooled is None else some.pooled[place : place + 1]
    return replace(some, losses=row, seen=some.seen[place : place + 1], pooled=pooled)


def level(claim: Claim) -> float:
    """The error level that one statement of this opening spends."""
    # 1 - 0.9 is 0.0999...98 in floats; the user said 0.1
    return round(1.0 - claim.confidence, 12) / claim.openings / (2 if claim.joint else 1)


def estimands(claim: Claim) -> dict[str, str]:
    """risk -> what the mean that is bounded is a mean of, in fixed words."""
    found = {}
    for risk in claim.risks:
        unit, kind = MEANS[claim.unit[risk]], claim.kind(risk)
        # all of a list is measured: nothing is drawn
        unit = MEANS["query"] if (kind, claim.unit[risk]) == ("census", WEIGHTED) else unit
        found[risk] = f"{unit} {LISTED[kind]}" if kind in LISTED else unit
    return found


def automatic(*, binary: bool, unit: str, population: str, sequential: bool, procedure: str) -> str:
    """The bound that `auto` means, by rules that no loss can influence.

    binary: the metric can only be 0 or 1, said by its contract and not read off the losses.
    """
    exact = binary and unit == "query"
    if population == "census":
        return "census"
    if population == "sample":
        return "hypergeometric" if exact else "betting_without_replacement"
    if procedures.find(procedure).evidence == "e":
        return "mixture"
    return "binomial" if exact and not sequential else "betting"


def refuse_unknown(claim: Claim) -> None:
    """InputError for a claim that cannot be certified as said: unknown names, levels and budgets out of range."""
    procedures.find(claim.procedure)
    if not claim.budget:
        raise InputError("no risk has a budget; give at least one, such as --budget forgetting=0.1")
    if not 0 < claim.confidence < 1:
        raise InputError(f"confidence {claim.confidence:g} is outside (0, 1)")
    if claim.openings < 1 or claim.opening < 1:
        raise InputError("openings are counted from 1")
    if not 0 < level(claim) < 1:
        raise InputError(f"confidence {claim.confidence!r} leaves no error level to spend; lower it")
    if not 0 <= claim.radius < 1:
        raise InputError(f"radius {claim.radius:g} is outside [0, 1); a Hellinger distance such as 0.05")
    for risk, alpha in claim.budget.items():
        if not 0 < alpha < 1:
            raise InputError(f"budget {risk}={alpha:g} is outside (0, 1); a budget is an accepted risk such as 0.1")
        if shift.shrunk(alpha, claim.radius) <= 0:
            most = shift.robust_radius(0.0, alpha)
            raise InputError(
                f"no risk can keep budget {risk}={alpha:g} within a Hellinger radius of {claim.radius:g}; even a risk "
                f"of 0 reaches it at {most:.4f}"
            )
    _refuse_weights(claim)
    for risk in claim.risks:
        _refuse_risk(claim, risk)
    _refuse_ratios(claim)
    if claim.estimand and dict(claim.estimand) != estimands(claim):
        raise InputError("the claim names another estimand than its units and populations have")


def _refuse_weights(claim: Claim) -> None:
    if (COMBINED in claim.budget) != bool(claim.weights):
        raise InputError(
            "the combined risk needs its budget and its weights: --budget combined=0.1 --weight forgetting=0.5 ..."
        )
    if claim.weights and procedures.find(claim.procedure).evidence == "e":
        raise InputError(f"{claim.procedure} needs e-values, the combined risk has none; take benjamini-yekutieli")
    if len(claim.weights) not in (0, 2):
        raise InputError("the combined risk is made of two risks; give two weights")
    for risk, weight in claim.weights.items():
        if not 0 < weight <= 1:
            raise InputError(f"weight {risk}={weight:g} is outside (0, 1]")
    if claim.weights and sum(claim.weights.values()) > 1 + 1e-9:
        raise InputError("the weights of the combined risk sum to more than 1; it would no longer be a risk in [0, 1]")


def _refuse_risk(claim: Claim, risk: str) -> None:
    if risk not in claim.bound or risk not in claim.unit:
        raise InputError(f"risk {risk!r} has a budget but no bound or unit; name them")
    bound = find(Bound, claim.bound[risk])
    if claim.unit[risk] not in UNITS:
        raise InputError(f"no unit is called {claim.unit[risk]!r}; there are: {', '.join(UNITS)}")
    kind = claim.kind(risk)
    if kind not in POPULATIONS:
        raise InputError(f"no population is called {kind!r}; there are: {', '.join(POPULATIONS)}")
    if bound.finite != (kind != "queries") or (kind == "census") != (claim.bound[risk] == "census"):
        raise InputError(f"the bound {claim.bound[risk]} is not for population {kind} of {risk}; take --bound auto")
    if kind == "sample" and claim.listed.get(risk, 0) < 1:
        raise InputError(f"population sample needs the size of the list: --listed {risk}=400")
    if claim.unit[risk] == WEIGHTED:
        _refuse_weighted(claim, risk, bound)
    if claim.sequential and not bound.anytime:
        raise InputError(f"the bound {claim.bound[risk]} does not hold when measuring stops early; take betting")
    if procedures.find(claim.procedure).evidence == "e" and bound.e_value is Bound.e_value:
        raise InputError(f"{claim.procedure} needs e-values, {claim.bound[risk]} has none; take mixture or betting")


def _refuse_ratios(claim: Claim) -> None:
    for risk in claim.relative:
        if risk not in claim.budget or risk == COMBINED or COMBINED in claim.budget:
            raise InputError(
                f"--relative {risk}: only single risks with budgets of their own have relative ones; "
                f"take {' or '.join(r for r in claim.budget if r != COMBINED) or 'utility'}, and leave combined budgets out"
            )
        if claim.kind(risk) != "queries" or claim.sequential:
            raise InputError(
                f"--relative {risk} is offered for queries that are drawn and measured as planned; leave --sequential and "
                f"--population {claim.kind(risk)} out"
            )
        if find(Bound, claim.bound[risk]).binary_only:
            raise InputError(
                f"the bound {claim.bound[risk]} needs 0-1 losses, which a share of what the base model scored has not; "
                f"take --bound auto for {risk}"
            )
    ratios = [risk for risk in claim.risks if claim.of_ratio(risk)]
    if claim.radius and ratios:
        raise InputError(
            f"{ratios[0]}: what a shift of the queries does to a ratio of means is not known; leave --radius out, or "
            + (f"--relative {ratios[0]}" if ratios[0] in claim.relative else f"take --unit {ratios[0]}=group")
        )


def _refuse_weighted(claim: Claim, risk: str, bound: type[Bound]) -> None:
    kind = claim.kind(risk)
    if kind == "sample" or claim.sequential:
        raise InputError(
            f"{risk}: {WEIGHTED} is offered for populations queries and census, measured as planned; take --unit {risk}=group, "
            "or leave --sequential and --population sample out"
        )
    if kind == "queries" and claim.largest.get(risk, 0) < 1:
        raise InputError(f"{risk}: {WEIGHTED} needs the size of the largest group that there may be; it is in no plan")
    if bound.binary_only:
        raise InputError(
            f"the bound {claim.bound[risk]} needs 0-1 losses of single queries; take --bound auto for {risk}"
        )


def p_values(
    claim: Claim, risk: str, some: Mapping[str, Evidence], candidates: int, alpha: float | None = None
) -> list[float]:
    """(m,) rounded p-values of one risk, or the combined one, at its budget, or at `alpha`. some: measured risks."""
    budget = claim.budget[risk] if alpha is None else alpha
    if risk != COMBINED:
        exact = claim.kind(risk) == "census"
        return [up_p(float(p), exact=exact) for p in raw_p(claim, risk, some[risk], candidates, budget)]

    def part(name: str) -> tuple[float, combined.Tail]:
        return claim.weights[name], lambda level: raw_p(claim, name, some[name], candidates, level)

    first, second = map(part, claim.parts)
    both = combined.tail(first, second, budget, len(some[claim.parts[0]].seen))
    return [up_p(float(p)) for p in both]


def raw_p(claim: Claim, risk: str, some: Evidence, candidates: int, alpha: Level) -> Reals:
    """(m,) unrounded p-values of one risk at (m,) or one risk level, within the claim's radius."""
    # bets aim at the level that each of equally weighted candidates would get: known before calibration
    aim = float(procedures.first_levels(claim.procedure, np.ones(candidates), level(claim))[0])
    risks = np.broadcast_to(np.asarray(alpha, dtype=np.float64), some.seen.shape)
    if claim.radius:
        risks = np.asarray(shift.shrunk(risks, claim.radius))
    some = at_levels(claim, risk, some, risks)
    if claim.kind(risk) != "sample":
        return _tails(_bound(claim, risk, some, aim), some, risks, claim)
    # what the rest of the list may have on average, when the units that the search saw are taken off
    many, left = claim.listed[risk], claim.listed[risk] - some.searched
    rest = (many * risks - some.seen / SCALE) / left
    p = _tails(_bound(claim, risk, some, aim), some, np.clip(rest, 0.0, 1.0 - 1e-12), claim)
    return np.where(rest < -1e-12, 1.0, np.where(rest >= 1.0, 0.0, p))


def at_levels(claim: Claim, risk: str, some: Evidence, levels: Reals) -> Evidence:
    """Evidence whose means are to be held against (m,) levels: tilted to them where the claim is about a ratio."""
    if some.sizes is None and some.absences is None:
        return some
    assert isinstance(some.losses, np.ndarray)
    sizes = np.ones(some.losses.shape[1], dtype=np.int64) if some.sizes is None else some.sizes
    largest = 1 if some.sizes is None else claim.largest[risk]
    losses = tilting.tilted(some.losses.astype(np.int64), sizes, largest, levels, some.absences)
    return replace(some, losses=losses, sizes=None, absences=None)


def _tails(bound: Bound, some: Evidence, risks: Reals, claim: Claim) -> Reals:
    by_e = procedures.find(claim.procedure).evidence == "e"

    def tail(losses: Losses, alpha: Level) -> Reals:
        return 1.0 / np.maximum(1.0, bound.e_value(losses, alpha)) if by_e else bound.p_value(losses, alpha)

    if isinstance(some.losses, np.ndarray):
        # one risk for all where there is one: some bounds are faster then
        return tail(some.losses, float(risks[0]) if len(risks) and bool((risks == risks[0]).all()) else risks)
    return np.array([tail(row, float(risks[i]))[0] if row.size else 1.0 for i, row in enumerate(some.losses)])


def uppers(claim: Claim, some: Mapping[str, Evidence], delta: float) -> dict[str, list[float]]:
    """risk -> (m,) rounded upper bounds at error `delta` each, without shift. Of the combined risk: the weighted sum."""
    found = {
        risk: [up(float(u), exact=claim.kind(risk) == "census") for u in raw_upper(claim, risk, some[risk], delta)]
        for risk in claim.risks
    }
    if COMBINED in claim.budget:
        parts = zip(*(found[risk] for risk in claim.parts), strict=True)
        weights = list(claim.weights.values())
        found[COMBINED] = [up(sum(w * u for w, u in zip(weights, both, strict=True))) for both in parts]
    return found


def raw_upper(claim: Claim, risk: str, some: Evidence, delta: float) -> Reals:
    """(m,) unrounded upper bounds of one risk, without shift."""
    bound = _bound(claim, risk, some, delta)
    if some.sizes is not None or some.absences is not None:
        return np.array([_inverted(bound, claim, risk, only(some, i), delta) for i in range(len(some.seen))])
    if isinstance(some.losses, np.ndarray):
        found = bound.upper(some.losses, delta)
    else:
        found = np.array([bound.upper(row, delta)[0] if row.size else 1.0 for row in some.losses])
    if claim.kind(risk) != "sample":
        return found
    many = claim.listed[risk]
    return (some.seen / SCALE + (many - some.searched) * found) / many


def _inverted(bound: Bound, claim: Claim, risk: str, some: Evidence, delta: float) -> float:
    """The bound of one row on a ratio: in whole thousandths, by trying."""
    row = np.asarray(some.losses)[0]

    def rejected(levels: Reals) -> NDArray[np.bool_]:
        found = at_levels(claim, risk, replace(some, losses=np.broadcast_to(row, (len(levels), len(row)))), levels)
        return np.asarray(bound.p_value(np.asarray(found.losses), levels) <= delta)

    return tilting.inverted(rejected)


def _bound(claim: Claim, risk: str, some: Evidence, aim: float) -> Bound:
    name = claim.bound[risk]
    listed = max(0, claim.listed.get(risk, 0) - (some.searched if claim.kind(risk) == "sample" else 0))
    return _made(name, aim, some.planned if claim.sequential else 0, listed)


@lru_cache(maxsize=64)
def _made(name: str, aim: float, planned: int, listed: int) -> Bound:
    # looking a plug-in up takes longer than most bounds, and a search for budgets asks for the same one again
    fields = find(Bound, name).__dataclass_fields__
    wanted = {"level": aim, "planned": planned, "population": listed}
    return make(Bound, name, {key: value for key, value in wanted.items() if key in fields})


def up_p(value: float, *, exact: bool = False) -> float:
    """A p-value rounded up to 6 significant digits; at most 1, never 0 but where 0 is exact."""
    if exact and value == 0:
        return 0.0
    exactly = max(Decimal(float(value)) * (1 + SLACK), TINY)
    return min(1.0, float(Context(prec=6, rounding=ROUND_CEILING).plus(exactly)))


def up(value: float, decimals: int = 6, *, exact: bool = False) -> float:
    """A risk rounded up to so many decimals; at most 1. exact: a mean, which is known to the last digit."""
    step = Decimal(1).scaleb(-decimals)
    given = Decimal(str(round(value, 12))) if exact else Decimal(value) * (1 + SLACK)
    return min(1.0, float(given.quantize(step, ROUND_CEILING)))


def down(value: float, decimals: int = 6) -> float:
    """A radius rounded down to so many decimals."""
    return float((Decimal(value) * (1 - SLACK)).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR))
