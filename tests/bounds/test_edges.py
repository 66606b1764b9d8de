"""What bounds share, and bounds of listed populations, at their edges: by hand, and p-values against upper bounds."""

import math

import numpy as np
import pytest

from froc import bounds
from froc.bounds import Bound, betting_over_orders, empirical_bernstein, hoeffding_serfling
from froc.bounds.hoeffding_kl import kl
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.plugins import find, make, names

ALL = names(Bound)
FINITE = [name for name in ALL if find(Bound, name).finite]


@pytest.mark.parametrize("n", [2_147_483, 2_147_484])
def test_sums_that_32_bits_do_not_hold_are_exact(n: int) -> None:
    """2^31 thousandths are 2,147,483.648 losses of 1; the table is one number in memory."""
    losses = np.broadcast_to(np.int16(SCALE), (1, n))
    assert bounds.total(losses).tolist() == [1000 * n]
    assert bounds.mean(losses).tolist() == [1.0]
    assert bounds.ceil_sum(losses).tolist() == [n]


@pytest.mark.parametrize("name", ALL)
def test_no_units_are_no_evidence(name: str) -> None:
    """For the bound as for the p-value."""
    bound = make(Bound, name)
    for call in (bound.p_value, bound.upper):
        with pytest.raises(InputError, match="at least one measured unit"):
            call(np.zeros((2, 0), dtype=np.int64), 0.1)


@pytest.mark.parametrize("name", [name for name in ALL if name not in FINITE])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_nothing_is_excluded_where_all_is_lost(name: str, n: int) -> None:
    """No warning, either: few units take the largest bets, and a capital of 0 has no logarithm."""
    losses = np.full((1, n), SCALE, dtype=np.int16)
    assert make(Bound, name).upper(losses, 0.1).tolist() == [1.0]
    assert make(Bound, name).p_value(losses, 0.3).tolist() == [1.0]


@pytest.mark.parametrize("name", [name for name in ALL if "level" in find(Bound, name).__dataclass_fields__])
def test_bets_aim_at_a_tenth_unless_another_level_is_named(name: str) -> None:
    assert make(Bound, name) == make(Bound, name, {"level": 0.1}) != make(Bound, name, {"level": 0.05})


@pytest.mark.parametrize("name", [name for name in ALL if "population" in find(Bound, name).__dataclass_fields__])
def test_a_list_is_as_long_as_what_is_measured_unless_its_size_is_named(name: str) -> None:
    losses = np.array([[0, 0, 0, SCALE, 0, 0]], dtype=np.int16)
    plain, named = make(Bound, name), make(Bound, name, {"population": 6})
    for call in ("p_value", "upper"):
        assert getattr(plain, call)(losses, 0.2) == getattr(named, call)(losses, 0.2)


