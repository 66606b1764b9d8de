"""Bisection of monotone predicates."""

from hypothesis import given
from hypothesis import strategies as st

from froc.risk.bisection import bracket, first_integer


@given(st.floats(0.001, 0.999), st.sampled_from([1e-3, 1e-8]))
def test_a_bracket_holds_the_change_and_is_narrow(change: float, tolerance: float) -> None:
    below, above = bracket(lambda x: x >= change, 0.0, 1.0, tolerance)
    assert below < change <= above
    assert above - below <= tolerance


@given(st.integers(-5, 50), st.integers(1, 60))
def test_the_first_integer_is_the_smallest(low: int, distance: int) -> None:
    for first in range(low + 1, low + distance + 1):
        tried: list[int] = []

        def holds(x: int, first: int = first, tried: list[int] = tried) -> bool:
            tried.append(x)
            return x >= first

        assert first_integer(holds, low, low + distance) == first
        assert all(low < x < low + distance for x in tried), "neither end is evaluated"
