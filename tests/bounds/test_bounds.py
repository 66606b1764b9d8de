"""Bounds: against 50-digit values, against exact coverage, against each other, and at the edges."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value as mapie_p
from scipy.stats import binom

from froc.bounds import (
    Bound,
    FloatArray,
    Losses,
    bentkus,
    betting,
    binomial,
    ceil_sum,
    empirical_bernstein,
    hoeffding_bentkus,
    hoeffding_kl,
    hoeffding_serfling,
    hypergeometric,
)
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.plugins import find, make, names
from froc.reporting.bounds import crag
from froc.risk import shift

VECTORS = Path(__file__).parents[1] / "data" / "risk_vectors.json"
ROWS: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
ALL = names(Bound)
ENDLESS = [name for name in ALL if not find(Bound, name).finite]
FINITE = [name for name in ALL if find(Bound, name).finite]
ORDER_FREE = [name for name in ENDLESS if find(Bound, name).order_free]
SHUFFLED = [name for name in ALL if name.startswith("betting_over_orders")]
LEVELLED = [name for name in ALL if "level" in find(Bound, name).__dataclass_fields__]
MATRICES = st.integers(1, 40).flatmap(
    lambda n: st.lists(st.sampled_from([0, 0, 0, SCALE, 1, 37, 999]), min_size=n, max_size=n)
)
BINARY = st.integers(1, 40).flatmap(lambda n: st.lists(st.sampled_from([0, 0, SCALE]), min_size=n, max_size=n))


def counts(n: int) -> Losses:
    """(n + 1, n): row k has k losses of 1, then zeros."""
    return np.where(np.arange(n)[None, :] < np.arange(n + 1)[:, None], SCALE, 0).astype(np.int64)


def with_sum(n: int, k: int) -> Losses:
    """(1, n) losses with k of 1."""
    return counts(n)[k : k + 1]


def sample(row: dict[str, Any]) -> FloatArray:
    """(1, n) losses of a sample row, by its formula."""
    i = np.arange(row["n"])
    if row["kind"] == "bits":
        result = ((row["mul"] * i + row["off"]) % row["mod"] < row["thr"]).astype(np.float64)
    else:
        result = row["scale"] * (((37 * i + 11) % 101) / 101) ** row["pw"]
    assert result[:5] == pytest.approx(row["first5"], rel=1e-12)
    return np.asarray(result[None, :])


def same(result: float, wanted: float) -> None:
    assert result == pytest.approx(wanted, rel=1e-9, abs=1e-300)


def test_p_values_to_nine_digits() -> None:
    kinds = {"hoeffding_kl": "hoeffding", "bentkus": "bentkus", "hoeffding_bentkus": "hb", "binomial": "binom"}
    for row in ROWS["p_values"]:
        for name, key in kinds.items():
            same(make(Bound, name).p_value(with_sum(row["n"], row["sum"]), row["alpha"])[0], row[key])


def test_upper_bounds_to_nine_digits() -> None:
    kinds = {"hoeffding_kl": "kl", "bentkus": "bentkus", "hoeffding_bentkus": "hb", "binomial": "clopper_pearson"}
    for row in ROWS["bounds"]:
        for name, key in kinds.items():
            same(make(Bound, name).upper(with_sum(row["n"], row["sum"]), row["delta"])[0], row[key])
        # Serfling's bound for an endless list is Hoeffding's plain one
        mean = np.array([row["sum"] / row["n"]])
        plain = hoeffding_serfling.upper_from_mean(mean, row["n"], 10**18, row["delta"])[0]
        same(plain, min(1.0, row["hoeffding_simple"]))


def test_samples_to_nine_digits() -> None:
    for row in ROWS["samples"]:
        values, n = sample(row), row["n"]
        alpha, delta = row["alpha"], row["delta"]
        same(betting.p_value_from_losses(values, alpha, delta)[0], row["wsr_p"])
        same(betting.upper_from_losses(values, delta)[0], row["wsr_ub"])
        mean, k = values.mean(axis=1), np.ceil(values.sum(axis=1) - 1e-9).astype(np.int64)
        same(hoeffding_bentkus.p_value_from_mean(mean, k, n, alpha)[0], row["hb_p"])
        same(hoeffding_bentkus.upper_from_mean(mean, k, n, delta)[0], row["hb_ub"])
        spread = values.var(axis=1, ddof=1)
        same(spread[0], row["var_unbiased"])
        same(empirical_bernstein.upper_from_moments(mean, spread, n, delta)[0], row["eb_maurer_pontil"])


def test_shift_to_nine_digits() -> None:
    for row in ROWS["hellinger"]:
        n, mean, rho, delta = row["n"], row["rhat"], row["rho"], row["delta"]
        k = np.array([round(n * mean)])
        own = hoeffding_bentkus.upper_from_mean(np.array([mean]), k, n, delta)[0]
        same(own, row["hb_ub"])
        same(shift.shifted(own, rho), row["robust_ub_hb"])
        same(shift.shifted(binomial.upper_from_count(k, n, delta)[0], rho), row["robust_ub_cp"])
        same(shift.shrunk(0.1, rho), row["shrunk_budget_of_0p1"])
        same(shift.shifted(mean, rho), row["population_any_loss"])
        same(crag(mean, row["var"], n, rho, delta), row["crag_formula_exact"])


def test_finite_populations_to_nine_digits() -> None:
    for row in ROWS["finite_population"]:
        many, n, k, delta = row["N"], row["n"], np.array([row["k"]]), row["delta"]
        same(hypergeometric.upper_from_count(k, n, many, delta)[0], row["hypergeom_ub"])
        same(hoeffding_serfling.upper_from_mean(k / n, n, many, delta)[0], row["serfling_ub"])
        same(binomial.upper_from_count(k, n, delta)[0], row["clopper_pearson_ub"])


def test_ten_thousand_p_values_are_mapies() -> None:
    """Away from its rounding slip, which is where n times the mean is no whole number though the sum is one."""
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(100):
        n, alpha = int(rng.integers(5, 3000)), float(rng.uniform(0.005, 0.6))
        k = rng.integers(0, n + 1, 130)
        slips = np.ceil(k / n * n) != k
        p = mapie_p(k / n, n, alpha)[:, 0]
        result = hoeffding_bentkus.p_value_from_mean(k / n, k, n, alpha)
        assert abs(result - np.minimum(1, p))[~slips].max() <= 1e-12
        own = np.minimum(hoeffding_kl.p_value_from_mean(k / n, n, alpha), bentkus.p_value_from_sum(k, n, alpha))
        assert result == pytest.approx(own, rel=1e-9, abs=1e-100)
        seen += int((~slips).sum())
    assert seen >= 10_000


@pytest.mark.parametrize("n", [100, 400, 5000])
def test_float_noise_never_adds_a_loss(n: int) -> None:
    """100 * (28 / 100) is 28.000000000000004: the count must stay 28, for every k."""
    k, alpha = np.arange(n + 1), 0.3
    mean = k / n
    low = np.minimum(mean, alpha)
    hoeffding = np.exp(-n * hoeffding_kl.kl(low, np.full(n + 1, alpha)))
    wanted = np.minimum(1, np.minimum(hoeffding, math.e * binom.cdf(k, n, alpha)))
    result = hoeffding_bentkus.p_value_from_mean(mean, k, n, alpha)
    assert result == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@given(MATRICES, st.floats(0.01, 0.99), st.floats(0.001, 0.5))
@settings(deadline=None, max_examples=50)
def test_p_value_and_bound_say_the_same(values: list[int], alpha: float, delta: float) -> None:
    """p(alpha) <= delta exactly where the bound at delta is at most alpha."""
    losses = np.array([values])
    for name in [name for name in ENDLESS if not find(Bound, name).binary_only]:
        bound = make(Bound, name, {"level": delta} if name in LEVELLED else None)
        upper = bound.upper(losses, delta)[0]
        if abs(upper - alpha) > 1e-9:
            assert (bound.p_value(losses, alpha)[0] <= delta) == (upper < alpha)


@given(BINARY, st.floats(0.01, 0.99), st.floats(0.001, 0.5))
def test_exact_binomial_says_the_same_and_is_never_weaker(values: list[int], alpha: float, delta: float) -> None:
    losses = np.array([values])
    exact, plain = make(Bound, "binomial"), make(Bound, "hoeffding_bentkus")
    upper = exact.upper(losses, delta)[0]
    if abs(upper - alpha) > 1e-9:
        assert (exact.p_value(losses, alpha)[0] <= delta) == (upper < alpha)
    assert upper <= plain.upper(losses, delta)[0] * (1 + 1e-9)
    assert exact.p_value(losses, alpha)[0] <= plain.p_value(losses, alpha)[0] * (1 + 1e-9)


@given(MATRICES, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_order_free_bounds_ignore_order_and_grow_with_losses(values: list[int], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    worse = [min(SCALE, value + 100) for value in values]
    for name in [name for name in ORDER_FREE if not find(Bound, name).binary_only]:
        bound = make(Bound, name)
        p = bound.p_value(np.array([values, shuffled, worse]), 0.2)
        upper = bound.upper(np.array([values, shuffled, worse]), 0.1)
        assert p[0] == p[1]
        assert upper[0] == upper[1]
        # bets of other orders may do better on worse losses
        if (
            name != "empirical_bernstein" and name not in SHUFFLED
        ):  # a larger loss may lower the variance by more than it raises the mean
            assert p[0] <= p[2] * (1 + 1e-12)
            assert upper[0] <= upper[2] * (1 + 1e-12)


@given(MATRICES, st.integers(0, 39))
def test_bets_know_the_past_only(values: list[int], place: int) -> None:
    place %= len(values)
    before = np.array([values]) / SCALE
    after = before.copy()
    after[0, place] = 1.0 - after[0, place]
    assert (betting.bets(before, 0.1)[0, : place + 1] == betting.bets(after, 0.1)[0, : place + 1]).all()


@pytest.mark.parametrize("name", ALL)
def test_contract(name: str) -> None:
    """Shapes, ranges and edges that every bound keeps, those of other packages too."""
    bound = make(Bound, name)
    assert type(bound).theorem
    for n in (1, 2, 30):
        losses = counts(n)
        for result in (bound.p_value(losses, 0.1), bound.upper(losses, 0.1)):
            assert result.shape == (n + 1,)
            assert result.dtype == np.float64
            assert ((result >= 0) & (result <= 1)).all()
        assert bound.upper(losses, 0.1)[-1] == 1.0
        assert bound.p_value(losses, 0.1)[-1] == 1.0
        assert (bound.upper(losses, 0.1) >= losses.mean(axis=1) / SCALE - 1e-12).all()
        each = bound.p_value(losses, np.full(n + 1, 0.1))
        assert each == pytest.approx(bound.p_value(losses, 0.1), rel=1e-12)
        assert (bound.p_value(losses.astype(np.int16), 0.1) == bound.p_value(losses, 0.1)).all()
        assert (bound.upper(losses, 0.01) >= bound.upper(losses, 0.1)).all()
    with pytest.raises(InputError, match="at least one"):
        bound.p_value(np.zeros((2, 0), dtype=np.int64), 0.1)
    assert bound.p_value(np.zeros((0, 5), dtype=np.int64), 0.1).shape == (0,)


def test_zero_losses_by_formula() -> None:
    for n in (1, 22, 300):
        for name in ("hoeffding_kl", "hoeffding_bentkus", "binomial"):
            bound = make(Bound, name)
            assert bound.p_value(with_sum(n, 0), 0.1)[0] == pytest.approx(0.9**n, rel=1e-9, abs=1e-300)
            assert bound.upper(with_sum(n, 0), 0.1)[0] == pytest.approx(1 - 0.1 ** (1 / n), rel=1e-9, abs=1e-300)


def test_the_binomial_refuses_losses_between() -> None:
    for losses in ([0, 1], [999, 1000], [500, 0]):
        for call in (binomial.Binomial().p_value, binomial.Binomial().upper):
            with pytest.raises(InputError, match="losses of 0 or 1"):
                call(np.array([losses]), 0.1)


def test_capital_may_be_infinite() -> None:
    assert make(Bound, "betting").p_value(np.zeros((1, 50_000), dtype=np.int64), 0.5)[0] == 0.0


def test_whole_is_exact() -> None:
    assert ceil_sum(np.array([[0, 0], [1, 0], [500, 500], [999, 2], [1000, 1000]])).tolist() == [0, 1, 1, 2, 2]


LISTS = {
    "binary": lambda rng, size: (rng.random(size) < 0.1) * SCALE,
    "skewed": lambda rng, size: np.ceil(rng.beta(0.3, 2.0, size) * SCALE),
}
