"""Search losses put configurations in order: p-values, excess and places, worked out by hand."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from froc import hashing
from froc.configuration_id import ConfigurationId
from froc.risk.certificate import Candidate
from froc.search.run_folder import TrialRecord
from froc.search.sealed import ranking
from froc.search.sealed.ranking import Leaderboard

BUDGET = {"forgetting": 0.1, "utility": 0.2}


def test_the_excess_is_of_the_worst_risk_over_its_budget() -> None:
    """Sums are in thousandths: 24 losses of 200 are 0.12, and 25 of 100 are 0.25."""
    assert ranking._excess({"forgetting": (24_000, 200), "utility": (10_000, 100)}, BUDGET) == pytest.approx(0.2)
    assert ranking._excess({"forgetting": (24_000, 200), "utility": (25_000, 100)}, BUDGET) == pytest.approx(0.25)
    assert ranking._excess({"forgetting": (1_000, 100), "utility": (5_000, 100)}, BUDGET) == pytest.approx(-0.75)


def test_a_p_value_is_of_the_sum_of_losses() -> None:
    """Without a loss it is (1 - alpha)^n; for 0.025 on average, Hoeffding's part is the smaller."""
    assert ranking.p_value(0, 100, 0.1) == pytest.approx(0.9**100)
    divergence = 0.025 * math.log(0.025 / 0.1) + 0.975 * math.log(0.975 / 0.9)
    assert ranking.p_value(2_500, 100, 0.1) == pytest.approx(math.exp(-100 * divergence))
    below, above = {"forgetting": (0, 100), "utility": (0, 10)}, {"forgetting": (0, 10), "utility": (0, 100)}
    assert ranking._search_p_value(below, BUDGET) == pytest.approx(0.8**10)
    assert ranking._search_p_value(above, BUDGET) == pytest.approx(0.9**10)


@pytest.mark.parametrize(
    ("total", "count", "units", "plausible"),
    [
        # all lost: the chance of that is 0.1 for a unit, and 0.001 for three, however many queries they have
        (6_000, 6, 1, True), (6_000, 6, 3, False), (1_000, 1, 3, False),
        # half lost in two units: exp(-2 kl(0.5, 0.9)) = 0.36
        (3_000, 6, 2, True), (0, 6, 30, True),
    ],
)  # fmt: skip
def test_losses_far_above_the_budget_are_implausible(total: int, count: int, units: int, plausible: bool) -> None:
    assert ranking._plausible(total, count, units, 0.1) == plausible


@pytest.mark.parametrize(("alpha", "plausible"), [(0.09, False), (0.11, True)])
def test_a_chance_of_a_hundredth_is_the_least_that_is_plausible(alpha: float, plausible: bool) -> None:
    """Both of two units lost: 0.0081 and 0.0121."""
    assert ranking._plausible(2_000, 2, 2, alpha) == plausible


def test_calibration_is_worth_opening_for_a_candidate_that_is_plausible_under_every_risk() -> None:
    low, high = (0, 30), (30_000, 30)
    units = dict.fromkeys(BUDGET, 30)
    assert not ranking.worth_opening([], BUDGET, units)
    assert not ranking.worth_opening(
        [{"forgetting": low, "utility": high}, {"forgetting": high, "utility": low}], BUDGET, units
    )
    assert ranking.worth_opening(
        [{"forgetting": high, "utility": high}, {"forgetting": low, "utility": low}], BUDGET, units
    )


def test_sums_are_by_configuration_and_risk() -> None:
    rows = [("a", "forgetting", 7), ("a", "forgetting", 5), ("a", "utility", 1), ("b", "utility", 1000)]
    table = pl.DataFrame(rows, schema={"config": pl.String, "risk": pl.String, "loss": pl.Int16}, orient="row")
    assert ranking.sums(table) == {"a": {"forgetting": (12, 2), "utility": (1, 1)}, "b": {"utility": (1000, 1)}}


