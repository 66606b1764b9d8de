"""What the page says of a risk, by how it was measured."""

from typing import Any

import pytest

from froc.audit import rendering
from froc.audit.rendering import summary
from froc.audit.rendering.meanings import NAMELESS, as_defined, meaning, measured_by
from froc.measuring.named_risks import KNOWN
from tests.audit.conftest import Made

Report = dict[str, Any]


def with_metrics(made: Made, **metrics: str) -> Report:
    """The report of a bundle under other measurements."""
    report = made.read()["predicate"]
    return {**report, "method": {**report["method"], "metric": {**report["method"]["metric"], **metrics}}}


@pytest.mark.parametrize("risk", KNOWN)
def test_known_risks_as_froc_defines_them_have_a_meaning(risk: str) -> None:
    assert as_defined(risk, KNOWN[risk].of)
    assert meaning(risk, KNOWN[risk].of) != NAMELESS


@pytest.mark.parametrize(
    ("risk", "metric"),
    [
        ("forgetting", "refusal"), ("forgetting", "membership"), ("forgetting", "my_metric"), ("forgetting", "rouge_l/utility"),
        ("forgetting", "extraction_strength@drift"), ("utility", "refusal"), ("utility", "rouge_l@drift"), ("earlier", "extraction_strength"),
        ("earlier-1", "rouge_l/earlier-2"), ("earlier-1", "refusal/earlier-1"), ("combined", "rouge_l"), ("jailbreak", "extraction_strength"),
        ("relearning", "extraction_strength@relearning:steps=1"),
    ],
)  # fmt: skip
def test_another_measurement_under_a_known_name_has_no_meaning(risk: str, metric: str) -> None:
    assert meaning(risk, metric) == NAMELESS


@pytest.mark.parametrize(
    ("risk", "metric"),
    [("forgetting", "rouge_l"), ("utility", "truth_ratio:form=margin"), ("earlier-1", "rouge_l/earlier-1")],
)
def test_another_metric_of_the_same_queries_keeps_the_meaning(risk: str, metric: str) -> None:
    assert meaning(risk, metric) != NAMELESS


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("extraction_strength", "extraction strength"),
        ("truth_ratio:form=margin,k=2", "truth ratio (form=margin, k=2)"),
        ("rouge_l/utility", "ROUGE-L, on retain queries"),
        ("rouge_l@drift", "ROUGE-L, under drift"),
        ("rouge_l@drift/utility", "ROUGE-L, on retain queries, under drift"),
        ("rouge_l@drift+many_shots:k=3,n=2", "ROUGE-L, worst of: drift, many shots (k=3, n=2)"),
        ("rouge_l/earlier", "ROUGE-L, on queries of earlier requests"),
        ("rouge_l/earlier-0", "ROUGE-L, on queries of earlier requests"),
        ("rouge_l@drift/earlier-2", "ROUGE-L, on queries of request 2, under drift"),
    ],
)
def test_a_measurement_is_in_words_with_its_queries_and_attacks(metric: str, says: str) -> None:
    assert measured_by(metric) == says


def test_page_1_gives_another_metric_under_a_known_name_none_of_its_words(good: Made) -> None:
    words = (
        "how much of the forgotten answers can still be had",
        "of these answers could be had",
        "of the retained behaviour was lost",
    )
    page, changed = (
        rendering.html(report, good.facts())
        for report in (with_metrics(good), with_metrics(good, forgetting="refusal", utility="membership"))
    )
    for text in words:
        assert text in page
        assert text not in changed
    assert "the risk of that name" in changed


def test_a_claim_explains_known_risks_and_calls_others_as_measured(good: Made) -> None:
    report = good.read()["predicate"]
    says = summary.claim(report, report["certificate"])
    assert "the forgetting risk (how much of the forgotten answers can still be had) is at most" in says
    assert "(as measured)" not in says
    budget = {**report["certificate"]["budget"], "mine": "0.2"}
    changed = with_metrics(good, forgetting="refusal", mine="rouge_l")
    says = summary.claim(changed, {**report["certificate"], "budget": budget})
    assert "the forgetting risk (as measured) is at most" in says
    assert "the mine risk (as measured) is at most" in says


def test_a_screening_is_called_a_screening(good: Made) -> None:
    report, facts = good.read()["predicate"], good.facts()
    certificate = {**report["certificate"], "screened": [], "certified": []}
    view = summary.view(
        {**report, "certificate": certificate, "config": None, "chosen": None, "verdict": "NOT_ESTABLISHED"}
    )
    assert view["sentence"].startswith("The procedure screens and certifies nothing: 0 of 3 tested configurations")
    assert "none was tested" not in view["sentence"]
    assert "none" not in view["cost"]
    plan = facts.plan.model_copy(update={"procedure": "benjamini-yekutieli"})
    screening = rendering.html(report, type(facts)(**{**vars(facts), "plan": plan}))
    for text, page in (
        ("keeps the probability that any certified", rendering.html(report, facts)),
        ("keeps the expected share of wrong ones", screening),
    ):
        assert text in page
    assert "keeps the probability that any certified" not in screening
