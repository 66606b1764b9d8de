"""Warnings about losses that are no independent draws: how often they come, and when they must."""

import numpy as np
import polars as pl
import pytest

from froc.loss_table import check
from froc.risk import exchangeability
from froc.risk.certificate import Candidate, Claim, certify


def table(scores: np.ndarray, groups: np.ndarray) -> pl.DataFrame:
    """One configuration, queries q0, q1, ... in the order of the scores."""
    n = len(scores)
    return check(
        pl.DataFrame(
            {
                "config": ["c0"] * n, "risk": ["forgetting"] * n, "unit": [f"g{g}" for g in groups],
                "query": [f"q{i}" for i in range(n)], "loss": scores,
            }
        )
    )  # fmt: skip


def clustered(rng: np.random.Generator, icc: float, groups: int = 20, size: int = 20) -> pl.DataFrame:
    """0-1 losses of risk 0.3 whose units share their luck with intraclass correlation about `icc`."""
    luck = rng.random(groups) < 0.3
    shared = rng.random((groups, size)) < np.sqrt(icc)
    own = rng.random((groups, size)) < 0.3
    scores = np.where(shared, luck[:, None], own).astype(float)
    order = rng.permutation(groups * size)
    return table(scores.ravel()[order], np.repeat(np.arange(groups), size)[order])


def noticed(frame: pl.DataFrame, unit: str = "query") -> list[str]:
    return exchangeability.warnings(frame, risk="forgetting", configs=["c0"], unit=unit)


@pytest.mark.slow
def test_independent_losses_rarely_warn() -> None:
    rng = np.random.default_rng(0)
    count = sum(len(noticed(clustered(rng, 0.0))) for _ in range(60))
    # two tests at 1 % each: more than 6 of 120 happen once in 3,000 such series
    assert count <= 6


def test_clusters_are_noticed_and_groups_as_units_are_not_blamed() -> None:
    rng = np.random.default_rng(1)
    frames = [clustered(rng, 0.5) for _ in range(20)]
    assert sum(any("alike" in line for line in noticed(frame)) for frame in frames) >= 19
    assert all(noticed(frame, "group") == [] for frame in frames)


def test_drift_is_noticed_in_natural_order_whatever_the_rows_order() -> None:
    rng = np.random.default_rng(2)
    n = 400
    frame = table((rng.random(n) < np.linspace(0.05, 0.5, n)).astype(float), np.arange(n))
    wanted = noticed(frame)
    assert len(wanted) == 1
    assert "drift" in wanted[0]
    assert noticed(frame.sample(fraction=1, shuffle=True, seed=5)) == wanted
    assert not any(f"q{i}" in wanted[0] for i in range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_little_or_equal_losses_say_nothing(n: int) -> None:
    assert noticed(table(np.zeros(n), np.arange(n))) == []
    assert noticed(table(np.ones(n), np.zeros(n, dtype=int))) == []
    if n <= 2:
        assert noticed(table(np.linspace(0, 1, n), np.arange(n))) == []


def test_natural_order() -> None:
    assert sorted(["q10", "q2", "a", "q2b", "7"], key=exchangeability.natural) == ["7", "a", "q2", "q2b", "q10"]


def test_a_warning_stands_in_the_certificate_and_changes_no_number() -> None:
    frame = clustered(np.random.default_rng(3), 0.5)
    tested_claim = Claim({"forgetting": 0.4}, {"forgetting": "binomial"}, {"forgetting": "query"})
    certificate = certify(frame, [Candidate("c0", "", {}, 1.0)], tested_claim)
    assert len(certificate["warnings"]) == 1
    relabelled = certify(frame.with_columns(unit=pl.col("query")), [Candidate("c0", "", {}, 1.0)], tested_claim)
    assert relabelled["warnings"] == []
    assert certificate["candidates"] == relabelled["candidates"]
