"""Methods compared: intervals that hold together, fronts, budgets that could be met, tables."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from froc.comparison import tables
from froc.comparison.document import (
    BASE,
    BEFORE,
    compare,
    difference,
    front,
    hypervolume,
    interval,
    sentence,
    sentences,
)
from froc.data.task import FORGETTING, RISKS, UTILITY

METHODS = ("npo", "rmu", "simnpo", "grad_diff")
TRUTH = (0.10, 0.12, 0.12, 0.30)
"""Forgetting risk of each method; two of them are equal."""
UNIT = dict.fromkeys(RISKS, "query")


def _drawn(seed: int, n: int = 300) -> np.ndarray:
    """(4, n) thousandths: hard queries are hard for every method, means are TRUTH."""
    draw = np.random.default_rng(seed)
    hard = draw.beta(0.5, 0.5, n)
    return np.array([_spread(hard, mean, draw) for mean in TRUTH])


def _spread(hard: np.ndarray, mean: float, draw: np.random.Generator) -> np.ndarray:
    # E[min(1, 2 mean hard + noise)] = mean, since hard has mean one half and nothing is cut off
    losses: np.ndarray = np.round(1000 * (2 * mean * hard * draw.choice([0.5, 1.5], len(hard))))
    return losses.astype(np.int64)


def _seal(stages: dict[str, dict[str, str]], fronts: dict[str, list[str]]) -> dict[str, Any]:
    names = {name: method for values in (*stages.values(),) for method, name in values.items()}
    names |= {name: method for method, values in fronts.items() for name in values}
    listed = [{"config": BASE, "method": BASE, "params": {"mix": 0.0}, "weight": 1.0}]
    listed += [{"config": n, "method": m, "params": {"mix": 0.5}, "weight": 1.0} for n, m in names.items()]
    return {"candidates": listed, "stages": stages, "fronts": fronts}


def _table(losses: dict[str, dict[str, np.ndarray]]) -> pl.DataFrame:
    rows = [
        (config, risk, "m", "calibration", f"{risk}{i:04x}", f"{risk}{i:04x}", int(loss))
        for config, losses_of_risk in losses.items()
        for risk, values in losses_of_risk.items()
        for i, loss in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=["config", "risk", "metric", "split", "unit", "query", "loss"], orient="row")


def _case(seed: int = 0) -> tuple[pl.DataFrame, dict[str, Any]]:
    drawn = _drawn(seed)
    stage = {method: f"{method}@0.5000" for method in METHODS}
    losses = {BASE: {FORGETTING: np.full(300, 1000), UTILITY: np.zeros(300, dtype=int)}}
    losses |= {stage[m]: {FORGETTING: drawn[k], UTILITY: drawn[-1 - k]} for k, m in enumerate(METHODS)}
    return _table(losses), _seal({BEFORE: stage, "0.9": stage}, {m: [name] for m, name in stage.items()})


def test_differences_of_all_pairs_are_missed_together_no_more_often_than_said() -> None:
    delta, runs, pairs = 0.1, 200, [(i, j) for i in range(4) for j in range(i)]
    truth = np.array([TRUTH[i] - TRUTH[j] for i, j in pairs])
    missed, tied, expected = 0, 0, 0
    for seed in range(runs):
        drawn = _drawn(1000 + seed)
        first, second = (drawn[[pair[k] for pair in pairs]] for k in (0, 1))
        low, high = difference(first, second, delta / len(pairs))
        missed += bool(((truth < low) | (truth > high)).any())
        equal, far = pairs.index((2, 1)), pairs.index((3, 0))
        tied += bool(low[equal] <= 0 <= high[equal])
        expected += bool(low[far] > 0)
    assert missed <= delta * runs
    # and it is no empty promise: what differs is told apart, what does not is a tie
    assert expected == runs
    assert tied >= (1 - delta) * runs


def test_intervals_are_missed_no_more_often_than_said() -> None:
    draw = np.random.default_rng(5)
    low, high = interval((draw.random((2000, 80)) < 0.12).astype(float), 0.1)
    assert ((low > 0.12) | (high < 0.12)).mean() <= 0.1
    assert (high - low).mean() < 0.25


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_difference_turned_round_is_its_mirror(seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 1001, (2, 3, 40))
    low, high = difference(a, b, 0.1)
    mirrored = difference(b, a, 0.1)
    assert np.allclose(low, -mirrored[1])
    assert np.allclose(high, -mirrored[0])
    mean = (a - b).mean(axis=1) / 1000
    assert ((low <= mean) & (mean <= high)).all()


def test_a_method_and_itself_are_a_tie() -> None:
    same = np.full((1, 200), 300)
    low, high = difference(same, same, 0.01)
    assert low[0] < 0 < high[0]


@pytest.mark.parametrize(
    ("points", "area"),
    [([], 0.0), ([(0.0, 0.0)], 1.0), ([(1.0, 1.0)], 0.0), ([(0.2, 0.5)], 0.8 * 0.5),
     ([(0.2, 0.5), (0.6, 0.1)], 0.4 * 0.5 + 0.4 * 0.9), ([(0.2, 0.5), (0.3, 0.6)], 0.8 * 0.5)],
)  # fmt: skip
def test_hypervolume_is_the_area_behind_the_front(points: list[tuple[float, float]], area: float) -> None:
    assert math.isclose(hypervolume(points), area)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_a_front_has_the_area_of_all_points(points: list[tuple[float, float]]) -> None:
    kept = [points[k] for k in front(np.array(points))]
    assert kept
    assert math.isclose(hypervolume(kept), hypervolume(points), abs_tol=1e-12)
    assert not any(a[0] <= b[0] and a[1] <= b[1] and a != b for a in kept for b in kept)


def test_the_document_says_who_leaves_less() -> None:
    comparison = compare(*_case(), 0.1, UNIT)
    pairs = {(pair["one"], pair["other"]): pair for pair in comparison["pairs"]["0.9"]}
    assert len(pairs) == 6
    assert pairs["rmu", "simnpo"]["verdict"] == "tie"
    assert pairs["npo", "grad_diff"]["verdict"] == "npo"
    assert comparison["ranking"]["0.9"]["methods"][-1] == "grad_diff"
    assert comparison["base"] == {FORGETTING: 1.0, UTILITY: 0.0}
    for item in comparison["stages"]["0.9"].values():
        for risk in RISKS:
            assert item[risk]["lower"] <= item[risk]["mean"] <= item[risk]["upper"]
    for item in comparison["hypervolume"].values():
        assert item["lower"] <= item["mean"] <= item["upper"]


def test_the_document_depends_on_the_numbers_alone() -> None:
    table, seal = _case()
    assert compare(table, seal, 0.1, UNIT) == compare(table.sample(fraction=1.0, shuffle=True, seed=3), seal, 0.1, UNIT)


def test_more_stages_widen_every_interval() -> None:
    table, seal = _case()
    fewer = seal | {"stages": {"0.9": seal["stages"]["0.9"]}}
    wide, narrow = (compare(table, item, 0.1, UNIT)["pairs"]["0.9"] for item in (seal, fewer))
    assert all(w["lower"] < n["lower"] and w["upper"] > n["upper"] for w, n in zip(wide, narrow, strict=True))


def test_budgets_that_could_be_met_fall_as_utility_is_given_away() -> None:
    drawn = _drawn(0)
    names = ["npo@0.2000", "npo@0.6000", "npo@1.0000"]
    losses = {BASE: {FORGETTING: drawn[3], UTILITY: drawn[0]}}
    losses |= {n: {FORGETTING: drawn[3 - k], UTILITY: drawn[k]} for k, n in enumerate(names)}
    stage = {"npo": names[0], "rmu": names[1]}
    comparison = compare(_table(losses), _seal({BEFORE: stage}, {"npo": names, "rmu": names[1:2]}), 0.1, UNIT)
    steps = comparison["region"]["npo"]["steps"]
    assert all(a[0] <= b[0] and a[1] > b[1] for a, b in pairwise(steps))
    at = [item for item in comparison["region"]["npo"]["at"].values() if item is not None]
    assert at == sorted(at, reverse=True)
    bounds = {p["point"]: (p[UTILITY]["upper"], p[FORGETTING]["upper"]) for p in comparison["fronts"]["npo"]}
    assert all(tuple(step) in bounds.values() for step in steps)


def test_sentences_name_both_methods_and_no_sign_is_lost() -> None:
    options = {"one": "npo", "other": "rmu", "lower": -0.3, "upper": -0.1, "verdict": "npo"}
    assert sentence(options, "0.95") == (
        "At 95% retained performance: npo leaves 0.100 to 0.300 less of what was to be forgotten than rmu."
    )
    turned = {"one": "rmu", "other": "npo", "lower": 0.1, "upper": 0.3, "verdict": "npo"}
    assert sentence(turned, "0.95") == sentence(options, "0.95")
    tie = {"one": "npo", "other": "rmu", "lower": -0.02, "upper": 0.01, "verdict": "tie"}
    assert (
        sentence(tie, BEFORE)
        == "Before calibration: npo and rmu are a tie; the difference lies between -0.020 and +0.010."
    )
    comparison = compare(*_case(), 0.1, UNIT)
    assert len(sentences(comparison)) == 2 * (1 + 6)


def test_tables_have_a_line_per_method() -> None:
    result = compare(*_case(), 0.1, UNIT) | {
        "task": {"name": "a_task"}, "model": {"name": "m"}, "metrics": dict.fromkeys(RISKS, "extraction_strength"),
        "confidence": 0.9, "opening": {"statement": "first"},
    }  # fmt: skip
    head, body = tables.rows(result)
    assert [line[0] for line in body] == result["ranking"]["0.9"]["methods"]
    assert all(len(line) == len(head) for line in body)
    tex = tables.latex(result)
    assert tex.count(r"\\") == 1 + len(METHODS)
    assert r"grad\_diff" in tex
    assert "share at 90\\%" in tex
    markdown = tables.markdown(result)
    assert all(line in markdown for line in sentences(result))
