"""Do plans hold? The power that `froc plan` says, against certificates of losses that are drawn without it.

    python benchmarks/planning.py [--quick]

Each setting draws losses from its own random numbers, certifies them as a user would, and counts how often the first
candidate is certified under every risk. The other candidates are far above budget. Goal: within three standard errors
of the difference. Every so often the same losses go through a loss table, so that the table's way is checked too.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from froc.loss_table import SCALE, check, quantise
from froc.planning.plan import Plan, plan
from froc.risk.certificate import certify, decide
from froc.risk.claim import Candidate, Claim

Array = np.ndarray[Any, np.dtype[Any]]
Draw = Callable[[np.random.Generator, int], Array]
"""(m, n) thousandths of units, for m configurations of which the first is good."""
BAD = 0.6
EVERY = 100
"""Repetitions from one loss table to the next."""


@dataclass(frozen=True)
class Setting:
    """What is planned, and how losses are drawn per risk."""

    name: str
    keywords: dict[str, Any]
    draws: dict[str, Draw]
    planned: Plan = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "planned", plan(dict(self.keywords.pop("budget")), **self.keywords))


def zero_one(risk: float, n: int) -> Draw:
    """Independent losses of 0 or 1."""
    return lambda rng, m: (rng.random((m, n)) < _risks(risk, m)).astype(np.int16) * SCALE


def beta(risk: float, deviation: float, n: int) -> Draw:
    """Independent beta losses, rounded up as measured ones are."""
    many = risk * (1 - risk) / deviation**2 - 1

    def draw(rng: np.random.Generator, m: int) -> Array:
        risks = _risks(risk, m)
        return quantise(rng.beta(risks * many, (1 - risks) * many, (m, n)))

    return draw


def clusters(risk: float, correlation: float, n: int, size: int) -> Draw:
    """Means of clusters with rates of their own."""
    many = (1 - correlation) / correlation

    def draw(rng: np.random.Generator, m: int) -> Array:
        rates = rng.beta(_risks(risk, m) * many, (1 - _risks(risk, m)) * many, (m, n))
        lost = rng.random((m, n, size)) < rates[:, :, None]
        thousandths: Array = np.ceil(lost.sum(axis=2) * SCALE / size - 1e-9)
        return thousandths.astype(np.int16)

    return draw


def part(risk: float, n: int, many: int) -> Draw:
    """0-1 losses of a list, measured in part."""

    def draw(rng: np.random.Generator, m: int) -> Array:
        everything = np.arange(many) < np.round(_risks(risk, m) * many)
        return rng.permuted(everything, axis=1)[:, :n].astype(np.int16) * SCALE

    return draw


def resampled(pool: Array, n: int) -> Draw:
    """Losses drawn with replacement from a pool; the bad ones lose."""

    def draw(rng: np.random.Generator, m: int) -> Array:
        losses = np.full((m, n), SCALE, dtype=np.int16)
        losses[0] = rng.choice(pool, n)
        return losses

    return draw


def _risks(risk: float, m: int) -> Array:
    return np.array([risk, *[BAD] * (m - 1)])[:, None]


def searched(pool: Array) -> pl.DataFrame:
    """A loss table whose search rows hold a pool, one configuration, and whose calibration rows must not matter."""
    rows = pl.DataFrame({"query": [f"q{i}" for i in range(len(pool))], "loss": pool})
    search = rows.with_columns(config=pl.lit("c0"), risk=pl.lit("forgetting"), split=pl.lit("search"))
    worst = search.with_columns(query="k" + pl.col("query"), split=pl.lit("calibration"), loss=pl.lit(SCALE, pl.Int16))
    return check(pl.concat([search, worst]), "thousandths")


def settings() -> list[Setting]:
    """Eleven of them, each with a power away from 0 and 1."""
    forgetting, two_risks = {"forgetting": 0.1}, {"forgetting": 0.1, "utility": 0.15}
    pool = quantise(np.random.default_rng(5).beta(0.3, 5.7, 80))
    return [
        Setting("binary, one candidate", {"budget": forgetting, "expected_risk": 0.05, "units": 120, "binary": True, "candidates": 1},
                {"forgetting": zero_one(0.05, 120)}),
        Setting("binary, ten, weighted Holm", {"budget": forgetting, "expected_risk": 0.04, "units": 150, "binary": True},
                {"forgetting": zero_one(0.04, 150)}),
        Setting("binary, two risks, other budgets",
                {"budget": two_risks, "expected_risk": {"forgetting": 0.04, "utility": 0.07}, "units": {"forgetting": 180, "utility": 120},
                 "binary": True},
                {"forgetting": zero_one(0.04, 180), "utility": zero_one(0.07, 120)}),
        Setting("binary, five, Holm, joint, two openings",
                {"budget": forgetting, "expected_risk": 0.03, "units": 200, "binary": True, "candidates": 5, "procedure": "holm",
                 "joint": True, "openings": 2}, {"forgetting": zero_one(0.03, 200)}),
        Setting("binary, ten, fixed sequence, radius 0.05",
                {"budget": forgetting, "expected_risk": 0.03, "units": 160, "binary": True, "procedure": "fixed-sequence", "radius": 0.05},
                {"forgetting": zero_one(0.03, 160)}),
        Setting("0-1 losses by betting, fallback", {"budget": forgetting, "expected_risk": 0.04, "units": 200, "procedure": "fallback"},
                {"forgetting": zero_one(0.04, 200)}),
        Setting("continuous, betting", {"budget": forgetting, "expected_risk": 0.07, "spread": 0.1, "units": 140},
                {"forgetting": beta(0.07, 0.1, 140)}),
        Setting("continuous, HB, Bonferroni",
                {"budget": forgetting, "expected_risk": 0.03, "spread": 0.06, "units": 100, "bound": "hoeffding_bentkus", "candidates": 5,
                 "procedure": "bonferroni"}, {"forgetting": beta(0.03, 0.06, 100)}),
        Setting("60 clusters of 10, correlation 0.3",
                {"budget": {"utility": 0.15}, "expected_risk": 0.05, "units": 600, "clusters": 60, "correlation": 0.3, "candidates": 3},
                {"utility": clusters(0.05, 0.3, 60, 10)}),
        Setting("150 of a list of 400", {"budget": forgetting, "expected_risk": 0.05, "units": 150, "binary": True, "population": "sample",
                                         "listed": 400}, {"forgetting": part(0.05, 150, 400)}),
        Setting("losses of 80 search queries", {"budget": forgetting, "losses": searched(pool), "units": 200, "candidates": 4},
                {"forgetting": resampled(np.append(pool, SCALE).astype(np.int16), 200)}),
    ]  # fmt: skip


def simulated(setting: Setting, repeats: int, seed: int) -> tuple[float, float]:
    """How often the first candidate is certified, and the standard error."""
    claim, m = setting.planned.claim, setting.planned.candidates
    candidates = [Candidate(f"c{i}", "", {}, 1 / (i + 1)) for i in range(m)]
    rng, passed = np.random.default_rng(seed), 0
    for number in range(repeats):
        losses = {risk: draw(rng, m) for risk, draw in setting.draws.items()}
        certified = decide(losses, candidates, claim)["certified"]
        if number % EVERY == 0 and all(claim.kind(risk) == "queries" for risk in losses):
            rowed, ordered = _table(losses)
            assert decide(ordered, candidates, claim)["certified"] == _by_query(claim, rowed, candidates)
        passed += "c0" in certified
    middle = (passed + 1) / (repeats + 2)
    return passed / repeats, math.sqrt(middle * (1 - middle) / repeats)


def _by_query(claim: Claim, table: pl.DataFrame, candidates: list[Candidate]) -> list[str]:
    return list(certify(table, candidates, claim)["certified"])


def _table(losses: dict[str, Array]) -> tuple[pl.DataFrame, dict[str, Array]]:
    """The same losses as a table with a row per unit, and as matrices in the order in which a table is read."""
    from froc.loss_table import matrix

    parts = [
        pl.DataFrame({"config": f"c{i}", "risk": risk, "query": [f"{risk}{q}" for q in range(len(row))], "loss": row})
        for risk, values in losses.items()
        for i, row in enumerate(values)
    ]
    table = check(pl.concat(parts), "thousandths")
    names = [f"c{i}" for i in range(len(next(iter(losses.values()))))]
    return table, {
        risk: matrix(table, risk=risk, split="calibration", configs=names, unit="query").values for risk in losses
    }


def compare(planned_settings: list[Setting], repeats: int) -> dict[str, dict[str, Any]]:
    """A promise per setting."""
    promises = {}
    print(f"{'setting':42} {'plan':>15} {'certificates':>15}   z   ({repeats} repetitions)")
    for place, setting in enumerate(planned_settings):
        probability = setting.planned.joint_probability
        assert probability is not None
        rate, error = simulated(setting, repeats, place + 1)
        z = (rate - probability[0].value) / math.hypot(error, probability[0].error)
        print(f"{setting.name:42} {probability[0]!s:>15} {rate:7.3f} ± {error:.3f} {z:+5.1f}", flush=True)
        promises[setting.name] = {"value": round(z, 2), "goal": "within 3", "holds": abs(z) <= 3}
    return promises


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(json.dumps(compare(settings(), 200 if quick else 2000)))


if __name__ == "__main__":
    main()
