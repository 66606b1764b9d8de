"""Calibration in rounds: on how many queries each candidate is measured, with losses from a table instead of a model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from froc.bounds import betting
from froc.data.task import Query, Row
from froc.loss_table import SCALE, check, place
from froc.risk.certificate import Candidate
from froc.risk.claim import Claim, Evidence
from froc.search.sealed import calibration
from froc.search.trial.work import KeptWeights

N = 80
NAMES = sorted((f"q{i}" for i in range(N)), key=place)
"""Of queries, in the sealed order."""
QUERIES = {"r": tuple(Query(name, name, Row("question", "answer")) for name in NAMES)}
ORDER = pl.DataFrame({"risk": "r", "query": NAMES, "unit": NAMES})
CLAIM = Claim({"r": 0.3}, {"r": "betting"}, {"r": "query"}, procedure="bonferroni", sequential=True)
LOST = {"none": np.zeros(N), "all": np.ones(N), "near": np.arange(N) % 5 == 0}
"""Configuration -> which of the queries it loses, in the sealed order."""
WEIGHTS: dict[str, KeptWeights] = {name: Path(name) for name in LOST}
CANDIDATES = [Candidate(name, "", {}, 1.0) for name in LOST]


class Table:
    """An executor whose candidates have the losses of `LOST`. measured: configuration -> number of queries of each round."""

    def __init__(self) -> None:
        self.measured: dict[str, list[int]] = {name: [] for name in LOST}

    def each(self, works: Sequence[Any], done: Callable[[int], None] = lambda _: None) -> list[pl.DataFrame]:
        tables = []
        for number, work in enumerate(works, start=1):
            places = list(work.places["r"])
            self.measured[work.config].append(len(places))
            losses = [float(LOST[work.config][i]) for i in places]
            names = [work.queries["r"][i].id for i in places]
            tables.append(check(pl.DataFrame({"config": work.config, "risk": "r", "query": names, "loss": losses})))
            done(number)
        return tables


def p_of(name: str, count: int) -> float:
    """p-value of a configuration after its first `count` queries, at a third of the level for each of three."""
    return float(betting.p_value_from_losses(LOST[name][None, :count].astype(float), 0.3, 0.1 / 3, planned=N)[0])


def test_measuring_stops_where_a_candidate_is_certified_or_hopeless() -> None:
    executor: Any = Table()
    progress: list[tuple[int, int]] = []
    table = calibration.measure_in_rounds(
        executor, QUERIES, CANDIDATES, WEIGHTS, CLAIM, ORDER, lambda *at: progress.append(at)
    )
    rounds = {name: len(counts) for name, counts in executor.measured.items()}
    assert all(count == N // 8 for counts in executor.measured.values() for count in counts)
    # without a loss: until the p-value is a third of the level
    enough = next(k for k in range(1, 9) if p_of("none", N // 8 * k) <= 0.1 / 3)
    assert 1 < enough < 8
    # a candidate that loses a fifth stays longest, and none is given up in the first round
    assert (rounds["none"], rounds["all"]) == (enough, 2)
    assert max(enough, 2) < rounds["near"] <= 8
    assert progress[: rounds["near"]] == [(number, 8) for number in range(1, rounds["near"] + 1)]
    assert progress[-1] == (8, 8)
    lengths = dict(table.group_by("config").len().iter_rows())
    assert lengths == {name: N // 8 * count for name, count in rounds.items()}


def test_measuring_ends_with_its_last_candidate() -> None:
    """The progress then jumps to its end."""
    executor: Any = Table()
    progress: list[tuple[int, int]] = []
    lost = [candidate for candidate in CANDIDATES if candidate.config == "all"]
    calibration.measure_in_rounds(executor, QUERIES, lost, WEIGHTS, CLAIM, ORDER, lambda *at: progress.append(at))
    assert executor.measured["all"] == [N // 8] * 2
    assert progress == [(1, 8), (2, 8), (8, 8)]


def test_without_rounds_every_candidate_is_measured_on_every_query() -> None:
    executor: Any = Table()
    progress: list[tuple[int, int]] = []
    table = calibration.measure(executor, QUERIES, CANDIDATES, WEIGHTS, lambda *at: progress.append(at))
    assert executor.measured == {name: [N] for name in LOST}
    assert len(table) == 3 * N
    assert progress == [(1, 3), (2, 3), (3, 3)]


def test_a_candidate_is_hopeless_unless_losing_half_as_much_on_the_rest_would_do() -> None:
    """Losses of the rest are halved, in whole thousandths, rounded down; measured losses stay."""
    seen = np.array([[0, SCALE, 501]], dtype=np.int16)
    losses = np.asarray(calibration._twice_as_well(Evidence(seen, np.zeros(1, dtype=np.int64), 0, 12)))
    assert losses.shape == (1, 12)
    assert losses[0, :3].tolist() == seen[0].tolist()
    assert set(losses[0, 3:].tolist()) == {0, 250, 500}


def test_search_losses_count_for_risks_of_listed_populations_alone() -> None:
    rows = [(config, risk) for config in ("a", "b") for risk in ("listed", "drawn")]
    table = pl.DataFrame(rows, schema=["config", "risk"], orient="row")
    claim = Claim(
        {"listed": 0.1, "drawn": 0.1}, {"listed": "census", "drawn": "betting"}, {"listed": "query", "drawn": "query"},
        population={"listed": "census"},
    )  # fmt: skip
    kept = calibration.listed_search_losses(table, [Candidate("a", "", {}, 1.0)], claim)
    assert kept.rows() == [("a", "listed")]
