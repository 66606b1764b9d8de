"""Numbers and names as a page shows them, by hand; rounding upwards of bounds and p-values is in test_rendering."""

from typing import Any

import pytest
from markupsafe import Markup

from froc.audit.rendering import numbers


@pytest.mark.parametrize(("text", "shown"), [("abcd", "abcd"), ("abcde", "abc…"), ("", "")])
def test_only_a_text_that_is_too_long_is_cut_and_the_ellipsis_counts(text: str, shown: str) -> None:
    assert numbers.cut(text, 4) == shown


def test_a_text_in_full_says_how_much_of_it_is_left_out() -> None:
    assert numbers.whole("W" * 10_000) == "W" * 10_000
    assert numbers.whole("W" * 10_003) == "W" * 10_000 + " … and 3 more characters"


def test_markup_and_what_is_no_text_stay_as_they_are() -> None:
    bold = Markup("<b>\u202e</b>")
    assert numbers.visible(bold) is bold
    assert numbers.visible(7) == 7
    assert numbers.visible("\u202e") == "\\u202e"


@pytest.mark.parametrize(
    ("value", "lower", "nearest"),
    [("0.05056", "5.05%", "5.06%"), ("0.05055", "5.05%", "5.06%"), ("0.05045", "5.04%", "5.04%"), ("1.0", "100.00%", "100.00%")],
)  # fmt: skip
def test_lower_bounds_are_rounded_down_and_means_to_the_nearest(value: str, lower: str, nearest: str) -> None:
    assert numbers.down(value) == lower
    assert numbers.measured(value) == nearest


@pytest.mark.parametrize(
    ("value", "shown"), [("0.1", "10%"), ("0.125", "12.5%"), ("1.0", "100%"), ("0.00001", "0.001%")]
)
def test_a_chosen_number_is_exact(value: str, shown: str) -> None:
    assert numbers.percent(value) == shown


def test_a_fingerprint_is_in_groups_of_four() -> None:
    assert numbers.short("0123456789abcdef" * 4) == "0123 4567 89ab cdef"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0.123456", "0.1235"), ("1e-05", "1e-05"), ("120000.0", "1.2e+05"), ("dot", "dot"), (7, "7"), (True, "True"), (None, "None")],
)  # fmt: skip
def test_a_decimal_number_has_four_digits_and_others_stay(value: Any, shown: str) -> None:
    assert numbers.four(value) == shown
    assert numbers.params({"lr": value, "a": 1}) == f"a 1, lr {shown}"


def test_hyperparameters_are_on_one_line_of_240_characters() -> None:
    assert len(numbers.params({f"p{i:03d}": 1 for i in range(60)})) == 240


def test_words_begin_and_are_counted() -> None:
    assert numbers.capitalised("of all, A is first") == "Of all, A is first"
    assert [numbers.count(n, "query", "queries") for n in (0, 1, 2)] == ["0 queries", "1 query", "2 queries"]
    assert numbers.count(2, "trial") == "2 trials"
