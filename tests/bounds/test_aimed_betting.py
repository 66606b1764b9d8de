"""Bets that aim at the last unit: each formula unit by unit, error by exact enumeration, and what they gain."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from froc.bounds._aimed_betting import STAKE, AimedBetting, capital
from froc.bounds.betting import Betting
from froc.bounds.normal_test_betting import NormalTestBetting
from froc.bounds.star_betting import StarBetting
from froc.loss_table import SCALE

LOSSES = [0.3, 0.0, 1.0, 0.25, 0.0, 0.7]
FORMULAS: dict[type[AimedBetting], Callable[[float], float]] = {
    StarBetting: math.sqrt,
    NormalTestBetting: lambda left: (left + 0.02) / (math.sqrt(left + 0.02) + 0.35),
}
"""Bound -> the bet as a function of what is left to be won, times sqrt(2 / ((n - t + 1) V))."""
Aimed = type[AimedBetting]
each_bound = pytest.mark.parametrize("bound", list(FORMULAS))


def by_formula(bound: Aimed, losses: list[float], alpha: float, level: float, planned: int) -> list[float]:
    """Capital after each unit, of bets that stand in the docstrings, in plain Python."""
    path, held, variance, total, squares = [], 1.0, 0.25, 0.5, 0.25
    for seen, loss in enumerate(losses):
        left = math.log(1 / (level * held))
        while left <= 0:
            left += math.log(1 / level)
        bet = min(0.9 / (1 - alpha), FORMULAS[bound](left) * math.sqrt(2 / ((planned - seen) * variance)))
        held *= 1 - bet * (loss - alpha)
        path.append(held)
        total += loss
        squares += (loss - total / (seen + 2)) ** 2
        variance = squares / (seen + 2)
    return path


@each_bound
@pytest.mark.parametrize("planned", [6, 60])
@pytest.mark.parametrize(("alpha", "level"), [(0.1, 0.1), (0.4, 0.03), (0.9, 0.3)])
def test_capital_by_formula(bound: Aimed, alpha: float, level: float, planned: int) -> None:
    path = by_formula(bound, LOSSES, alpha, level, planned)
    largest, end = capital(np.array([LOSSES]), np.array([alpha]), np.array([level]), bound.unscaled_bets, planned)
    assert largest[0] == pytest.approx(max(1.0, *path), rel=1e-12)
    assert end[0] == pytest.approx(path[-1], rel=1e-12)


def test_first_bets_by_hand() -> None:
    """log(1 / level) is 2, 400 units, variance a quarter: sqrt(2 x 2 / (400 / 4)) = .2; the capital is then 1 + .2 x .1."""
    largest, end = capital(np.array([[0.0]]), np.array([0.1]), np.array([math.exp(-2)]), StarBetting.unscaled_bets, 400)
    assert largest[0] == end[0] == pytest.approx(1.02)


def test_bets_are_nearly_those_of_the_normal_test() -> None:
    """phi(z) / (q sqrt(what is left of the variance)) with z = Phi^-1(q), q the conditional chance of rejection: 2501.03982."""
    chances = np.array([0.001, 0.01, 0.034, 0.1, 0.3, 0.5])
    exact = norm.pdf(norm.ppf(chances)) / (chances * math.sqrt(7.0))
    ours = NormalTestBetting.unscaled_bets(-np.log(chances)) * math.sqrt(2 / 7.0)
    assert ours == pytest.approx(exact, rel=0.08)
    assert ours != pytest.approx(StarBetting.unscaled_bets(-np.log(chances)) * math.sqrt(2 / 7.0), rel=0.08)


@each_bound
def test_bets_end_at_their_aim_and_go_on_to_the_next(bound: Aimed) -> None:
    """Without a loss the capital passes 1 / level only because there is another aim behind it."""
    p = bound(level=0.1).p_value(np.zeros((1, 400), dtype=np.int64), 0.1)
    assert p[0] < 0.01


@each_bound
def test_no_loss_takes_all(bound: Aimed) -> None:
    """One loss of 1 leaves a tenth at least, at any risk and level."""
    for alpha in (0.001, 0.1, 0.5, 0.999):
        _, end = capital(np.array([[1.0]]), np.array([alpha]), np.array([1e-6]), bound.unscaled_bets)
        assert end[0] >= 1 - STAKE - 1e-12


def sequences(units: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(2 ** units, units) all orders of 0-1 losses."""
    return np.array(list(itertools.product((0, SCALE), repeat=units)), dtype=np.int64)


