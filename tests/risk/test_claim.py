"""What a claim is about, in words, and the bound that `auto` stands for: each rule by hand."""

import itertools

import pytest

from froc.loss_table import UNITS, WEIGHTED
from froc.procedures import find
from froc.risk.claim import POPULATIONS, Claim, automatic, estimands

FAMILY_WISE, DISCOVERIES = ("bonferroni", "holm", "fixed-sequence", "fallback"), ("e-bh",)
EXACT = {
    # population, whether it stops early -> bound of 0-1 losses of single queries
    ("queries", False): "binomial",
    ("queries", True): "normal_test_betting",
    ("sample", False): "hypergeometric",
    ("sample", True): "hypergeometric",
    ("census", False): "census",
    ("census", True): "census",
}
OTHERWISE = {"queries": "normal_test_betting", "sample": "betting_without_replacement", "census": "census"}


def test_procedures_need_what_this_table_says() -> None:
    assert {find(name).evidence for name in FAMILY_WISE} == {"p"}
    assert {find(name).evidence for name in DISCOVERIES} == {"e"}


@pytest.mark.parametrize(
    ("binary", "unit", "population", "sequential"),
    list(itertools.product((False, True), UNITS, POPULATIONS, (False, True))),
)
def test_the_bound_of_auto_for_every_combination_of_what_it_reads(
    binary: bool, unit: str, population: str, sequential: bool
) -> None:
    """A mean of a group's losses is between 0 and 1 even where each loss is one of the two."""
    wanted = EXACT[population, sequential] if binary and unit == "query" else OTHERWISE[population]
    for procedure in FAMILY_WISE:
        chosen = automatic(binary=binary, unit=unit, population=population, sequential=sequential, procedure=procedure)
        assert chosen == wanted
    # e-values come from a mixture, except where the population is a list
    for procedure in DISCOVERIES:
        chosen = automatic(binary=binary, unit=unit, population=population, sequential=sequential, procedure=procedure)
        assert chosen == ("mixture" if population == "queries" else wanted)


@pytest.mark.parametrize(
    ("unit", "kind", "words"),
    [
        ("query", "queries", "mean over queries"),
        ("group", "queries", "mean of group means"),
        (WEIGHTED, "queries", "mean over queries, drawn by group"),
        ("query", "sample", "mean over queries of a list that is measured in part"),
        ("group", "census", "mean of group means of a list that is measured completely"),
        # where all are measured nothing is drawn
        (WEIGHTED, "census", "mean over queries of a list that is measured completely"),
    ],
)
def test_what_is_bounded_is_named_by_unit_and_population(unit: str, kind: str, words: str) -> None:
    claim = Claim({"r": 0.1}, {"r": "betting"}, {"r": unit}, population={"r": kind})
    assert estimands(claim) == {"r": words}
    assert Claim({"r": 0.1}, {"r": "betting"}, {"r": "query"}).kind("r") == "queries"
