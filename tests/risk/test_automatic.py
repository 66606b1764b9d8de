"""The bound that `auto` means: each rule by hand, for every combination of what it reads."""

import itertools

import pytest

from froc.loss_table import UNITS
from froc.procedures import find
from froc.risk.claim import POPULATIONS, automatic

FAMILY_WISE, DISCOVERIES = ("bonferroni", "holm", "fixed-sequence", "fallback"), ("e-bh",)
EXACT = {
    # population, whether it stops early -> bound of 0-1 losses of single queries
    ("queries", False): "binomial",
    ("queries", True): "betting",
    ("sample", False): "hypergeometric",
    ("sample", True): "hypergeometric",
    ("census", False): "census",
    ("census", True): "census",
}
OTHERWISE = {"queries": "betting", "sample": "betting_without_replacement", "census": "census"}


def test_procedures_need_what_this_table_says() -> None:
    assert {find(name).evidence for name in FAMILY_WISE} == {"p"}
    assert {find(name).evidence for name in DISCOVERIES} == {"e"}


@pytest.mark.parametrize(
    ("binary", "unit", "population", "sequential"),
    list(itertools.product((False, True), UNITS, POPULATIONS, (False, True))),
)
def test_every_combination(binary: bool, unit: str, population: str, sequential: bool) -> None:
    """A mean of a group's losses is between 0 and 1 even where each loss is one of the two."""
    wanted = EXACT[population, sequential] if binary and unit == "query" else OTHERWISE[population]
    for procedure in FAMILY_WISE:
        chosen = automatic(binary=binary, unit=unit, population=population, sequential=sequential, procedure=procedure)
        assert chosen == wanted
    # e-values come from a mixture, but where a list says more
    for procedure in DISCOVERIES:
        chosen = automatic(binary=binary, unit=unit, population=population, sequential=sequential, procedure=procedure)
        assert chosen == ("mixture" if population == "queries" else wanted)
