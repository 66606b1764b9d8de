"""Budgets that are shares of what the base model scores: tested as said, whatever the base scores, and never about nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from froc.errors import InputError
from froc.loss_table import SCALE, SCHEMA, WEIGHTED
from froc.risk.certificate import Candidate, bounds, certify, decide
from froc.risk.claim import Claim, estimands, evidence_from_matrix
from froc.risk.evidence import evidence_from_table
from froc.risk.p_values import p_values, raw_upper
from froc.risk.positive_control import BASE, Control, Kind
from froc.risk.ratios import tilted
from froc.risk.rounding import up

IntArray = NDArray[np.int64]
ONE = [Candidate("c0", "npo", {}, 1.0)]
KIND: dict[str, Kind] = {"utility": "ceiling"}


def claim(alpha: float = 0.1, bound: str = "betting", unit: str = "query", **options: Any) -> Claim:
    made = Claim(
        {"utility": alpha}, {"utility": bound}, {"utility": unit}, largest={"utility": 8} if unit == WEIGHTED else {},
        **({"relative": ("utility",)} | options),
    )  # fmt: skip
    return replace(made, estimand=estimands(made))


def table(config: str, losses: IntArray, units: IntArray | None = None) -> pl.DataFrame:
    """Thousandths of queries, each its own unit where no groups are given."""
    rows = [
        (config, "utility", "m", "calibration", f"q{i}" if units is None else f"g{units[i]}", f"q{i}", int(loss))
        for i, loss in enumerate(losses)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def certified(lost: IntArray, absent: IntArray, made: Claim, units: IntArray | None = None) -> dict[str, Any]:
    return certify(table("c0", lost, units), ONE, made, control=Control(table(BASE, absent, units), KIND))


def drawn(draw: np.random.Generator, n: int, share: float) -> tuple[IntArray, IntArray]:
    """Losses and absences: the base scores .2 or .9, and loses more of the smaller scores; E[L] = share * E[B] exactly."""
    score = np.where(draw.random(n) < 0.6, 200, 900)
    # of the small scores twice the share is lost, of the others what makes it come out
    rate = np.where(score == 200, 2 * share, share * (0.48 - 2 * 0.12) / 0.36)
    return score * (draw.random(n) < rate), SCALE - score


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["betting", "hoeffding_bentkus", "mixture"])
def test_at_the_budget_itself_it_is_wrong_no_more_often_than_stated(bound: str) -> None:
    """At E[L] = .1 E[B], which is .048 of all: four standard errors of the draws; bounds lie above the true share as often."""
    made, wrong, below, repeats = claim(bound=bound), 0, 0, 80
    for seed in range(repeats):
        lost, absent = drawn(np.random.default_rng(seed), 200, 0.1)
        changed = replace(evidence_from_matrix(lost[None, :].astype(np.int16)), absences=absent)
        wrong += p_values(made, "utility", {"utility": changed}, 1)[0] <= 0.1
        below += raw_upper(made, "utility", changed, 0.1)[0] < 0.1
    assert max(wrong, below) <= 0.1 * repeats + 4 * (repeats * 0.1 * 0.9) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["group", WEIGHTED])
def test_shares_of_groups_err_no_more_often_than_stated(unit: str) -> None:
    """Groups of 2 and 8 queries, the large of which lose three times as much; the share at which each estimand's truth lies."""
    sizes, score, rates = np.array([2, 8]), 600, np.array([0.05, 0.15])
    chances = np.array([0.5, 0.5])
    weights = chances if unit == "group" else chances * sizes / (chances @ sizes)
    truth = float(weights @ rates)
    made, wrong, below = claim(truth, unit=unit), 0, 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        kinds = draw.integers(0, 2, 80)
        units = np.repeat(np.arange(80), sizes[kinds])
        lost = score * (draw.random(len(units)) < rates[kinds[units]])
        absent = np.full(len(units), SCALE - score)
        evidence = evidence_from_table(
            table("c0", lost, units), "utility", ["c0"], made, None, table(BASE, absent, units)
        )
        accepted = p_values(made, "utility", {"utility": evidence}, 1)[0] <= 0.1
        upper = up(float(raw_upper(made, "utility", evidence, 0.1)[0]))
        if seed < 5:
            # what a certificate's document says besides takes longer
            row = certified(lost, absent, made, units)["candidates"][0]
            assert (row["certified"], row["cur"]["utility"]["pointwise"]) == (accepted, upper)
        wrong += accepted
        below += upper < truth
    assert max(wrong, below) <= 10 + 4 * (100 * 0.1 * 0.9) ** 0.5


