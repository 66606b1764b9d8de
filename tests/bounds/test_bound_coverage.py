"""Bounds hold as often as they say: exactly where that can be counted, else by seeded repetition; and what they take."""

import itertools
import math
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, multinomial

from froc.bounds import Bound, FloatArray, Losses, betting, betting_over_orders
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.plugins import find, make
from tests.bounds.test_bounds import ENDLESS, FINITE, LEVELLED, LISTS, ORDER_FREE, SHUFFLED, counts

EXACT = [
    (name, n, delta)
    for name, n, delta in itertools.product(ORDER_FREE, (20, 50, 200, 1000), (0.01, 0.05, 0.1, 0.2))
    # a thousand numbers of ones, each in its own orders, take seconds, and the same path as two hundred
    if name not in SHUFFLED or n < 1000 or delta == 0.1
]


@pytest.mark.parametrize(("name", "n", "delta"), EXACT)
def test_exact_coverage_of_bounds_that_ignore_order(name: str, n: int, delta: float) -> None:
    """sup_p P(upper < p) = max_k P(Bin(n, u_k) <= k) for 0-1 losses: no simulation, no tolerance but floats'."""
    upper = make(Bound, name).upper(counts(n), delta)
    k = np.arange(n + 1)
    if name in SHUFFLED:
        # orders are drawn anew for every k, so that bounds need not rise with it: which lie below each one is counted
        missed = [binom.pmf(k[upper <= u], n, u).sum() for u in upper[upper < 1]]
    else:
        assert (np.diff(upper) >= 0).all()
        missed = list(binom.cdf(k[upper < 1], n, upper[upper < 1]))
    assert max(missed) <= delta * (1 + 1e-9)


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("name", ORDER_FREE)
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_exact_level_of_p_values_that_ignore_order(name: str, n: int, alpha: float) -> None:
    """At risk alpha itself, P(p <= t) <= t for every t that p can take."""
    p = make(Bound, name).p_value(counts(n), alpha)
    chance = binom.pmf(np.arange(n + 1), n, alpha)
    for t in p[p < 1]:
        assert chance[p <= t].sum() <= t * (1 + 1e-9)


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("top", [999, 501])
def test_exact_coverage_where_sums_are_no_whole_numbers(n: int, top: int) -> None:
    """Losses of 0 and 0.999: taking the floor of their sum misses 13 % at delta = 10 % (RCPS code); the ceiling must not."""
    delta, scale = 0.1, top / SCALE
    upper = make(Bound, "hoeffding_bentkus").upper(counts(n) * top // SCALE, delta)
    for chance in np.linspace(0.001, 0.999, 400):
        missed = upper < scale * chance
        assert binom.pmf(np.arange(n + 1)[missed], n, chance).sum() <= delta * (1 + 1e-9)


LAWS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Any]] = {
    "rare": lambda rng, size: (rng.random(size) < 0.1) * SCALE,
    "even": lambda rng, size: (rng.random(size) < 0.5) * SCALE,
    "skewed": lambda rng, size: np.ceil(rng.beta(0.2, 1.8, size) * SCALE),
    "mixed": lambda rng, size: np.where(rng.random(size) < 0.05, SCALE, 50),
}


RISKS = {
    "rare": 0.1,
    "even": 0.5,
    # the mean of a rounded-up variable is the sum of its survival function
    "skewed": float(beta.sf(np.arange(SCALE) / SCALE, 0.2, 1.8).sum()) / SCALE,
    "mixed": 0.05 + 0.95 * 0.05,
}


def _of_each(bound: Bound, evaluate: Callable[[Losses], FloatArray], losses: Losses) -> FloatArray:
    """`evaluate(losses)`; where no order enters, rows of the same losses are evaluated once."""
    if not bound.order_free:
        return evaluate(losses)
    rows, places = np.unique(np.sort(losses, axis=1), axis=0, return_inverse=True)
    result = evaluate(rows)[places.ravel()]
    assert (evaluate(losses[:8]) == result[:8]).all()
    return np.asarray(result)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", [name for name in ENDLESS if not find(Bound, name).binary_only])
