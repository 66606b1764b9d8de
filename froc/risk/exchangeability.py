"""Tests whether calibration losses look exchangeable; their warnings never change a certificate. Torch-free.

A certificate assumes independent units. Two permutation tests per risk (MAPIE's, on each query's mean loss over candidates) look
for losses that are similar within units (clusters, for a claim about single queries), and for losses that drift along the order
of the ids. Both depend on the table alone, so that a verifier gets the same warnings. In a run's table units and queries have
keyed names without meaning; there the run passes their groups and positions.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from froc.bounds import FloatArray

TEST_LEVEL = 0.01
"""Level of each test: the probability of a warning if losses are exchangeable."""
PERMUTATIONS = 999
MAX_QUERIES = 20_000
"""Queries that are tested at most, evenly spaced among all."""


def warnings(
    frame: pl.DataFrame, *, risk: str, configs: Sequence[str], unit: str, positions: pl.DataFrame | None = None
) -> list[str]:
    """Warnings as sentences that name no query; empty where no test rejects.

    frame: a checked loss table, in any row order. unit: the claim's sampling unit, `query` or by group. positions: `query`,
    `unit` (its group) and `place` (in its file) of each query, where the table's own names tell neither.
    """
    rows = frame.filter(pl.col("risk") == risk, pl.col("split") == "calibration", pl.col("config").is_in(list(configs)))
    means = rows.group_by("query").agg(pl.col("unit").first(), pl.col("loss").mean().alias("score"))
    if len(means) < 3 or means["score"].n_unique() < 2:
        return []
    if positions is None:
        ids, order = means["query"].to_list(), "the order of the query ids"
        means = means[sorted(range(len(ids)), key=lambda i: natural(ids[i]))]
    else:
        means = means.drop("unit").join(positions, on="query").sort("place")
        order = "the order of the rows in their file"
    means = means.gather_every(-(-len(means) // MAX_QUERIES))
    scores = means["score"].to_numpy().astype(np.float64)
    findings = []
    groups = means["unit"].rank("dense").to_numpy().astype(np.int64) - 1
    if unit == "query" and 1 < groups.max() + 1 < len(groups) and _alike(scores.tobytes(), groups.tobytes()):
        findings.append(
            f"{risk}: queries of the same unit have losses that are alike (permutation test, level {TEST_LEVEL:g}); a claim "
            "that reaches beyond these units needs groups as the sampling unit, else its error may be far above its level"
        )
    if unit == "query" and _drifts(scores.tobytes()):
        findings.append(
            f"{risk}: losses drift along {order} (permutation test, level {TEST_LEVEL:g}); if that order "
            "has a meaning, such as time or topic, the queries are no random draw from one population"
        )
    return findings


@lru_cache(maxsize=32)
def _alike(scores: bytes, groups: bytes) -> bool:
    """By float64 scores and int64 groups; a certificate, its report and their verification ask the same of one table."""
    return rejects(np.frombuffer(scores), similarity_within(np.frombuffer(groups, np.int64)))


@lru_cache(maxsize=32)
def _drifts(scores: bytes) -> bool:
    return rejects(np.frombuffer(scores), drift)


def rejects(scores: FloatArray, statistic: Callable[[FloatArray], float]) -> bool:
    """Whether MAPIE's permutation test rejects exchangeability of (n,) scores at TEST_LEVEL.

    statistic: of scores in their order; large values speak against exchangeability.
    """
    from mapie.exchangeability_testing import PValuePermutationTest
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    # MAPIE scores |y - prediction|; a prediction of 0 gives the losses themselves
    nothing = DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((1, 1)), np.zeros(1))
    test = PValuePermutationTest(
        test_level=TEST_LEVEL, random_state=0, num_permutations=PERMUTATIONS, warn=False, task="regression",
        mapie_estimator=SplitConformalRegressor(nothing, prefit=True),
    )  # fmt: skip
    # equal arrangements must tie in spite of floating-point sums
    test.test_statistic = lambda values: float(f"{statistic(values):.12g}")
    return test.run(scores[:, None], scores).is_exchangeable is False


def drift(scores: FloatArray) -> float:
    """The largest difference between the means of (n,) scores before and after a place.

    MAPIE's statistic, vectorised, and scaled so that places near the ends are not favoured.
    """
    n = len(scores)
    before = np.arange(1, n)
    gap = scores.cumsum()[:-1] - before * scores.mean()
    return float(np.abs(gap / np.sqrt(before * (n - before))).max())


def similarity_within(groups: NDArray[np.int64]) -> Callable[[FloatArray], float]:
    """The sum of squares between groups as a statistic of (n,) scores: large where scores within groups are similar."""
    sizes = np.bincount(groups)

    def between(scores: FloatArray) -> float:
        sums = np.bincount(groups, weights=scores)
        return float((sums * sums / sizes).sum())

    return between


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts q2 before q10."""
    return [(int(part) if part.isdecimal() and len(part) < 19 else -1, part) for part in re.split(r"(\d+)", text)]