@settings(deadline=None, max_examples=100)
@given(
    groups=st.lists(st.tuples(st.integers(1, 8), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12),
    alpha=st.floats(1e-6, 1 - 1e-6),
    spare=st.integers(0, 3),
)
def test_tilted_shares_are_on_the_right_side(groups: list[tuple[int, float, float]], alpha: float, spare: int) -> None:
    """In [0, 1], never below what they round unless that is more than there can be, at most a thousandth above."""
    sizes = np.array([size for size, *_ in groups])
    score = np.array([int(size * SCALE * part) for size, part, _ in groups])
    sums = np.array([[int(s * lost) for s, (*_, lost) in zip(score, groups, strict=True)]])
    largest = int(sizes.max()) + spare
    absent = SCALE * sizes - score
    result = tilted(sums, sizes, largest, np.array([alpha]), absent)[0]
    exact = SCALE * (alpha + (sums[0] - alpha * score) / SCALE / largest)
    assert result.min() >= 0
    assert result.max() <= SCALE
    assert (result >= exact - 1e-5).all()
    assert (result <= exact + 1 + 1e-4).all()


def test_a_base_that_knows_all_makes_shares_what_losses_are() -> None:
    lost = np.where(np.random.default_rng(0).random(300) < 0.05, 700, 0)
    share = certified(lost, np.zeros(300, dtype=np.int64), claim())["candidates"][0]
    plain = certified(lost, np.zeros(300, dtype=np.int64), claim(relative=()))["candidates"][0]
    assert share["p_values"] == plain["p_values"]
    assert share["empirical"] == plain["empirical"]
    # bounds that are found by trying are whole thousandths
    wide, step = (row["cur"]["utility"]["pointwise"] for row in (plain, share))
    assert wide <= step <= wide + 0.001 + 1e-6


def test_against_the_absolute_budget_on_a_base_that_scores_a_half() -> None:
    """It lost a tenth of all queries, a fifth of what the base knew: within .15 of all, not within .15 of what was there."""
    n = 2000
    absent = np.where(np.arange(n) % 2, SCALE, 0)
    lost = np.where(np.arange(n) % 10 == 0, SCALE, 0)
    absolute, relative = (certified(lost, absent, claim(0.15, relative=values)) for values in ((), ("utility",)))
    assert absolute["chosen"] == "c0"
    assert relative["certified"] == []
    row, second = absolute["candidates"][0], relative["candidates"][0]
    assert second["empirical"]["utility"] == 2 * row["empirical"]["utility"] == 0.2
    # a ratio of two means is less sure than one of them alone
    bound = second["cur"]["utility"]["pointwise"]
    assert 0.2 < bound < 1.15 * 2 * row["cur"]["utility"]["pointwise"]
    within = certified(lost, absent, claim(0.25))
    assert within["chosen"] == "c0"
    assert within["relative"] == ["utility"]
    assert "utility loss at most 0.25 of what the base model had" in within["reason"]
    assert within["candidates"][0]["robust_radius"] == {"utility": None}
    assert "utility at most 0.2" in relative["reason"]
    assert "of what the base model had (budget 0.15)" in relative["reason"]
    assert "relative" not in absolute


def test_a_low_score_is_a_low_ceiling_no_longer_and_no_score_is_nothing_to_have_a_share_of() -> None:
    """A base that scores .08: nothing can exceed an absolute budget of .1, which is vacuous; a relative one is none."""
    n = 3000
    absent = np.where(np.arange(n) % 25 < 2, 0, SCALE)
    kept, gone = np.zeros(n, dtype=np.int64), SCALE - absent
    assert certified(kept, absent, claim(relative=()))["reason"].startswith("NOT ESTABLISHED for utility")
    result = certified(kept, absent, claim())
    assert result["chosen"] == "c0"
    assert result["base"]["utility"]["relative"] is True
    assert certified(gone, absent, claim())["candidates"][0]["empirical"]["utility"] == 1.0
    for score in (0, 1):
        nothing = np.full(n, SCALE)
        nothing[:score] = 0
        none = certified(kept, nothing, claim())
        assert none["certified"] == []
        assert none["reason"].startswith("NOT ESTABLISHED for utility")
        assert "nothing which 0.1 could be a share of" in none["reason"]


def test_a_query_without_a_score_counts_as_the_most_that_could_be_lost() -> None:
    """Loss and absence of 1: as if the base had scored 1 there and all of it were gone."""
    absent = np.full(200, 500)
    lost, odd = np.zeros(200, dtype=np.int64), absent.copy()
    lost[:30], odd[:30] = SCALE, SCALE
    known = absent.copy()
    known[:30] = 0
    rows = [certified(lost, values, claim(0.2))["candidates"][0] for values in (odd, known)]
    assert rows[0]["p_values"]["utility"] >= rows[1]["p_values"]["utility"]
    assert rows[0]["empirical"]["utility"] > rows[1]["empirical"]["utility"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"relative": ("forgetting",)}, "only single risks with budgets of their own"),
        ({"sequential": True}, "leave --sequential"),
        ({"population": {"utility": "sample"}, "listed": {"utility": 900}, "bound": "betting_without_replacement"}, "--population sample"),
        ({"population": {"utility": "census"}, "listed": {"utility": 900}, "bound": "census"}, "--population census"),
        ({"bound": "binomial"}, "take --bound auto"),
        ({"radius": 0.05}, "leave --radius out"),
    ],
)  # fmt: skip
def test_what_has_no_relative_budget_is_refused(options: dict[str, Any], words: str) -> None:
    zero = np.zeros(200, dtype=np.int64)
    with pytest.raises(InputError, match=words):
        certified(zero, zero, claim(**options))