def board(losses: dict[tuple[int, str], int], count: int = 10, **record: Any) -> Leaderboard:
    """(trial, configuration) -> losses of 100 under each risk at a budget of a tenth."""
    log = [
        TrialRecord(
            trial, 1, config, "npo", {"lr": trial}, 0, "", "", **{"status": "complete", "search": {"r": 0.0}, **record}
        )
        for trial, config in losses
    ]
    sums = {config: {"r": (1000 * lost, 100)} for (_, config), lost in losses.items()}
    return Leaderboard({"r": 0.1}, count).with_trials(log, sums)


def order(leaderboard: Leaderboard) -> list[str]:
    return [candidate.config for candidate in leaderboard.candidates]


def test_those_within_budget_come_first_and_then_two_near_misses() -> None:
    assert order(board({(0, "e"): 40, (1, "d"): 12, (2, "b"): 10, (3, "c"): 11, (4, "a"): 2})) == ["a", "b", "c", "d"]
    assert order(board({(0, "e"): 40, (1, "d"): 12, (3, "c"): 11, (4, "f"): 50})) == ["c", "d", "e"]
    assert order(board({(0, "b"): 5, (1, "a"): 2, (2, "c"): 11}, count=2)) == ["a", "b"]
    # of equals, the earlier trial
    assert order(board({(7, "b"): 5, (3, "a"): 5})) == ["a", "b"]
    assert order(board({(7, "b"): 15, (3, "a"): 15})) == ["a", "b"]


def test_each_configuration_has_one_place() -> None:
    ranked = board({(0, "e"): 40, (1, "d"): 12, (2, "b"): 10, (3, "c"): 11, (4, "a"): 2}).ranked
    assert [r.record.config for r in ranked] == ["a", "b", "c", "d", "e"]
    assert [r.excess for r in ranked] == pytest.approx([-0.8, 0.0, 0.1, 0.2, 3.0])
    assert [r.totals for r in ranked] == [(2_000,), (10_000,), (11_000,), (12_000,), (40_000,)]


def test_candidates_weigh_one_over_their_rank() -> None:
    leaderboard = board({(0, "b"): 5, (1, "a"): 2, (2, "c"): 11})
    assert [(c.config, c.method, c.params, c.weight) for c in leaderboard.candidates] == [
        ("a", "npo", {"lr": 1}, 1.0), ("b", "npo", {"lr": 0}, 0.5), ("c", "npo", {"lr": 2}, pytest.approx(1 / 3))
    ]  # fmt: skip


def test_a_training_has_at_most_two_candidates_that_differ() -> None:
    losses = {(0, "a"): 1, (0, "same"): 1, (0, "b"): 2, (0, "third"): 3, (1, "c"): 2}
    leaderboard = board(losses)
    assert len(leaderboard.ranked) == 5
    assert order(leaderboard) == ["a", "b", "c"]
    assert [r.record.config for r in leaderboard.shortened.ranked] == ["a", "b", "c"]


@pytest.mark.parametrize("record", [{"status": "failed"}, {"search": None}])
def test_only_complete_and_measured_trials_are_ranked(record: dict[str, Any]) -> None:
    assert board({(0, "a"): 1}, **record).ranked == ()


def test_a_configuration_without_losses_of_a_budgeted_risk_is_not_ranked() -> None:
    record = TrialRecord(0, 1, "a", "npo", {}, 0, "", "", status="complete", search={"r": 0.0})
    empty = Leaderboard({"r": 0.1, "s": 0.1}, 5)
    assert empty.with_trials([record], {"a": {"r": (0, 100)}}).ranked == ()
    assert empty.with_trials([record], {}).ranked == ()
    assert len(empty.with_trials([record], {"a": {"r": (0, 100), "s": (0, 100), "more": (0, 100)}}).ranked) == 1