def test_monte_carlo_coverage(name: str, law: str) -> None:
    """4,000 seeded repetitions; a rate of exactly delta exceeds the tolerance (4 standard errors) 3 times in 100,000."""
    rng, repeats, n, delta = np.random.default_rng(7), 4000, 75, 0.1
    losses = np.asarray(LAWS[law](rng, (repeats, n)), dtype=np.int64)
    risk = RISKS[law]
    tolerance = delta + 4 * math.sqrt(delta * (1 - delta) / repeats)
    bound = make(Bound, name, {"level": delta} if name in LEVELLED else None)
    assert (_of_each(bound, lambda rows: bound.upper(rows, delta), losses) < risk).mean() <= tolerance
    assert (_of_each(bound, lambda rows: bound.p_value(rows, risk), losses) <= delta).mean() <= tolerance


@pytest.mark.slow
def test_betting_stays_valid_where_its_bets_aim_elsewhere() -> None:
    rng, repeats, delta = np.random.default_rng(8), 4000, 0.1
    losses = np.asarray(LAWS["rare"](rng, (repeats, 150)), dtype=np.int64)
    tolerance = delta + 4 * math.sqrt(delta * (1 - delta) / repeats)
    for level in (1e-6, 0.01, 0.5):
        assert (make(Bound, "betting", {"level": level}).p_value(losses, 0.1) <= delta).mean() <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("many", "n"), [(200, 100), (60, 30), (40, 39)])
@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("name", FINITE)
def test_coverage_of_lists_measured_in_part(name: str, kind: str, many: int, n: int) -> None:
    """4,000 seeded draws without replacement from one list; what is random is the draw alone."""
    bound = find(Bound, name)
    if name == "census" or (bound.binary_only and kind != "binary"):
        return
    rng, delta = np.random.default_rng(many), 0.1
    listed = np.asarray(LISTS[kind](rng, many), dtype=np.int16)
    risk = listed.mean() / SCALE
    draws = rng.permuted(np.tile(listed, (4000, 1)), axis=1)[:, :n]
    made = make(Bound, name, {"population": many})
    tolerance = delta + 4 * math.sqrt(delta * (1 - delta) / 4000)
    assert (_of_each(made, lambda rows: made.upper(rows, delta), draws) < risk - 1e-9).mean() <= tolerance
    # just below the true mean, "the mean is larger" is true
    assert (_of_each(made, lambda rows: made.p_value(rows, risk - 1e-6), draws) <= delta).mean() <= tolerance


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("name", FINITE)
def test_a_list_measured_completely_is_known(name: str, n: int) -> None:
    losses = counts(n)
    made = make(Bound, name, {"population": n})
    assert made.upper(losses, 0.1) == pytest.approx(np.arange(n + 1) / n, abs=1e-12)
    alpha = 0.5
    assert made.p_value(losses, alpha).tolist() == [float(k / n > alpha) for k in range(n + 1)]


@given(st.integers(2, 30), st.integers(1, 30), st.floats(0.01, 0.99), st.floats(0.001, 0.5))
@settings(deadline=None)
def test_hypergeometric_says_the_same_and_uses_the_list(many: int, n: int, alpha: float, delta: float) -> None:
    n = min(n, many)
    made = make(Bound, "hypergeometric", {"population": many})
    upper, p = made.upper(counts(n), delta), made.p_value(counts(n), alpha)
    assert ((p <= delta) == (upper <= math.floor(alpha * many + 1e-9) / many + 1e-12)).all()


def test_one_sided_certainty_of_lists() -> None:
    """Losses that already exceed the list's allowance prove the risk is above it: no capital may say otherwise."""
    made = make(Bound, "betting_without_replacement", {"population": 20})
    bad = np.array([[0] * 10 + [SCALE] * 3])
    assert made.p_value(bad, 0.1)[0] == 1.0
    good = np.zeros((1, 19), dtype=np.int64)
    assert made.p_value(good, 0.05)[0] == 0.0
    with pytest.raises(InputError, match="only 5 are listed"):
        make(Bound, "hypergeometric", {"population": 5}).upper(counts(6), 0.1)
    with pytest.raises(InputError, match="all of the 7 listed"):
        make(Bound, "census", {"population": 7}).upper(counts(6), 0.1)


