"""When a search may stop: the chance of a certificate, from search losses alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from froc.data.task import FORGETTING, UTILITY
from froc.models.base import Base
from froc.risk.certificate import Candidate, certify
from froc.risk.claim import Claim
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.sealed.forecast import STOP_PROBABILITY, certification_probability
from tests.search.small_search import Watch, job

CLAIM = Claim(
    budget={FORGETTING: 0.1, UTILITY: 0.1}, bound={FORGETTING: "hoeffding_bentkus", UTILITY: "hoeffding_bentkus"},
    unit={FORGETTING: "query", UTILITY: "query"},
)  # fmt: skip
UNITS = {FORGETTING: 400, UTILITY: 400}


CANDIDATES = [Candidate(f"c{place:04d}", "npo", {}, 1.0 / (place + 1)) for place in range(5)]


def table(share: float, queries: int, others: float = 1.0) -> pl.DataFrame:
    """0-1 losses of both risks, of c0000 with a share of ones and of the other candidates with `others`."""
    parts = [
        pl.DataFrame(
            {
                "config": [candidate.config] * queries, "risk": [risk] * queries, "split": ["search"] * queries,
                "unit": [f"{i:016x}" for i in range(queries)], "query": [f"{i:016x}" for i in range(queries)],
                "loss": pl.Series(np.where(np.arange(queries) < ones * queries, 1000, 0), dtype=pl.Int16),
            }
        )
        for candidate, ones in zip(CANDIDATES, [share, *[others] * 4], strict=True)
        for risk in (FORGETTING, UTILITY)
    ]  # fmt: skip
    return pl.concat(parts)


def of_first(queries: int) -> pl.DataFrame:
    """Losses of zero of the first candidate."""
    return table(0.0, queries).filter(pl.col("config") == "c0000")


def test_more_loss_is_less_chance() -> None:
    chances = [
        certification_probability(table(share, 200), CANDIDATES, CLAIM, UNITS) for share in (0.0, 0.04, 0.06, 0.1, 0.5)
    ]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.99
    assert chances[-1] == 0.0


def test_few_search_queries_are_not_certainty() -> None:
    """Ten queries without a loss are compatible with a tenth of losses."""
    assert certification_probability(table(0.0, 10), CANDIDATES, CLAIM, UNITS) < 0.7
    assert certification_probability(table(0.0, 10), CANDIDATES, CLAIM, UNITS) < certification_probability(
        table(0.0, 300), CANDIDATES, CLAIM, UNITS
    )


def test_each_simulated_unit_is_drawn_from_the_simulated_population(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit is at the population's first place, which holds the last of the searched losses: lost under `a`, kept under `b`."""

    def simulated(
        _draw: object, _seen: int, units: int, repeats: int
    ) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]], ...]:
        return np.tile([199, 0], (repeats, 1)), np.zeros((repeats, units), dtype=np.int64)

    monkeypatch.setattr("froc.search.sealed.forecast.simulate_calibration", simulated)
    half = table(0.5, 200)
    assert certification_probability(half, CANDIDATES[:1], CLAIM, UNITS) == 1.0
    turned = half.with_columns(loss=1000 - pl.col("loss"))
    assert certification_probability(turned, CANDIDATES[:1], CLAIM, UNITS) == 0.0


def test_every_candidate_counts_in_its_place() -> None:
    """Where the first is hopeless the others are tested at their own smaller levels; where all pass, any is enough."""
    alone = certification_probability(table(0.05, 200), CANDIDATES[:1], CLAIM, UNITS)
    second = certification_probability(table(1.0, 200, others=0.05), CANDIDATES[:2], CLAIM, UNITS)
    assert 0 < second < alone
    assert certification_probability(table(1.0, 200, others=0.0), CANDIDATES, CLAIM, UNITS) > 0.95


def test_more_hopeless_candidates_are_less_chance() -> None:
    few, many = (certification_probability(table(0.05, 200), CANDIDATES[:count], CLAIM, UNITS) for count in (1, 5))
    assert few > many


def test_a_chance_is_a_share_of_a_hundred_calibrations() -> None:
    chance = 100 * certification_probability(table(0.06, 200), CANDIDATES, CLAIM, UNITS)
    assert 0 < round(chance) < 100
    assert chance == pytest.approx(round(chance), abs=1e-9)


def test_where_it_says_likely_a_certificate_follows() -> None:
    """True means anywhere around the budget: of those that the search calls likely, at least that share passes."""
    draw = np.random.default_rng(0)
    likely, passed = 0, 0
    for _ in range(150):
        share = draw.uniform(0.0, 0.12)
        searched = of_first(150).with_columns(loss=pl.Series((draw.random(300) < share) * 1000, dtype=pl.Int16))
        if certification_probability(searched, CANDIDATES[:1], CLAIM, UNITS) < STOP_PROBABILITY:
            continue
        fresh = of_first(400).with_columns(loss=pl.Series((draw.random(800) < share) * 1000, dtype=pl.Int16))
        certificate = certify(
            fresh.with_columns(split=pl.lit("calibration")), [Candidate("c0000", "npo", {}, 1.0)], CLAIM
        )
        likely, passed = likely + 1, passed + bool(certificate["certified"])
    assert likely > 20
    assert passed / likely >= STOP_PROBABILITY


def test_a_search_until_certified_ends_early(base: Base, tmp_path: Path) -> None:
    made = job(base, trials=40, until="certified")
    certificate = run(made, tmp_path / "run", Watch())
    started = len(Folder(tmp_path / "run").log())
    assert started < 30
    assert certificate["chosen"]
    assert "(likely)" in (tmp_path / "run" / "run.log").read_text()
    # it is part of the plan: the same folder does not go on under another rule
    with pytest.raises(Exception, match=r"search\.until differs"):
        run(replace(made, settings=replace(made.settings, until="trials")), tmp_path / "run", Watch())