def chances(
    losses: np.ndarray[tuple[int, int], np.dtype[np.int64]], risk: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(m,) probability of each sequence where every loss is 1 with probability `risk`."""
    lost = (losses == SCALE).sum(axis=1)
    return np.asarray(risk**lost * (1 - risk) ** (losses.shape[1] - lost))


@each_bound
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("level", [0.034, 0.1, 0.4])
def test_exact_error_over_all_sequences(bound: Aimed, alpha: float, level: float) -> None:
    """At risk alpha, P(p <= t) <= t for every t, whatever level the bets aim at; and e has expectation 1."""
    losses = sequences(12)
    chance, aimed = chances(losses, alpha), bound(level=level)
    p = aimed.p_value(losses, alpha)
    ranked = np.argsort(p)
    sums = np.cumsum(chance[ranked])
    last = np.append(np.diff(p[ranked]) > 0, True)
    assert (sums[last] <= p[ranked][last] * (1 + 1e-9)).all()
    assert (chance * aimed.e_value(losses, alpha)).sum() == pytest.approx(1.0)


@each_bound
def test_exact_coverage_over_all_sequences(bound: Aimed) -> None:
    """P(upper < risk) <= delta at every risk in hundredths and a little above thousandths, where a jump of the bound would show."""
    losses = sequences(10)
    for delta in (0.05, 0.2):
        upper = bound().upper(losses, delta)
        for risk in (*np.arange(0.01, 1.0, 0.01), *(np.arange(0.001, 1.0, 0.05) + 1e-9)):
            assert chances(losses, float(risk))[upper < risk].sum() <= delta * (1 + 1e-9)


@each_bound
def test_the_upper_bound_is_the_smallest_thousandth_above_which_all_are_rejected(bound: Aimed) -> None:
    draw = np.random.default_rng(5)
    losses = np.where(draw.random((20, 90)) < 0.1, draw.integers(0, SCALE + 1, (20, 90)), 0)
    losses[0], losses[1] = 0, SCALE
    for row, u in zip(losses, bound().upper(losses, 0.07), strict=True):
        risks = np.arange(1, SCALE) / SCALE
        p = bound(level=0.07).p_value(np.broadcast_to(row, (len(risks), len(row))), risks)
        kept = risks[p > 0.07]
        assert u == pytest.approx(kept.max() + 1 / SCALE if len(kept) else 1 / SCALE)


@each_bound
def test_each_configuration_has_its_own_level(bound: Aimed) -> None:
    losses, levels = sequences(6)[20:24], np.array([0.02, 0.1, 0.3, 0.45])
    p = bound().p_values_aimed(losses, np.full(4, 0.3), levels)
    upper = bound().uppers(losses, levels)
    for i, level in enumerate(levels):
        row = losses[i : i + 1]
        assert p[i] == bound(level=float(level)).p_value(row, 0.3)[0]
        assert upper[i] == bound().upper(row, float(level))[0]


def test_more_certify_than_with_bets_that_do_not_look_at_what_is_left() -> None:
    """400 seeded tables of 200 units of risk .05 against .1, at the level of the first of ten weighted candidates."""
    draw = np.random.default_rng(11)
    losses = np.where(draw.random((400, 200)) < 0.1, draw.integers(0, SCALE + 1, (400, 200)), 0)
    level = 0.1 / (1 / np.arange(1, 11)).sum()
    kinds = (NormalTestBetting, StarBetting, Betting)
    normal, star, plain = (float((kind(level=level).p_value(losses, 0.1) <= level).mean()) for kind in kinds)
    assert normal > star + 0.04
    assert star > plain + 0.04


@each_bound
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("risk", [0.1, 0.5, 0.95, 0.999])
def test_a_capital_beyond_what_floats_hold_ends_and_one_that_is_nearly_gone_goes_on(bound: Aimed, risk: float) -> None:
    """10,000 units without a loss, or with half of the risk, or all lost."""
    losses = np.zeros((3, 10_000), dtype=np.int64)
    losses[1, ::2], losses[2] = round(risk * SCALE), SCALE
    p = bound(level=0.034).p_value(losses, risk)
    assert p[0] == pytest.approx(1e-280, rel=1e-9)
    assert 0 < p[1] < 1e-3
    assert p[2] == 1.0
    assert np.isfinite(bound().e_value(losses, risk)).all()
    upper = bound().upper(losses, 0.034)
    assert upper[0] <= 0.002
    assert upper[2] == 1.0
