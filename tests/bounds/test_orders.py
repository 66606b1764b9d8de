"""Bounds that no order enters, and what `froc certify` takes on a user's table: no name of a query changes a p-value."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from froc.bounds import Bound, betting, betting_over_orders
from froc.certification.certify import certify
from froc.loss_table import SCALE
from froc.plugins import find, make
from tests.bounds.test_bound_coverage import LAWS
from tests.bounds.test_bounds import SHUFFLED, counts


@pytest.mark.parametrize("n", [20, 60, 150])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_mean_capital_over_orders_has_expectation_at_most_one(n: int, alpha: float) -> None:
    """Exactly, for 0-1 losses, but for the draw of 16 orders for every number of ones: four standard errors of that."""
    k = np.arange(n + 1)
    chance = binom.pmf(k, n, alpha)
    bound = make(Bound, "betting_over_orders")
    rng = np.random.default_rng(0)
    alone = np.array(
        [
            [betting.e_value_from_losses(rng.permuted(row[None, :] / SCALE, axis=1), alpha, 0.1)[0] for _ in range(40)]
            for row in counts(n)
        ]
    )
    error = math.sqrt(float((chance**2 * alone.var(axis=1)).sum()) / betting_over_orders.MAX_ORDERS)
    assert chance @ bound.e_value(counts(n), alpha) <= 1 + 4 * error


def test_a_mean_of_running_maxima_is_no_e_value() -> None:
    """Why the final capital is averaged: at risk alpha itself the largest capital has an expectation far above 1."""
    rng, repeats = np.random.default_rng(4), 20_000
    losses = np.asarray(LAWS["rare"](rng, (repeats, 60)), dtype=np.int64)
    assert (1 / make(Bound, "betting").p_value(losses, 0.1)).mean() > 1.3
    e = make(Bound, "betting").e_value(losses, 0.1)
    assert e.mean() <= 1 + 4 * e.std() / math.sqrt(repeats)


@pytest.mark.parametrize("name", SHUFFLED)
def test_orders_hang_on_the_losses_alone(name: str) -> None:
    """Every order of the columns, and every company of other rows, gives the same bits; betting's own p-values differ."""
    rng = np.random.default_rng(3)
    row = np.asarray(LAWS["skewed"](rng, (1, 200)), dtype=np.int64)
    many = rng.permuted(np.repeat(row, 30, axis=0), axis=1)
    made = make(Bound, name, {"population": 400} if find(Bound, name).finite else {})
    assert len(set(made.p_value(many, 0.12))) == 1
    assert len(set(made.upper(many, 0.1))) == 1
    assert made.p_value(many, 0.12)[0] == made.p_value(row, 0.12)[0]
    assert len(set(make(Bound, "betting").p_value(many, 0.12))) > 10


