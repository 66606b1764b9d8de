"""Do the calibration losses look exchangeable? Advice beside a certificate, never part of it. Torch-free.

Every number of a certificate assumes independent units. Two ways in which a table shows that they are not are looked
for, one test per risk each, on the mean loss over candidates of every query: rows of the same unit that are alike
(clusters that a claim about single queries would pool), and losses that drift along the order of the ids. The tests
are MAPIE's permutation tests, fed the losses themselves as scores and the two statistics that see this. They are a function of the
table's content alone, so that whoever verifies gets the same advice. In a run's table units and queries have keyed names that
tell neither; there the run, which has the rows, hands over their groups and places, and shows the advice beside its certificate.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from froc.bounds import FloatArray

LEVEL = 0.01
"""Chance that a test warns of exchangeable losses."""
PERMUTATIONS = 999
MAX_QUERIES = 20_000
"""Queries that are tested; of more, evenly spaced ones."""


def warnings(
    frame: pl.DataFrame, *, risk: str, configs: Sequence[str], unit: str, positions: pl.DataFrame | None = None
) -> list[str]:
    """Findings in whole sentences, none where nothing was noticed. They name no query.

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
    if unit == "query" and 1 < groups.max() + 1 < len(groups) and rejects(scores, similarity_within(groups)):
        findings.append(
            f"{risk}: queries of the same unit have losses that are alike (permutation test, level {LEVEL:g}); a claim "
            "that reaches beyond these units needs groups as the sampling unit, else its error may be far above its level"
        )
    if unit == "query" and rejects(scores, drift):
        findings.append(
            f"{risk}: losses drift along {order} (permutation test, level {LEVEL:g}); if that order "
            "has a meaning, such as time or topic, the queries are no random draw from one population"
        )
    return findings


def rejects(scores: FloatArray, statistic: Callable[[FloatArray], float]) -> bool:
    """Whether MAPIE's permutation test rejects exchangeability of (n,) scores at LEVEL.

    statistic: large where the order of the scores is telling.
    """
    from mapie.exchangeability_testing import PValuePermutationTest
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    # MAPIE scores |y - prediction|: with 0 for a prediction, the losses themselves
    nothing = DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((1, 1)), np.zeros(1))
    test = PValuePermutationTest(
        test_level=LEVEL, random_state=0, num_permutations=PERMUTATIONS, warn=False, task="regression",
        mapie_estimator=SplitConformalRegressor(nothing, prefit=True),
    )  # fmt: skip
    # equal arrangements must count as ties, whatever order a float sum is taken in
    test.test_statistic = lambda values: float(f"{statistic(values):.12g}")
    return test.run(scores[:, None], scores).is_exchangeable is False


def drift(scores: FloatArray) -> float:
    """The largest difference between the means of (n,) scores before and after a place.

    It is MAPIE's own statistic, which takes seconds in its Python loop, weighted so that no end is favoured.
    """
    n = len(scores)
    before = np.arange(1, n)
    gap = scores.cumsum()[:-1] - before * scores.mean()
    return float(np.abs(gap / np.sqrt(before * (n - before))).max())


def similarity_within(groups: NDArray[np.int64]) -> Callable[[FloatArray], float]:
    """A statistic of (n,) scores that is large where scores of the same group are alike: the sum of squares between."""
    sizes = np.bincount(groups)

    def between(scores: FloatArray) -> float:
        sums = np.bincount(groups, weights=scores)
        return float((sums * sums / sizes).sum())

    return between


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts q2 before q10."""
    return [(int(part) if part.isdecimal() and len(part) < 19 else -1, part) for part in re.split(r"(\d+)", text)]
