"""Search losses -> candidates in testing order, recorded before any calibration loss exists."""

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from froc import hashing
from froc.bounds import Bound
from froc.loss_table import SCALE
from froc.plugins import make
from froc.risk.certificate import Candidate
from froc.search.run_folder import TrialRecord

NEAR_MISSES = 2
"""Number of candidates above a budget on the search queries that are tested if there is room."""
PER_TRIAL = 2
"""Largest number of candidates from one training run."""
IMPLAUSIBLE = 0.01
"""Search losses with at most this probability under a risk within budget are no near miss."""

Sums = dict[str, dict[str, tuple[int, int]]]
"""config -> risk -> (sum of search losses in thousandths, number of queries)."""


@dataclass(frozen=True)
class Ranked:
    """A configuration with its ranking values.

    search_p_value: largest search p-value over the risks.
    excess: see `excess`.
    totals: its sums of losses.
    """

    record: TrialRecord
    search_p_value: float
    excess: float
    totals: tuple[int, ...] = ()


@dataclass(frozen=True)
class Leaderboard:
    """Configurations measured under every budgeted risk, best first; everything in a run that ranks uses this order.

    Those within budget come first, the likeliest to be feasible before the others, then the nearest misses. A
    configuration never precedes one that has smaller losses under every risk: its p-values are larger.

    budget: risk -> budget that ranks.
    count: largest number of tested configurations.
    """

    budget: Mapping[str, float]
    count: int
    ranked: tuple[Ranked, ...] = ()

    def with_trials(
        self, log: Sequence[TrialRecord], sums: Mapping[str, Mapping[str, tuple[int, int]]]
    ) -> "Leaderboard":
        """The leaderboard with the configurations of further complete trials. sums: see `Sums`."""
        added = [
            Ranked(
                configuration, _search_p_value(totals, self.budget), _excess(totals, self.budget),
                tuple(totals[risk][0] for risk in self.budget),
            )
            for record in log
            if record.status == "complete" and record.search
            for configuration in record.configurations()
            if self.budget.keys() <= (totals := sums.get(configuration.config, {})).keys()
        ]  # fmt: skip
        ranked = list(self.ranked)
        for configuration in added:
            insort(ranked, configuration, key=_order)
        return replace(self, ranked=tuple(ranked))

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates if the search ended now: those within budget, then the nearest misses; weight 1 / rank."""
        return [
            Candidate(r.record.config, r.record.method, dict(r.record.params), 1.0 / place)
            for place, r in enumerate(_shortlist(self.ranked, self.count), start=1)
        ]

    @property
    def shortened(self) -> "Leaderboard":
        """The leaderboard without configurations that would not be tested."""
        return replace(self, ranked=tuple(_shortlist(self.ranked, self.count)))


def _order(ranked: Ranked) -> tuple[float, ...]:
    """Sorts a leaderboard: those within budget by their p-value, then the others by their excess; of equals the earlier trial."""
    if ranked.excess <= 0:
        return 0, ranked.search_p_value, ranked.excess, ranked.record.trial
    return 1, ranked.excess, ranked.record.trial


def _shortlist(ranked: Sequence[Ranked], count: int) -> list[Ranked]:
    """At most `PER_TRIAL` per training run, since its similar configurations mostly pass or fail together.

    Reads no further down than the last one that it takes: a long history costs nothing.
    """
    shortlist: list[Ranked] = []
    of_trial: Counter[int] = Counter()
    misses, within = 0, False
    for candidate in _distinct(ranked):
        missed = candidate.excess > 0
        within = within or not missed
        if len(shortlist) == count or (missed and misses == NEAR_MISSES + (not within)):
            break
        of_trial[candidate.record.trial] += 1
        if of_trial[candidate.record.trial] <= PER_TRIAL:
            shortlist.append(candidate)
            misses += missed
    return shortlist


def sums(table: pl.DataFrame) -> Sums:
    """The sums of a loss table."""
    totals: Sums = {}
    grouped = table.group_by("config", "risk").agg(pl.col("loss").cast(pl.Int64).sum(), pl.len().alias("n"))
    for config, risk, total, count in grouped.iter_rows():
        totals.setdefault(config, {})[risk] = total, count
    return totals


def document(
    candidates: Sequence[Candidate], *, plan: str, losses: str, trials: int, queries: Mapping[str, str],
    order: Sequence[Sequence[str]] | None = None, base: str | None = None, files: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`seal.json`.

    order: (risk, unit, query) of every sealed query, where measuring may stop early.
    base: digest of the base model's weights, where the candidates' are known, too.
    files: file name -> digest of the files that will lie beside the chosen weights.
    """
    listed = [
        {"config": c.config, "method": c.method, "params": c.params, "weight": c.weight}
        | ({} if c.weights_digest is None else {"weights_digest": c.weights_digest})
        for c in candidates
    ]
    return {
        "format": 1, "plan": plan, "search_losses": losses, "trials": trials,
        "candidates": listed, "calibration": dict(queries), "order": order and [list(row) for row in order],
        **({} if base is None else {"base_weights_digest": base}),
        **({} if files is None else {"model_files": dict(files)}),
    }  # fmt: skip


