"""Terms of a method that is composed of parts."""

from typing import Any

import pytest

from froc.methods.ceu import Otherwise
from froc.methods.npo import NegativePreference
from froc.methods.pdu import Flatten
from froc.methods.simnpo import SimpleNegativePreference
from froc.methods.undial import Distill
from froc.plugins import make
from froc.training.base_statistics import PLACEHOLDER_CONTEXT
from froc.training.method import Method
from froc.training.terms import NLL, Term


@pytest.mark.parametrize(
    ("chosen", "term"),
    [
        ({"forget": "nll"}, NLL("forget", sign=-1.0)),
        ({"forget": "npo", "npo_beta": 0.3}, NegativePreference("forget", 0.3)),
        ({"forget": "simnpo", "simnpo_beta": 3.0}, SimpleNegativePreference("forget", 3.0)),
        ({"forget": "undial", "undial_beta": 5.0}, Distill("forget", 5.0)),
        ({"forget": "ceu", "ceu_skip": 2}, Otherwise("forget", 2)),
        ({"forget": "flatten"}, Flatten("forget")),
    ],
)
def test_a_composed_method_forgets_by_the_term_that_is_chosen(chosen: dict[str, Any], term: Term) -> None:
    (phase,) = make(Method, "compose", chosen).phases(PLACEHOLDER_CONTEXT)
    assert phase.parts["forget"].term == term


@pytest.mark.parametrize(
    ("part", "method", "own"),
    [("npo_beta", "npo", "beta"), ("simnpo_beta", "simnpo", "beta"), ("undial_beta", "undial", "beta")],
)
def test_a_part_begins_where_the_method_of_its_own_does(part: str, method: str, own: str) -> None:
    """Defaults of a composed term are those of the method that it is taken from."""
    composed, alone = make(Method, "compose"), make(Method, method)
    assert getattr(composed, part) == getattr(alone, own)
