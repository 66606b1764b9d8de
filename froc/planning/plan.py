"""How many calibration units a certificate needs, and with what probability that many suffice. Torch-free.

    plan(budget=0.1, expected_risk=0.03, candidates=10, units=300)

The distribution of losses is an assumption, which every result states. Budgets are tested with the certificate's own
p-values. Of a loss table only search rows are read: no plan depends on a calibration loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from narwhals.typing import IntoFrame

from froc import procedures
from froc.bounds import Bound
from froc.data.task import RISKS
from froc.errors import InputError
from froc.formats.table import Table as Format
from froc.loss_table import SCALE, dataframe, matrix
from froc.planning import design_search, figure, wording
from froc.planning import loss_distributions as laws
from froc.planning.pass_probability import DRAWS, Chance, FirstCandidate, joint_probability
from froc.planning.result import LossAssumption, PlanResult, PlanRow
from froc.plugins import find
from froc.reporting.tables import Printed, Table
from froc.risk.claim import Claim, automatic
from froc.risk.claim_checks import refuse_unknown
from froc.risk.requirements import required_units
from froc.risk.weighted_sum import COMBINED

CANDIDATES = 10
"""Default number of tested candidates of `froc search`."""
BUDGET_FRACTIONS = (0.25, 0.5, 0.75)
"""Assumed risks where none is expected, as fractions of the budget."""
PLAN_ROWS = 7
Per = Mapping[str, Any] | float | int | None
"""One value for every risk, or risk -> value."""


class Plan(PlanResult, Printed):
    """A plan; prints as a table, in a notebook too."""

    def tables(self) -> list[Table]:
        """Rows by number of units, and the designs that were tried."""
        return [
            *([wording.ladder(self)] if self.ladder else []),
            *([design_search.table(self.designs)] if self.designs else []),
        ]

    def sentences(self) -> Sequence[str]:
        """What the numbers mean."""
        return self.summary

    def to_polars(self) -> pl.DataFrame:
        """risk, units, lost, expected, power and its Monte Carlo error: a row per number of units, risk and expected risk."""
        rows = [
            (risk, row.units, row.lost, expected, chance.value, chance.error)
            for row in self.ladder
            for risk in row.risks
            for expected, chance in zip(self.risks[risk], row.chances, strict=True)
        ]
        schema = {
            "risk": pl.String,
            "units": pl.Int64,
            "lost": pl.Int64,
            "expected": pl.Float64,
            "power": pl.Float64,
            "error": pl.Float64,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    def __repr__(self) -> str:
        needed = ", ".join(f"{risk}={units}" for risk, units in self.needed.items())
        return f"Plan({self.candidates} candidates, needed {needed})"

    def plot(self) -> Any:
        """A matplotlib figure: power against the number of units."""
        return figure.drawn(self)

    def save(self, path: Path) -> None:
        """Write the figure as PNG."""
        figure.save(self, path)


def plan(
    budget: Mapping[str, float] | float,
    *,
    confidence: float = 0.9,
    expected_risk: Per = None,
    units: Per = None,
    clusters: Per = None,
    correlation: Per = None,
    spread: Per = None,
    losses: IntoFrame | Path | str | None = None,
    binary: bool = False,
    candidates: int | None = None,
    procedure: str = procedures.DEFAULT,
    bound: str = "auto",
    population: Mapping[str, str] | str | None = None,
    listed: Per = None,
    radius: float = 0.0,
    joint: bool = False,
    openings: int = 1,
    search_share: float | None = None,
    power: float = 0.9,
    design: str = "given",
    seed: int = 0,
    scale: str | None = None,
) -> Plan:
    """How many calibration units a certificate needs, and with what probability that many suffice.

    budget: accepted risk, one or by risk (as for other options).
    expected_risk: risk of the hoped-for configuration.
    units: number of calibration queries; clusters: of their sampling units, which then count instead.
    correlation: of 0-1 losses within a cluster; 1, the worst case, by default.
    spread: standard deviation of a unit's loss (beta law); by default losses are 0 or 1, the widest law with that mean.
    losses: loss table or file whose search rows give the laws instead; scale: "thousandths" if they are 0..1000.
    binary: losses can only be 0 or 1. listed: size of the list of `population="sample"`.
    design: "auto" tries search shares, procedures and bounds on the search rows, for `units` queries in total.

    InputError for impossible values, and where more than a million units would be needed.

    >>> made = plan(budget=0.1, expected_risk=0.03, candidates=10, units=300)
    >>> made
    Plan(10 candidates, needed forgetting=181, utility=181)
    """
    frame = dataframe(losses)
    table = Format(scale).read([Path(losses)], {}).losses if isinstance(losses, Path | str) else frame
    searched = None if table is None else design_search.search_rows(table, scale if frame is not None else None)
    risks = _risks(budget, searched)
    options = _Options(risks, expected_risk, units, clusters, correlation, spread, population, listed)
    if not 0 < power < 1:
        raise InputError(f"power {power:g} is outside (0, 1)")
    if search_share is not None and not 0 < search_share < 1:
        raise InputError(f"search share {search_share:g} is outside (0, 1)")
    kinds = {risk: str(options.of("population", risk) or "queries") for risk in risks}
    unit = {risk: "group" if options.of("clusters", risk) else "query" for risk in risks}

    def bound_of(risk: str) -> str:
        if bound != "auto":
            return bound.replace("-", "_")
        return automatic(binary=binary, unit=unit[risk], population=kinds[risk], sequential=False, procedure=procedure)

    claim = Claim(
        budget=risks, confidence=confidence, procedure=procedure, bound={risk: bound_of(risk) for risk in risks},
        unit=unit, population={risk: kind for risk, kind in kinds.items() if kind != "queries"},
        listed={risk: int(options.of("listed", risk)) for risk in risks if options.of("listed", risk)},
        radius=radius, joint=joint, openings=openings, own_levels=True,
    )  # fmt: skip
    refuse_unknown(claim)
    count = candidates or (CANDIDATES if searched is None else min(CANDIDATES, searched["config"].n_unique()))
    if count < 1:
        raise InputError(f"candidates {count} makes no sense; at least 1 is tested")
    if design != "given":
        if procedure != procedures.DEFAULT or bound != "auto" or search_share is not None or expected_risk is not None:
            raise InputError(
                "--design auto chooses procedure, bound and search share, and takes the risks from the search rows; leave "
                "--procedure, --bound, --search-share and --expected-risk out"
            )
        return _plan_of_designs(design, claim, options, searched, count, binary, power, seed)
    searched_units = {risk: round((search_share or 0) * claim.listed[risk]) for risk in claim.listed}
    best = None if searched is None else design_search.best_config(searched, claim)
    assumed = {
        risk: _assumption(claim, risk, count, searched_units.get(risk, 0), seed, options, searched, best)
        for risk in risks
    }
    return _plan_of_units(
        claim, count, power, assumed, required_units(claim, count, searched_units), search_share, best, options
    )


@dataclass(frozen=True)
class _Options:
    """The options of `plan`, looked up per risk."""

    risks: Mapping[str, float]
    expected: Per
    units: Per
    clusters: Per
    correlation: Per
    spread: Per
    population: Mapping[str, str] | str | None
    listed: Per

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            for risk in value if isinstance(value, Mapping) else ():
                if risk not in self.risks:
                    raise InputError(f"{name} names {risk!r}, which has no budget; there are: {', '.join(self.risks)}")
        for risk in self.risks:
            self._refuse(risk)
        expected = [risk for risk in self.risks if self.of("expected", risk) is not None]
        if expected and len(expected) < len(self.risks):
            missing = next(risk for risk in self.risks if risk not in expected)
            raise InputError(f"no risk is expected of {missing}; give one for each, or none")
        correlated = [risk for risk in self.risks if self.of("correlation", risk) is not None]
        if correlated and not any(self.size(risk) for risk in correlated):
            raise InputError("a correlation in clusters needs --clusters, and --units for how many queries are in one")

    def of(self, name: str, risk: str) -> Any:
        value = getattr(self, name)
        return value.get(risk) if isinstance(value, Mapping) else value

    def size(self, risk: str) -> int | None:
        """Queries per cluster, where it is known."""
        many, clusters = self.of("units", risk), self.of("clusters", risk)
        return int(many) // int(clusters) if many and clusters else None

    def _refuse(self, risk: str) -> None:
        for name in ("units", "clusters", "listed"):
            value = self.of(name, risk)
            if value is not None and value < 1:
                raise InputError(f"{name} {value} makes no sense; give at least 1")
        expected, size = self.of("expected", risk), self.size(risk)
        if expected is not None and not 0 <= expected <= 1:
            raise InputError(f"an expected risk of {expected:g} is outside [0, 1]")
        if size == 0:
            raise InputError(f"{risk}: fewer queries than clusters; give at least one query for each")
        if self.of("correlation", risk) is not None and self.of("spread", risk) is not None:
            raise InputError("correlation and spread both say how a cluster's losses vary; give one of them")
        if self.of("population", risk) == "census":
            raise InputError(f"{risk}: a census measures every row, so that there is no number of units to plan")


def _risks(budget: Mapping[str, float] | float, searched: pl.DataFrame | None) -> dict[str, float]:
    names = RISKS if searched is None else sorted(searched["risk"].unique().to_list())
    risks = dict(budget) if isinstance(budget, Mapping) else dict.fromkeys(names, budget)
    if COMBINED in risks:
        raise InputError("a plan knows no combined risk; plan its parts with budgets of their own")
    for risk in risks:
        if searched is not None and risk not in names:
            raise InputError(f"the table has no search rows for risk {risk!r}; there are: {', '.join(names)}")
    return risks


def _assumption(
    claim: Claim, risk: str, count: int, searched_units: int, seed: int, options: _Options, searched: pl.DataFrame | None, best: str | None
) -> LossAssumption:  # fmt: skip
    first = FirstCandidate(claim, risk, count, searched_units, seed)
    clusters = options.of("clusters", risk)
    units = int(clusters or options.of("units", risk) or 0) or None
    if claim.kind(risk) == "sample" and (units or 0) + searched_units > claim.listed[risk]:
        raise InputError(
            f"{risk}: more units than the {claim.listed[risk]} that are listed; lower --units or --search-share"
        )
    if searched is not None and best is not None:
        measured = matrix(searched, risk=risk, split="search", configs=[best], unit=claim.unit[risk]).values[0]
        # one unit with a loss of 1 is added, as few units without a loss are no certainty
        distribution = np.bincount(np.append(measured, SCALE), minlength=SCALE + 1) / (len(measured) + 1)
        words = f"losses like the {len(measured)} search {claim.unit[risk]} units of {best}, and one of 1"
        return LossAssumption(first, {laws.mean(distribution): distribution}, words, units)
    expected = options.of("expected", risk)
    levels = [expected] if expected is not None else [part * claim.budget[risk] for part in BUDGET_FRACTIONS]
    deviation, size = options.of("spread", risk), options.size(risk)
    correlation = options.of("correlation", risk)
    if deviation is not None:
        words = f"losses with standard deviation {deviation:g} (beta law)"
        return LossAssumption(first, {float(r): laws.beta_losses(r, deviation) for r in levels}, words, units)
    if clusters and size and correlation is not None:
        words = f"clusters of {size} queries whose 0-1 losses correlate by {correlation:g} (beta-binomial law)"
        return LossAssumption(first, {float(r): laws.clustered(r, size, correlation) for r in levels}, words, units)
    words = "losses of 0 or 1, the widest law with that mean"
    if not find(Bound, claim.bound[risk]).binary_only and not clusters:
        words += " (where they can be nothing else, say binary: exact bounds need fewer; where they vary less, say the spread)"
    if clusters:
        words = "all queries of a cluster alike, 0 or 1 (the worst case: a cluster is worth one query)"
    return LossAssumption(first, {float(r): laws.zero_one(r) for r in levels}, words, units)


def _plan_of_units(
    claim: Claim, count: int, power: float, assumed: Mapping[str, LossAssumption], zero: Mapping[str, int],
    share: float | None, best: str | None, options: _Options,
) -> Plan:  # fmt: skip
    groups: list[tuple[str, ...]] = []
    for risk, assumption in assumed.items():
        place = next((i for i, group in enumerate(groups) if assumption.alike(assumed[group[0]])), None)
        if place is None:
            groups.append((risk,))
        else:
            groups[place] = (*groups[place], risk)
    needed: dict[str, int | None] = {}
    ladder: list[PlanRow] = []
    known = best is not None or all(options.of("expected", risk) is not None for risk in assumed)
    for group in groups:
        assumption = assumed[group[0]]
        distribution = next(iter(assumption.laws.values()))
        need = assumption.first.units(distribution, power ** (1 / len(assumed)), zero[group[0]]) if known else None
        needed |= dict.fromkeys(group, need) if known else {}
        ladder += _plan_rows(group, assumption, zero[group[0]], need)
    chances = [_chance_of(ladder, risk, assumption) for risk, assumption in assumed.items()]
    joint = joint_probability([chance for chance in chances if chance]) if known and all(chances) else None
    result = Plan(
        claim, count, power, {risk: tuple(assumption.laws) for risk, assumption in assumed.items()}, zero, needed, tuple(ladder),
        joint, (), share, draws=(next(iter(assumed.values())).first.seed, DRAWS),
    )  # fmt: skip
    return Plan(**{**vars(result), "summary": tuple(wording.sentences(result, groups, assumed))})


def _chance_of(ladder: Sequence[PlanRow], risk: str, assumption: LossAssumption) -> Chance | None:
    return next((row.chances[0] for row in ladder if risk in row.risks and row.units == assumption.units), None)


def _plan_rows(group: tuple[str, ...], assumption: LossAssumption, zero: int, need: int | None) -> list[PlanRow]:
    """Rows from the units at zero loss to more than are needed or planned; where counts decide, numbers that allow one more loss."""
    counted = all(assumption.first.counts(law) for law in assumption.laws.values())
    notes: dict[int, list[str]] = {zero: ["needed at zero loss"]}
    if need is not None:
        notes.setdefault(need, []).append("wanted power")
    if assumption.units is not None:
        notes.setdefault(assumption.units, []).append("planned")
        if counted and (after := assumption.first.useful(assumption.first.allowed(assumption.units) + 1)):
            notes.setdefault(after, []).append("next useful" if assumption.first.allowed(assumption.units) >= 0 else "")
    top = assumption.first.most(max(need or 0, assumption.units or 0) * 4 // 3 or 8 * zero)
    grid = np.geomspace(zero, max(top, zero), PLAN_ROWS)
    steps = [round(float(n)) for n in grid]
    if counted:
        steps = [assumption.first.useful(max(0, assumption.first.allowed(n))) or n for n in steps]
    return [
        PlanRow(group, n, assumption.first.allowed(n) if counted else None,
             tuple(assumption.first.chance(law, n) for law in assumption.laws.values()), ", ".join(filter(None, notes.get(n, []))))
        for n in sorted({*steps, *notes})
    ]  # fmt: skip


def _plan_of_designs(
    design: str, claim: Claim, options: _Options, searched: pl.DataFrame | None, count: int, binary: bool, power: float, seed: int
) -> Plan:  # fmt: skip
    if design != "auto":
        raise InputError(f"no design is called {design!r}; write auto, or leave it out")
    if searched is None:
        raise InputError("--design auto simulates on search losses; give a table that has some with --from")
    if claim.population:
        raise InputError("--design auto is for population queries; a list's design is its sample")
    units = {risk: options.of("units", risk) for risk in claim.budget}
    if not all(units.values()) or any(options.of("clusters", risk) for risk in claim.budget):
        raise InputError("--design auto needs how many queries there are in all, search and calibration: --units 300")
    designs = design_search.rank_designs(searched, claim, {r: int(n) for r, n in units.items()}, count, binary, seed)
    return Plan(
        claim, count, power, {}, {}, {}, (), None, tuple(design_search.sentences(designs, claim, searched, seed)),
        designs=tuple(designs), command=design_search.command(designs[0], claim, count), draws=(seed, design_search.REPEATS),
    )  # fmt: skip