def test_a_share_of_what_was_not_measured_is_refused() -> None:
    zero = np.zeros(200, dtype=np.int64)
    good = table("c0", zero)
    with pytest.raises(InputError, match="needs its rows"):
        certify(good, ONE, claim())
    with pytest.raises(InputError, match="needs its rows"):
        decide({"utility": zero[None, :].astype(np.int16)}, ONE, claim())
    with pytest.raises(InputError, match="only what is lost"):
        certify(good, ONE, claim(), control=Control(table(BASE, zero), {"utility": "exceeds"}))
    with pytest.raises(InputError, match="not measured on the queries of the others"):
        certify(good, ONE, claim(), control=Control(table(BASE, zero[:199]), KIND))


def test_bounds_of_one_configuration_are_the_certificates() -> None:
    lost, absent = drawn(np.random.default_rng(3), 300, 0.05)
    control = Control(table(BASE, absent), KIND)
    row = certify(table("c0", lost), ONE, claim(), control=control)["candidates"][0]["cur"]["utility"]
    assert bounds(table("c0", lost), "c0", {"c0": 1.0}, claim(), control=control)["utility"] == row["simultaneous"]


def test_what_a_shift_does_to_a_ratio_is_not_claimed() -> None:
    """Also of means over queries where groups are drawn: a shift towards large groups can double what the formula allows."""
    zero, units = np.zeros(200, dtype=np.int64), np.arange(200) // 2
    made = claim(unit=WEIGHTED, relative=())
    assert certified(zero, zero, made, units)["candidates"][0]["robust_radius"] == {"utility": None}
    with pytest.raises(InputError, match="--unit utility=group"):
        certified(zero, zero, replace(made, radius=0.05), units)


def test_the_base_models_mean_over_queries_is_one_where_groups_are_drawn() -> None:
    absent = np.full(200, 400)
    base = certified(np.zeros(200, dtype=np.int64), absent, claim(unit=WEIGHTED), np.arange(200) // 4)["base"]
    assert base["utility"]["before"] == 0.6
