"""Measuring the sealed candidates on the calibration queries: on all of them, or in rounds that may stop early."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from froc import procedures
from froc.bounds import Losses
from froc.data.task import Query
from froc.loss_table import place, prefixes
from froc.risk.claim import Candidate, Claim, Evidence, evidence_of_candidate, level, own_levels
from froc.risk.p_values import p_values
from froc.risk.requirements import resized
from froc.search.executors import Executor
from froc.search.trial.work import KeptWeights, Measure

Queries = Mapping[str, tuple[Query, ...]]
"""risk -> opened calibration queries."""
ROUNDS = 8
"""Number of rounds of a sequential claim; each restores every candidate's parameters once."""
EARLY = 2
"""Number of rounds before any candidate is given up."""


def measure(
    executor: Executor,
    queries: Queries,
    candidates: Sequence[Candidate],
    kept: Mapping[str, KeptWeights],
    done: Callable[[int, int], None],
    split: str = "calibration",
) -> pl.DataFrame:
    """The losses of every candidate on every query of a split. kept: config -> its parameters."""
    everywhere = {risk: range(len(of_risk)) for risk, of_risk in queries.items()}
    works = [Measure(split, candidate.config, kept[candidate.config], queries, everywhere) for candidate in candidates]
    tables: list[pl.DataFrame] = executor.each(works, lambda count: done(count, len(candidates)))
    return pl.concat(tables)


def measure_in_rounds(
    executor: Executor,
    queries: Queries,
    candidates: Sequence[Candidate],
    kept: Mapping[str, KeptWeights],
    claim: Claim,
    order: pl.DataFrame,
    done: Callable[[int, int], None],
) -> pl.DataFrame:
    """Calibration losses of each candidate on the first units of the sealed order, until it is certified or hopeless.

    Valid whenever it stops: each p-value is one over the largest capital of a bet that is fair if the risk is too
    large, and looking earlier can only show a smaller capital.
    """
    by_config: dict[str, list[pl.DataFrame]] = {candidate.config: [] for candidate in candidates}
    active = list(candidates)
    for number in range(ROUNDS):
        places = {risk: round_places(these, number, claim.unit[risk]) for risk, these in queries.items()}
        works = [
            Measure("calibration", candidate.config, kept[candidate.config], queries, places) for candidate in active
        ]
        for candidate, measured in zip(active, executor.each(works), strict=True):
            by_config[candidate.config].append(measured)
        table = pl.concat([table for tables in by_config.values() for table in tables])
        active = _undecided(table, candidates, active, claim, order, number + 1)
        done(number + 1, ROUNDS)
        if not active:
            done(ROUNDS, ROUNDS)
            break
    return table


def listed_search_losses(table: pl.DataFrame, candidates: Sequence[Candidate], claim: Claim) -> pl.DataFrame:
    """Search losses that belong to a claim about a listed population: those units are known, not sampled."""
    listed = [risk for risk in claim.risks if claim.kind(risk) != "queries"]
    names = [candidate.config for candidate in candidates]
    return table.filter(pl.col("config").is_in(names) & pl.col("risk").is_in(listed))


def round_places(queries: Sequence[Query], number: int, unit: str) -> list[int]:
    """Indices of the queries whose units are measured in a round."""
    keys = [query.id if unit == "query" else query.unit for query in queries]
    units = sorted(set(keys), key=place)
    first, last = len(units) * number // ROUNDS, len(units) * (number + 1) // ROUNDS
    wanted = set(units[first:last])
    return [i for i, key in enumerate(keys) if key in wanted]


def _undecided(
    table: pl.DataFrame,
    candidates: Sequence[Candidate],
    active: Sequence[Candidate],
    claim: Claim,
    order: pl.DataFrame,
    rounds: int,
) -> list[Candidate]:
    """Active candidates that are neither certified by the losses so far nor hopeless."""
    names = [candidate.config for candidate in candidates]
    evidence: dict[str, Evidence] = {}
    for risk in claim.risks:
        rows, planned = prefixes(
            table, order.filter(pl.col("risk") == risk), risk=risk, configs=names, unit=claim.unit[risk]
        )
        evidence[risk] = Evidence(rows, np.zeros(len(names), dtype=np.int64), 0, planned)
    weights = np.array([candidate.weight for candidate in candidates])
    own = own_levels(claim, weights)
    p = np.max([p_values(claim, risk, evidence, len(names), own=own) for risk in claim.budget], axis=0)
    passed = procedures.certified(claim.procedure, p, weights, level(claim))
    return [
        candidate
        for i, candidate in enumerate(candidates)
        if candidate in active
        and not passed[i]
        and not (
            rounds >= EARLY
            and _hopeless({r: evidence_of_candidate(e, i) for r, e in evidence.items()}, claim, len(names), own[i])
        )
    ]


def _hopeless(evidence: Mapping[str, Evidence], claim: Claim, candidates: int, own: float) -> bool:
    """Whether a candidate would not be certified at the whole level even if its remaining losses were half of those so far."""
    rest = {risk: replace(of_risk, losses=_twice_as_well(of_risk)) for risk, of_risk in evidence.items()}
    return any(p_values(claim, risk, rest, candidates, own=own)[0] > level(claim) for risk in claim.budget)


def _twice_as_well(evidence: Evidence) -> Losses:
    seen = np.asarray(evidence.losses)
    return np.concatenate([seen, resized(seen // 2, evidence.planned - seen.shape[1])], axis=1)
