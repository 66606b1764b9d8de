"""Search losses -> candidates in testing order, written down before one calibration loss exists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from froc import digest
from froc.bounds import Bound
from froc.losses import SCALE
from froc.plugins import make
from froc.risk import Candidate
from search.folder import Started

NEAR_MISSES = 2
"""Candidates above a budget on the search queries that are tested all the same, when there is room."""
PER_TRIAL = 2
"""Candidates from one training run."""

Sums = dict[str, dict[str, tuple[int, int]]]
"""config -> risk -> (sum of search losses in thousandths, number of queries)."""


@dataclass(frozen=True)
class Ranked:
    """A configuration with what decides its place. doubt: largest search p-value; excess: see `excess`."""

    line: Started
    doubt: float
    excess: float


def rank(
    log: Sequence[Started], found: Mapping[str, Mapping[str, tuple[int, int]]], budget: Mapping[str, float]
) -> list[Ranked]:
    """Configurations that were measured under every budgeted risk, best first: within budget the likeliest to be
    feasible, then the nearest misses.

    A configuration that another one beats on every risk never stands before it: its p-values are larger.

    found: see `Sums`.
    """
    done = [one for line in log if line.status == "complete" and line.search for one in line.configurations()]
    known = [one for one in done if budget.keys() <= found.get(one.config, {}).keys()]
    return ordered(
        [Ranked(one, _doubt(found[one.config], budget), _excess(found[one.config], budget)) for one in known]
    )


def ordered(found: Sequence[Ranked]) -> list[Ranked]:
    """Best first."""
    within = sorted((r for r in found if r.excess <= 0), key=lambda r: (r.doubt, r.excess, r.line.trial))
    misses = sorted((r for r in found if r.excess > 0), key=lambda r: (r.excess, r.line.trial))
    return within + misses


def sums(table: pl.DataFrame) -> Sums:
    """Of a loss table."""
    found: Sums = {}
    grouped = table.group_by("config", "risk").agg(pl.col("loss").cast(pl.Int64).sum(), pl.len().alias("n"))
    for config, risk, total, count in grouped.iter_rows():
        found.setdefault(config, {})[risk] = total, count
    return found


def shortlist(ranked: Sequence[Ranked], count: int) -> list[Candidate]:
    """The candidates to test: those within budget, then the nearest misses, at most `count`; weight 1 / rank.

    At most `PER_TRIAL` of one training run: what is nearly the same mostly passes or fails together.
    """
    some = [r for place, r in enumerate(ranked) if _before(ranked, place) < PER_TRIAL]
    within = [r for r in some if r.excess <= 0]
    misses = [r for r in some if r.excess > 0][: NEAR_MISSES if within else NEAR_MISSES + 1]
    chosen = (within + misses)[:count]
    return [
        Candidate(r.line.config, r.line.method, dict(r.line.params), 1.0 / place)
        for place, r in enumerate(chosen, start=1)
    ]


def document(
    candidates: Sequence[Candidate], *, plan: str, losses: str, trials: int, queries: Mapping[str, str],
    order: Sequence[Sequence[str]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`seal.json`. order: (risk, unit, query) of every sealed query, where measuring may stop early."""
    listed = [{"config": c.config, "method": c.method, "params": c.params, "weight": c.weight} for c in candidates]
    return {
        "format": 1, "plan": plan, "search_losses": losses, "trials": trials,
        "candidates": listed, "calibration": dict(queries), "order": order and [list(row) for row in order],
    }  # fmt: skip


def question(seal: Mapping[str, Any], plan: str) -> str:
    """Digest of what a seal, made under a plan, asks of the calibration queries; the time it was made does not count."""
    return digest.of_json({"plan": plan, "seal": {key: value for key, value in seal.items() if key != "plan"}})


def _before(ranked: Sequence[Ranked], place: int) -> int:
    return sum(r.line.trial == ranked[place].line.trial for r in ranked[:place])


def _excess(sums: Mapping[str, tuple[int, int]], budget: Mapping[str, float]) -> float:
    return excess({risk: sums[risk][0] / (SCALE * sums[risk][1]) for risk in budget}, budget)


def _doubt(sums: Mapping[str, tuple[int, int]], budget: Mapping[str, float]) -> float:
    return max(p_value(*sums[risk], alpha) for risk, alpha in budget.items())


@cache
def p_value(total: int, count: int, alpha: float) -> float:
    """Hoeffding-Bentkus p-value of `count` losses that add up to `total` thousandths; kept, for ranks are taken often."""
    # any losses with this sum will do: the p-value is a function of the sum alone
    whole, rest = divmod(total, 1000)
    losses = np.zeros((1, count), dtype=np.int64)
    losses[0, :whole] = 1000
    losses[0, whole : whole + (rest > 0)] = rest
    return float(make(Bound, "hoeffding_bentkus").p_value(losses, alpha)[0])


def excess(means: Mapping[str, float], budget: Mapping[str, float]) -> float:
    """How far the worst risk lies above its budget, in units of the budget; below 0 where all are within."""
    return max(means[risk] / alpha for risk, alpha in budget.items()) - 1.0