def test_relative_entropy_at_both_ends() -> None:
    """0 log 0 is 0: kl(0, b) = -log(1 - b), kl(1, b) = -log b; and an impossible b is infinitely far."""
    b = np.array([0.25, 0.5, 0.9])
    assert kl(np.zeros(3), b) == pytest.approx(-np.log(1 - b))
    assert kl(np.ones(3), b) == pytest.approx(-np.log(b))
    assert kl(b, b) == pytest.approx(np.zeros(3), abs=1e-15)
    assert kl(np.array([0.5, 0.5]), np.array([0.0, 1.0])).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("n", "population", "kappa"),
    [
        # 1 - 9/100 up to half of the list; (1 - n/N)(1 + 1/n) beyond; nothing left of the whole list
        (10, 100, 0.91),
        (50, 100, 0.51),
        (60, 100, 0.4 * 61 / 60),
        (100, 100, 0.0),
    ],
)
def test_serfling_by_hand(n: int, population: int, kappa: float) -> None:
    """p = exp(-2 n (alpha - r)^2 / kappa), upper = r + sqrt(kappa ln(1 / delta) / (2 n)), for r = 0.1."""
    assert hoeffding_serfling.kappa(n, population) == pytest.approx(kappa, abs=1e-15)
    losses = np.full((1, n), SCALE // 10, dtype=np.int16)
    bound = make(Bound, "hoeffding_serfling", {"population": population})
    p = math.exp(-2 * n * 0.2**2 / kappa) if kappa else 0.0
    assert bound.p_value(losses, 0.3)[0] == pytest.approx(p, rel=1e-12)
    assert bound.upper(losses, 0.05)[0] == pytest.approx(0.1 + math.sqrt(kappa * math.log(20) / (2 * n)), rel=1e-12)
    # a mean at or above the level is no evidence; of the whole list it is an answer
    assert bound.p_value(losses, 0.1)[0] == (1.0 if kappa else 0.0)
    assert bound.p_value(losses, 0.09)[0] == 1.0


@pytest.mark.parametrize(
    ("name", "n", "population"),
    # a census is of lists that are measured as a whole
    [(name, 40, size) for name in FINITE for size in (400, 60, 40) if name != "census" or size == 40],
)
def test_p_value_and_bound_of_a_list_say_the_same(name: str, n: int, population: int) -> None:
    """p(alpha) <= delta exactly where the bound at delta is at most alpha, at levels between multiples of 1 / N."""
    draw = np.random.default_rng(n + population)
    losses = (draw.random((30, n)) < draw.uniform(0, 0.5, (30, 1))).astype(np.int16) * SCALE
    fields = find(Bound, name).__dataclass_fields__
    for delta in (0.02, 0.1, 0.3):
        wanted = {"population": population, "level": delta}
        bound = make(Bound, name, {key: value for key, value in wanted.items() if key in fields})
        upper = bound.upper(losses, delta)
        for alpha in (0.051, 0.123, 0.207, 0.333, 0.481):
            clear = np.abs(upper - alpha) > 1e-9
            assert ((bound.p_value(losses, alpha) <= delta) == (upper <= alpha))[clear].all()


def test_sixteen_orders_of_short_rows_and_fewer_of_long_ones() -> None:
    """docs/statistics.md says sixteen; 131,072 losses in all orders, and never fewer than four."""
    assert [betting_over_orders.n_orders(n) for n in (1, 8192, 8193, 26_214, 32_768, 10**6)] == [16, 16, 15, 5, 4, 4]


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("betting_over_orders")])
def test_how_many_rows_are_worked_on_at_a_time_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that alone have more losses than are worked on at a time are taken one by one."""
    losses = np.random.default_rng(0).integers(0, 300, (7, 30)).astype(np.int16)
    bound = make(Bound, name)
    whole = bound.p_value(losses, 0.2), bound.upper(losses, 0.1)
    for cells in (1, 2 * 30 * 16):
        monkeypatch.setattr(betting_over_orders, "BLOCK_LOSSES", cells)
        assert (bound.p_value(losses, 0.2) == whole[0]).all()
        assert bound.upper(losses, 0.1) == pytest.approx(whole[1], abs=1e-10)


def test_variances_are_unbiased_and_reach_the_bound() -> None:
    """0, 0, 1, 1: 1/3. By Maurer and Pontil: r + sqrt(2 V ln(2 / delta) / n) + 7 ln(2 / delta) / (3 (n - 1))."""
    quarter = np.array([[0, 0, SCALE, SCALE], [500, 500, 500, 500], [0, 0, 0, 400]], dtype=np.int16)
    assert empirical_bernstein.variance(quarter) == pytest.approx([1 / 3, 0.0, 0.04])
    assert empirical_bernstein.variance(quarter[:, :1]).tolist() == [0.0, 0.0, 0.0]
    losses = np.random.default_rng(0).integers(0, SCALE + 1, (5, 400)).astype(np.int16)
    log, values = math.log(2 / 0.1), losses / SCALE
    wanted = values.mean(axis=1) + np.sqrt(2 * values.var(axis=1, ddof=1) * log / 400) + 7 * log / (3 * 399)
    bound = make(Bound, "empirical_bernstein")
    assert bound.upper(losses, 0.1) == pytest.approx(wanted, rel=1e-9)
    # and the p-value is delta at the bound itself
    assert bound.p_value(losses, wanted) == pytest.approx(np.full(5, 0.1), rel=1e-6)


def test_a_mean_capital_is_one_over_its_p_value() -> None:
    """Where it is above 1; and the largest float or so where it is beyond all floats."""
    losses = np.random.default_rng(0).integers(0, 300, (6, 100)).astype(np.int16)
    bound = make(Bound, "betting_over_orders")
    e, p = bound.e_value(losses, 0.25), bound.p_value(losses, 0.25)
    assert (e > 1).any()
    assert p[e > 1] == pytest.approx(1 / e[e > 1], rel=1e-9)
    assert (p[e <= 1] == 1).all()
    assert bound.e_value(np.full((1, 60), SCALE), 0.1)[0] < 1
    assert np.isfinite(bound.e_value(np.zeros((1, 20_000), dtype=np.int16), 0.5)[0])


@pytest.mark.parametrize("delta", [1e-12, 1e-9, 0.1])
def test_a_small_error_level_keeps_its_digits(delta: float) -> None:
    """Without a loss the exact bound is 1 - delta ** (1 / n)."""
    upper = make(Bound, "binomial").upper(np.zeros((1, 100), dtype=np.int64), delta)[0]
    assert upper == pytest.approx(1 - delta ** (1 / 100), rel=1e-12)