def test_a_tenth_of_the_capital_bets_constantly_and_costs_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never below nine tenths of the ordered gamblers' capital, nor a tenth of the others'; far above where losses are alike."""
    rng = np.random.default_rng(2)
    bound, steady = make(Bound, "betting_over_orders"), make(Bound, "mixture")
    alike = np.ceil(SCALE * rng.normal(0.95, 0.01, (20, 200)).clip(0, 1)).astype(np.int64)
    wide: dict[float, Any] = {}
    p: dict[float, dict[str, Any]] = {}
    for share in (1e-12, betting_over_orders.CONSTANT_BETS_FRACTION):
        monkeypatch.setattr(betting_over_orders, "CONSTANT_BETS_FRACTION", share)
        wide[share], p[share] = bound.upper(alike, 0.1) - alike.mean(axis=1) / SCALE, {}
        for law, draw in LAWS.items():
            losses = np.asarray(draw(np.random.default_rng(7), (30, 200)), dtype=np.int64)
            p[share][law] = bound.e_value(losses, 0.12)
            if share > 1e-6:
                assert (p[share][law] >= 0.9 * p[1e-12][law] * (1 - 1e-9)).all()
                assert (p[share][law] >= 0.1 * steady.e_value(losses, 0.12) * (1 - 1e-9)).all()
    assert (wide[betting_over_orders.CONSTANT_BETS_FRACTION] < 0.3 * wide[1e-12]).all()


# --- on a user's table


def table(losses: np.ndarray, names: list[str], units: list[str] | None = None) -> pl.DataFrame:
    """One configuration with these losses of queries called so."""
    frame = pl.DataFrame({"config": "c", "risk": "forgetting", "query": names, "loss": losses})
    return frame if units is None else frame.with_columns(unit=pl.Series(units))


def p_of(frame: pl.DataFrame, **more: Any) -> float:
    return float(certify(frame, 0.1, **more).document["candidates"][0]["p_value"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [{}, {"unit": "group"}, {"population": {"forgetting": "sample"}, "listed": {"forgetting": 900}}]
)
def test_no_naming_changes_a_p_value(more: dict[str, Any]) -> None:
    """Namings and orders of the same 200 losses: betting's p-values spread over twenty, the default's are one over eight."""
    rng = np.random.default_rng(0)
    losses = (rng.random(200) < 0.07).astype(float)
    result, ordered = set(), set()
    for naming in range(20):
        order = rng.permutation(200)
        units = [f"{naming}u{i // 2}" for i in range(200)] if more.get("unit") else None
        names = [f"{naming}-{i}" for i in range(200)]
        kept = order if units is None else order.reshape(-1)
        pairs = losses.reshape(-1, 2)[rng.permutation(100)].reshape(-1) if units else losses[kept]
        frame = table(pairs, names, units)[rng.permutation(200)]
        if naming < 8:
            result.add(p_of(frame, **more))
        bound = "betting_without_replacement" if "population" in more else "betting"
        ordered.add(p_of(frame, bound=bound, **more))
    assert len(result) == 1
    assert len(ordered) > 10


def test_the_default_is_free_of_order_and_another_choice_is_marked() -> None:
    losses = np.tile([0.0, 0.1], 60)
    frame = table(losses, [f"q{i}" for i in range(120)])
    for more in ({}, {"binary": True}, {"unit": "group"}, {"procedure": "e-bh"}):
        data = frame if "binary" not in more else frame.with_columns(loss=pl.lit(0.0))
        bound = certify(data, 0.3, **more).document["bound"]["forgetting"]
        assert find(Bound, bound).order_free, more
    assert not any("order of units" in line for line in certify(frame, 0.3).document["warnings"])
    assert any("order of units" in line for line in certify(frame, 0.3, bound="betting").document["warnings"])


@pytest.mark.slow
def test_the_best_of_twenty_namings_is_no_better_than_one() -> None:
    """At a risk of the budget itself: certified in at most the stated share of tables, however they are named."""
    rng = np.random.default_rng(5)
    repeats, wrong = 300, 0
    for _ in range(repeats):
        losses = (rng.random(150) < 0.1).astype(np.int16) * SCALE
        values = np.stack([rng.permutation(losses) for _ in range(20)])
        p = make(Bound, "betting_over_orders").p_value(values, 0.1)
        wrong += bool(p.min() <= 0.1)
    assert wrong / repeats <= 0.1 + 4 * math.sqrt(0.09 / repeats)


# --- a run's own losses


RUN = Path(__file__).parents[1] / "data" / "run-2026-11"


def test_a_further_look_at_a_runs_own_queries_is_marked() -> None:
    """At another budget or confidence; the question that the run asked is no further look."""
    path = RUN / "losses" / "calibration.parquet"
    run = json.loads((RUN / "certificate.json").read_text(encoding="utf-8"))
    same = run["budget"]
    assert not any(
        "further look" in line for line in certify(path, same, confidence=run["confidence"]).document["warnings"]
    )
    second = {risk: alpha / 2 for risk, alpha in same.items()}
    for budget, confidence in ((second, run["confidence"]), (same, 0.5)):
        first = certify(path, budget, confidence=confidence).document["warnings"][0]
        assert first.startswith("these queries were opened for ")
        assert "further look" in first
