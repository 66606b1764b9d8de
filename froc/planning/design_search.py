"""Search share, procedure and bound, chosen by simulation on search losses only. Torch-free.

This costs no confidence, however often it is repeated, as it depends on search losses only: rows of other splits are
removed first (`search_rows`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from froc import hashing, procedures
from froc.bounds import Bound, Losses
from froc.bounds._aimed_betting import AimedBetting
from froc.errors import InputError
from froc.loss_table import SCALE, check, matrix
from froc.planning.pass_probability import Chance, fraction_passed, simulate_calibration
from froc.plugins import find
from froc.reporting.tables import Table
from froc.risk.claim import Claim, evidence_from_matrix, level, own_levels
from froc.risk.p_values import p_values

REPEATS = 300
SEARCH_SHARES = (0.2, 0.1, 0.33, 0.5)
"""Search shares; the default first, which is taken where designs do equally well."""
BOUNDS = ("normal_test_betting", "hoeffding_bentkus", "mixture")
BINARY = ("binomial", *BOUNDS)
MAX_SHOWN = 12
NEAR_BEST = 0.05
"""Relative difference in the mean number certified below which the default is kept."""
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Design:
    """A search share, a procedure and a bound. any: probability that they certify a configuration that keeps the budgets.

    mean_certified: mean number of such configurations.
    """

    share: float
    procedure: str
    bound: str
    any: Chance
    mean_certified: float

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {"search_share": self.share, "procedure": self.procedure, "bound": self.bound,
                "any": vars(self.any), "mean_certified": self.mean_certified}  # fmt: skip


def search_rows(table: pl.DataFrame, scale: str | None = None) -> pl.DataFrame:
    """The checked search rows of a loss table; a plan uses no others. InputError where there are none."""
    rows = table.filter(pl.col("split") == "search") if "split" in table.columns else table.clear()
    if rows.is_empty():
        raise InputError("the table has no rows with split 'search'; a plan never looks at calibration losses")
    return check(rows, scale)


def best_config(rows: pl.DataFrame, claim: Claim) -> str:
    """The configuration whose worst search mean over budget is smallest; ties: the first by name."""
    means = rows.group_by("config", "risk").agg(pl.col("loss").mean())
    worst: dict[str, float] = {}
    for config, risk, loss in means.iter_rows():
        if risk in claim.budget:
            worst[config] = max(worst.get(config, 0.0), loss / SCALE / claim.budget[risk])
    return min(worst, key=lambda config: (worst[config], config))


def rank_designs(
    rows: pl.DataFrame, claim: Claim, units: Mapping[str, int], candidates: int, binary: bool, seed: int
) -> list[Design]:
    """All designs: the recommended one first, then by probability of a correct certification, then by mean number.

    Recommended is the first design in order of listing (the default first) among those within one standard error of the
    highest probability and near the largest mean number.

    rows: search rows. units: risk -> queries in all. Each repetition simulates a calibration
    (`froc.planning.pass_probability.simulate_calibration`), divides its queries, ranks the configurations on the search
    part and tests at most `candidates` of them on the rest.
    """
    configs = sorted(rows["config"].unique().to_list())
    known = {
        risk: matrix(rows, risk=risk, split="search", configs=configs, unit="query").values for risk in claim.budget
    }
    names = [procedures.DEFAULT, *(name for name in procedures.names() if name != procedures.DEFAULT)]
    names.insert(1, "fixed-sequence:starts=4")
    kinds = list(product(names, BINARY if binary else BOUNDS))
    counts = {(share, *kind): [0, 0] for share in SEARCH_SHARES for kind in kinds}
    for number in range(REPEATS):
        world, keeps = _world(known, claim, units, hashing.derive_seed("design", seed, number))
        for share in SEARCH_SHARES:
            order, measured = _divided(world, claim, share, candidates)
            for kind, passed in _certified(measured, claim, kinds):
                right = int((passed & keeps[order]).sum())
                counts[(share, *kind)][0] += right > 0
                counts[(share, *kind)][1] += right
    designs = [
        Design(*key, fraction_passed(certified, REPEATS), total / REPEATS) for key, (certified, total) in counts.items()
    ]
    best_chance = max(designs, key=lambda design: design.any.value).any
    good = [design for design in designs if design.any.value >= best_chance.value - best_chance.error]
    chosen = next(
        design
        for design in good
        if design.mean_certified
        >= (1.0 - NEAR_BEST) * max(candidate_design.mean_certified for candidate_design in good)
    )
    return sorted(designs, key=lambda design: (design is not chosen, -design.any.value, -design.mean_certified))


def _world(
    known: Mapping[str, Losses], claim: Claim, units: Mapping[str, int], seed: int
) -> tuple[dict[str, Losses], Flags]:
    """risk -> (m, units) losses of all queries, and (m,) whether a configuration keeps every budget there."""
    world: dict[str, Losses] = {}
    keeps = np.ones(len(next(iter(known.values()))), dtype=bool)
    for risk, losses in known.items():
        draw = np.random.default_rng(hashing.derive_seed(seed, risk))
        pool, places = simulate_calibration(draw, losses.shape[1], units[risk], 1)
        padded = np.concatenate([losses, np.full((len(losses), 1), SCALE, dtype=np.int16)], axis=1)
        world[risk] = padded[:, pool[0][places[0]]]
        keeps &= padded[:, pool[0]].mean(axis=1) <= claim.budget[risk] * SCALE
    return world, keeps


def _divided(
    world: Mapping[str, Losses], claim: Claim, share: float, candidates: int
) -> tuple[NDArray[np.intp], dict[str, Losses]]:
    """Indices of the configurations to be tested, in order, and their losses on the calibration part."""
    cut = {risk: max(1, min(losses.shape[1] - 1, round(share * losses.shape[1]))) for risk, losses in world.items()}
    budget_ratio = np.max(
        [world[r][:, : cut[r]].mean(axis=1) / SCALE / alpha for r, alpha in claim.budget.items()], axis=0
    )
    order = np.argsort(budget_ratio, kind="stable")
    within = max(1, int((budget_ratio <= 1.0).sum()))
    order = order[: min(within, candidates)]
    return order, {risk: losses[order, cut[risk] :] for risk, losses in world.items()}


def _certified(
    measured: Mapping[str, Losses], claim: Claim, kinds: Sequence[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], Flags]]:
    m = len(next(iter(measured.values())))
    weights, cache = 1.0 / np.arange(1, m + 1), {}
    for name, bound in kinds:
        variant = replace(claim, procedure=name, bound=dict.fromkeys(claim.budget, bound))
        # p-values depend on the procedure only through the levels that bets aim at
        own = own_levels(variant, weights)
        aims = tuple(own) if issubclass(find(Bound, bound), AimedBetting) else ()
        if (bound, aims) not in cache:
            evidence = {risk: evidence_from_matrix(losses) for risk, losses in measured.items()}
            p = [p_values(variant, risk, evidence, m, own=own) for risk in claim.budget]
            cache[bound, aims] = np.max(p, axis=0)
        yield (name, bound), procedures.certified(name, cache[bound, aims], weights, level(claim))


def command(design: Design, claim: Claim, candidates: int) -> str:
    """The command that searches with a design."""
    budgets = " ".join(f"--budget {risk}={alpha:g}" for risk, alpha in claim.budget.items())
    more = f" --radius {claim.radius:g}" if claim.radius else ""
    more += (" --joint" if claim.joint else "") + (f" --openings {claim.openings}" if claim.openings > 1 else "")
    return (
        f"froc search {budgets} --confidence {claim.confidence:g} --search-share {design.share:g} --procedure {design.procedure} "
        f"--bound {design.bound} --candidates {candidates}{more}"
    )


def sentences(designs: Sequence[Design], claim: Claim, rows: pl.DataFrame, seed: int) -> list[str]:
    """What was simulated, and its limits."""
    best_design = max(designs, key=lambda design: design.any.value)
    return [
        f"Simulated from {rows['config'].n_unique()} configurations on search rows alone, {REPEATS} times, seed {seed}; calibration "
        "losses were not looked at, so that a certificate needs no correction for this choice.",
        f"Taken: {designs[0].procedure} with {designs[0].bound} and a search share of {designs[0].share:g}, which certifies something "
        f"right with chance {designs[0].any}; no design has more than {best_design.any.value:.3f}. Where designs are as good as equal, the "
        "defaults are kept. That a larger search share also finds better configurations is not simulated.",
    ]


def table(designs: Sequence[Design]) -> Table:
    """The best designs."""
    rows = tuple(
        (design.procedure, design.bound, f"{design.share:g}", str(design.any), f"{design.mean_certified:.2f}")
        for design in designs[:MAX_SHOWN]
    )
    return Table(
        f"Designs: the one to take, and the best of {len(designs)} tried on search losses",
        ("procedure", "bound", "search share", "certifies any", "mean certified"), rows,
    )  # fmt: skip