def question(seal: Mapping[str, Any], plan: str) -> str:
    """Digest of what a seal asks of the calibration queries, under a plan of this identity; its time does not count."""
    return hashing.sha256_json({"plan": plan, "seal": {key: value for key, value in seal.items() if key != "plan"}})


def worth_opening(
    sums: Sequence[Mapping[str, tuple[int, int]]], budget: Mapping[str, float], units: Mapping[str, int]
) -> bool:
    """Whether any candidate's search losses are plausible under risks that are all within budget.

    sums: of each candidate.
    units: risk -> search units.

    Opening calibration queries spends them. Candidates clearly above a budget on search queries, where selection makes
    them look better than they are, would not pass.
    """
    return any(
        all(_plausible(*of_candidate[risk], units[risk], alpha) for risk, alpha in budget.items())
        for of_candidate in sums
    )


def _plausible(total: int, count: int, units: int, alpha: float) -> bool:
    # queries of one group are dependent, so only units count
    lost = min(SCALE * units, round(total * units / count))
    return p_value(SCALE * units - lost, units, 1.0 - alpha) > IMPLAUSIBLE


def _distinct(ranked: Sequence[Ranked]) -> Iterator[Ranked]:
    """Without stops and mixes whose loss sums equal those of an earlier one of the same training run."""
    known: set[tuple[int, tuple[int, ...]]] = set()
    for r in ranked:
        key = r.record.trial, r.totals
        if not r.totals or key not in known:
            yield r
        known.add(key)


def _excess(sums: Mapping[str, tuple[int, int]], budget: Mapping[str, float]) -> float:
    return excess({risk: sums[risk][0] / (SCALE * sums[risk][1]) for risk in budget}, budget)


def _search_p_value(sums: Mapping[str, tuple[int, int]], budget: Mapping[str, float]) -> float:
    return max(p_value(*sums[risk], alpha) for risk, alpha in budget.items())


@cache
def p_value(total: int, count: int, alpha: float) -> float:
    """Hoeffding-Bentkus p-value of `count` losses that sum to `total` thousandths; cached, since ranking is frequent."""
    # the p-value depends on the losses' sum only, so any losses with this sum will do
    whole, rest = divmod(total, 1000)
    losses = np.zeros((1, count), dtype=np.int64)
    losses[0, :whole] = 1000
    losses[0, whole : whole + (rest > 0)] = rest
    return float(make(Bound, "hoeffding_bentkus").p_value(losses, alpha)[0])


def excess(means: Mapping[str, float], budget: Mapping[str, float]) -> float:
    """By how much the worst risk exceeds its budget, in units of the budget; negative where all are within.

    >>> round(excess({"forgetting": 0.12, "utility": 0.05}, {"forgetting": 0.1, "utility": 0.1}), 3)
    0.2
    """
    return max(means[risk] / alpha for risk, alpha in budget.items()) - 1.0
