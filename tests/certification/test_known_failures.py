"""Seventeen ways in which public risk-control code is wrong (numbered as in RISK.md, section 2): froc shares none."""

import ast
import dataclasses
import math
from pathlib import Path

import guarantees
import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from froc.bounds import Bound, Losses
from froc.data.splits import SearchView, split
from froc.data.task import Task
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.loss_table import SCALE, check
from froc.plugins import make
from froc.procedures import certified
from froc.risk.certificate import certify, decide
from froc.risk.claim import Candidate, Claim
from tests.small_model import SMALL

FROC = Path(__file__).parents[2] / "froc"
REPEATS = 3000


def ones(n: int, *counts: int) -> Losses:
    """Rows with so many losses of 1 among n."""
    return (np.arange(n)[None, :] < np.array(counts)[:, None]).astype(np.int16) * SCALE


def at_most(rate: float, delta: float) -> bool:
    return rate <= delta + 4 * math.sqrt(delta * (1 - delta) / REPEATS)


def claim(bound: str = "binomial", unit: str = "query") -> Claim:
    return Claim({"forgetting": 0.1}, {"forgetting": bound}, {"forgetting": unit})


def test_1_no_certificate_is_computed_from_a_score() -> None:
    for name in (
        "risk/certificate",
        "risk/evidence",
        "risk/claim",
        "risk/weighted_sum",
        "risk/requirements",
        "procedures/__init__",
        "bounds/__init__",
    ):
        tree = ast.parse((FROC / f"{name}.py").read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        words = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        assert words
        assert not [word for word in words if "froc_score" in word]


def test_2_adding_a_configuration_changes_no_measured_number_of_another() -> None:
    row = decide({"forgetting": ones(200, 4)}, [Candidate("a", "", {}, 1.0)], claim())["candidates"][0]
    pair = [Candidate("a", "", {}, 1.0), Candidate("b", "", {}, 0.5)]
    two = decide({"forgetting": ones(200, 4, 200)}, pair, claim())["candidates"][0]
    assert (row["p_value"], row["empirical"]) == (two["p_value"], two["empirical"])
    assert row["cur"]["forgetting"]["pointwise"] == two["cur"]["forgetting"]["pointwise"]


def test_3_search_and_calibration_share_no_query(task: Task) -> None:
    view, sealed = split(task, 0.2)
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    for risk, queries_of_risk in view.queries.items():
        assert not {query.row for query in queries_of_risk} & {query.row for query in opened[risk]}
    assert {field.name for field in dataclasses.fields(SearchView)} == {
        "forget", "retain", "refusals", "queries", "template", "holdout", "earlier", "retrained",
    }  # fmt: skip


def test_4_adaptive_search_breaks_shared_queries_and_not_sealed_ones() -> None:
    result = guarantees.fwer(quick=True)
    assert all(promise["holds"] for promise in result.values()), result
    assert any(name.startswith("shared") for name in result)


def test_5_differences_below_zero_are_refused() -> None:
    for bad in (-0.001, -1.0, 1.0000001, math.nan):
        frame = pl.DataFrame({"config": ["a"], "risk": ["utility"], "query": ["q"], "loss": [bad]})
        with pytest.raises(InputError, match="row 1: loss is no number in"):
            check(frame)


@pytest.mark.parametrize(
    ("n", "k", "delta", "truth"), [(30, 20, 0.1, 0.8162), (50, 0, 0.0005, 0.1410), (2000, 0, 0.1, 0.00115)]
)
def test_6_bounds_are_solutions_and_not_starting_points(n: int, k: int, delta: float, truth: float) -> None:
    assert make(Bound, "hoeffding_bentkus").upper(ones(n, k), delta)[0] == pytest.approx(truth, abs=6e-5)


def test_7_zero_losses_are_the_best_evidence_and_not_nan() -> None:
    for name in ("hoeffding_kl", "hoeffding_bentkus", "binomial"):
        assert make(Bound, name).p_value(ones(100, 0, 100), 0.1).tolist() == pytest.approx([0.9**100, 1.0])
    with pytest.raises(InputError, match="not a number"):
        certified("holm", np.array([0.001, math.nan]), np.ones(2), 0.1)


def test_8_sums_are_rounded_up() -> None:
    rng = np.random.default_rng(8)
    losses = (rng.random((REPEATS, 100)) < 0.035 / 0.999).astype(np.int16) * 999
    assert at_most(float((make(Bound, "hoeffding_bentkus").upper(losses, 0.1) < 0.035).mean()), 0.1)


def test_9_float_noise_adds_no_loss() -> None:
    n = 100
    p = make(Bound, "bentkus").p_value(ones(n, *range(n + 1)), 0.3)
    assert p == pytest.approx(np.minimum(1, math.e * binom.cdf(np.arange(n + 1), n, 0.3)), rel=1e-9)
    mapies = make(Bound, "hoeffding_bentkus").p_value(ones(n, 28), 0.4)[0]
    assert mapies == pytest.approx(math.e * binom.cdf(28, n, 0.4), rel=1e-9)


def test_10_both_halves_of_the_bound_live() -> None:
    kl, bentkus, pair = (
        make(Bound, name).upper(ones(200, 0, 10), 0.1) for name in ("hoeffding_kl", "bentkus", "hoeffding_bentkus")
    )
    assert kl[0] < bentkus[0]
    assert bentkus[1] < kl[1]
    assert pair.tolist() == [kl[0], bentkus[1]]


def test_11_betting_is_one_sided() -> None:
    assert make(Bound, "betting").p_value(ones(200, 200), 0.1)[0] == 1.0


@pytest.mark.parametrize(("risk", "n"), [(0.1, 100), (0.1, 500), (0.5, 100)])
def test_12_betting_is_one_running_product(risk: float, n: int) -> None:
    losses = (np.random.default_rng(n).random((REPEATS, n)) < risk).astype(np.int16) * SCALE
    assert at_most(float((make(Bound, "betting").upper(losses, 0.1) < risk).mean()), 0.1)


@pytest.mark.parametrize("risk", [0.1, 0.5])
def test_13_bets_are_made_before_the_loss_is_seen(risk: float) -> None:
    losses = (np.random.default_rng(13).random((REPEATS, 200)) < risk).astype(np.int16) * SCALE
    assert at_most(float((make(Bound, "betting").p_value(losses, risk) <= 0.1).mean()), 0.1)


def test_14_the_order_of_testing_is_not_read_off_the_losses() -> None:
    """Both ends of the sequence are above budget; walking from the luckier end would err almost twice as often."""
    rng = np.random.default_rng(14)
    counts = rng.binomial(200, 0.101, (REPEATS, 2))
    p = binom.cdf(counts, 200, 0.1)
    assert at_most(float(np.mean([certified("fixed-sequence", row, np.ones(2), 0.1).any() for row in p])), 0.1)
    assert np.mean(p.min(axis=1) <= 0.1) > 0.13


def test_15_clusters_are_units() -> None:
    result = guarantees.clusters(quick=True)
    assert all(promise["holds"] for promise in result.values()), result
    rows = [("c", "forgetting", f"a{i % 10}", f"q{i}", 0.0) for i in range(200)]
    table = check(pl.DataFrame(rows, schema=["config", "risk", "unit", "query", "loss"], orient="row"))
    refused = certify(table, [Candidate("c", "", {}, 1.0)], claim("betting", "group"))
    assert refused["certified"] == []
    assert "10 group units of forgetting cannot certify this even at zero loss" in refused["reason"]


def test_16_truth_is_measured_on_queries_that_made_no_bound(task: Task) -> None:
    population = embedded_text.population(SMALL)
    for risk, rows in task.queries.items():
        assert len(population[risk]) > 2 * len(rows)
        assert not set(population[risk]) & {*task.forget, *task.retain}


def test_17_the_exact_test_refuses_losses_between() -> None:
    with pytest.raises(InputError, match="losses of 0 or 1"):
        decide({"forgetting": np.full((1, 50), 999, dtype=np.int16)}, [Candidate("c", "", {}, 1.0)], claim())