def test_a_seal_lists_its_candidates_and_names_weights_only_where_they_are_known() -> None:
    """Optional entries are left out, so that seals of older versions keep their digests."""
    unbound = Candidate("c0001", "npo", {"lr": 1}, 1.0)
    seal = ranking.document([unbound], plan="p", losses="l", trials=4, queries={"forgetting": "q"})
    assert seal == {
        "format": 1, "plan": "p", "search_losses": "l", "trials": 4,
        "candidates": [{"config": "c0001", "method": "npo", "params": {"lr": 1}, "weight": 1.0}],
        "calibration": {"forgetting": "q"}, "order": None,
    }  # fmt: skip
    bound = replace(unbound, weights_digest="w")
    whole = ranking.document(
        [bound], plan="p", losses="l", trials=4, queries={"forgetting": "q"}, order=[("forgetting", "u", "q")], base="b",
        files={"config.json": "f"},
    )  # fmt: skip
    assert whole == seal | {
        "candidates": [seal["candidates"][0] | {"weights_digest": "w"}], "order": [["forgetting", "u", "q"]],
        "base_weights_digest": "b", "model_files": {"config.json": "f"},
    }  # fmt: skip


def test_a_seals_question_is_of_all_of_it_but_the_digest_of_its_plan_file() -> None:
    seal = {"plan": "p", "candidates": ["a"]}
    question = ranking.question(seal, "identity")
    assert question == ranking.question({**seal, "plan": "written again"}, "identity")
    assert question == hashing.sha256_json({"plan": "identity", "seal": {"candidates": ["a"]}})
    assert question not in (ranking.question(seal, "another"), ranking.question({**seal, "candidates": []}, "identity"))


class Read(tuple[ranking.Ranked, ...]):
    """A leaderboard's configurations; read: how many were looked at."""

    read = 0

    def __iter__(self) -> Iterator[ranking.Ranked]:
        for configuration in super().__iter__():
            self.read += 1
            yield configuration


def _random_leaderboard(seed: int, trials: int) -> tuple[ranking.Ranked, ...]:
    """Configurations in order, several per trial, some of them with equal sums."""
    draws = random.Random(seed)
    board = Leaderboard(BUDGET, 10)
    for trial in range(trials):
        configs = [str(ConfigurationId(trial)), *(str(ConfigurationId(trial).variant(3, mix / 4)) for mix in (1, 2, 3))]
        sums = {config: {risk: (draws.choice((2, 10, 14, 30)) * 1000, 100) for risk in BUDGET} for config in configs}
        means = {
            config: {risk: total / (1000 * count) for risk, (total, count) in of_config.items()}
            for config, of_config in sums.items()
        }
        variants = [
            {"config": config, "stop": 3, "mix": 0.5, "search": means[config], "averages": None}
            for config in configs[1:]
        ]
        record = TrialRecord(
            trial, 1, configs[0], "npo", {}, 0, "", "", status="complete", search=means[configs[0]], variants=variants
        )
        board = board.with_trials([record], sums)
    return board.ranked


def _shortlist_by_definition(ranked: Sequence[ranking.Ranked], count: int) -> list[ranking.Ranked]:
    """All that differ from earlier ones of their trial, two of each trial, those within budget and then two misses, or three alone."""
    distinct = [
        r
        for place, r in enumerate(ranked)
        if all((r.record.trial, r.totals) != (e.record.trial, e.totals) for e in ranked[:place])
    ]
    few = [r for place, r in enumerate(distinct) if sum(e.record.trial == r.record.trial for e in distinct[:place]) < 2]
    within, misses = [r for r in few if r.excess <= 0], [r for r in few if r.excess > 0]
    return [*within, *misses[: 2 if within else 3]][:count]


@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("trials", [1, 4, 30])
def test_the_shortlist_is_what_its_definition_says(trials: int, count: int) -> None:
    for seed in range(20):
        ranked = _random_leaderboard(seed, trials)
        assert list(ranked) == sorted(
            ranked, key=lambda r: (r.excess > 0, 0 if r.excess > 0 else r.search_p_value, r.excess, r.record.trial)
        )
        assert ranking._shortlist(ranked, count) == _shortlist_by_definition(ranked, count)


def test_a_long_history_is_not_read_to_its_end() -> None:
    ranked = Read(_random_leaderboard(0, 300))
    assert len(ranking._shortlist(ranked, 10)) == 10
    assert ranked.read < 40 < len(ranked) == 1200