FEW: dict[str, tuple[tuple[int, ...], tuple[float, ...], int]] = {
    "rare": ((0, SCALE), (0.9, 0.1), 12),
    "even": ((0, SCALE), (0.5, 0.5), 12),
    "skewed": ((0, 3, 120, 700, SCALE), (0.5, 0.2, 0.15, 0.1, 0.05), 5),
    "mixed": ((50, SCALE), (0.95, 0.05), 12),
}
"""Laws of few losses: those, their probabilities, and as many units as leave few thousand tables of one row."""


def _every_row(values: Sequence[int], chances: Sequence[float], n: int, ordered: bool) -> tuple[Losses, FloatArray]:
    """All rows of n of these losses, or all that differ in more than order, and the probability of each."""
    if ordered:
        places = np.array(list(itertools.product(range(len(values)), repeat=n)))
        return np.asarray(values)[places], np.asarray(chances)[places].prod(axis=1)
    places = np.array(list(itertools.combinations_with_replacement(range(len(values)), n)))
    number = (places[:, :, None] == np.arange(len(values))).sum(axis=1)
    return np.asarray(values)[places], np.asarray(multinomial.pmf(number, n, chances))


@pytest.mark.parametrize("name", ["betting", "mixture", "betting_over_orders"])
@pytest.mark.parametrize("law", FEW)
def test_e_values_have_expectation_at_most_one(name: str, law: str) -> None:
    """Exactly, but for the draw of orders: four standard errors of that. So few units let bets hang on losses at a level of 0.5 only."""
    values, chances, n = FEW[law]
    risk, bound = float(np.dot(values, chances)) / SCALE, make(Bound, name, {"level": 0.5} if name in LEVELLED else {})
    rows, weights = _every_row(values, chances, n if name == "betting" else 12, not bound.order_free)
    assert weights.sum() == pytest.approx(1)
    e, error = bound.e_value(rows, risk), 0.0
    if name in SHUFFLED:
        orders = np.random.default_rng(11).permuted(np.repeat(rows, 40, axis=0), axis=1)
        alone = betting.e_value_from_losses(orders / SCALE, risk, 0.5).reshape(len(rows), 40)
        error = math.sqrt(float((weights**2 * alone.var(axis=1)).sum()) / betting_over_orders.MAX_ORDERS)
    assert weights @ e <= 1 + 1e-9 + 4 * error
    assert (e >= 0).all()
    with pytest.raises(InputError, match="no e-values"):
        make(Bound, "hoeffding_bentkus").e_value(rows, 0.1)


@pytest.mark.slow
def test_betting_holds_at_every_stopping_time() -> None:
    """Stop at the best moment of each repetition: still at most delta, since capital at its largest is what is used."""
    rng, repeats, delta = np.random.default_rng(12), 4000, 0.1
    losses = np.asarray(LAWS["rare"](rng, (repeats, 120)), dtype=np.int64)
    best = np.ones(repeats)
    for n in range(10, 121, 10):
        best = np.minimum(best, make(Bound, "betting", {"planned": 120}).p_value(losses[:, :n], 0.1))
    whole_p = make(Bound, "betting", {"planned": 120}).p_value(losses, 0.1)
    assert best == pytest.approx(whole_p)
    assert (best <= delta).mean() <= delta + 4 * math.sqrt(delta * (1 - delta) / repeats)


@pytest.mark.slow
def test_peak_memory_is_at_most_twice_the_table() -> None:
    losses = np.asarray(LAWS["rare"](np.random.default_rng(2), (1000, 1000)), dtype=np.int16)
    # star_betting takes its memory in the same lines as normal_test_betting
    for name in [name for name in ENDLESS if name != "star_betting"]:
        bound = make(Bound, name)
        bound.p_value(losses[:2], 0.1)
        tracemalloc.start()
        bound.p_value(losses, 0.1)
        bound.upper(losses, 0.001)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 2 * losses.nbytes, name
