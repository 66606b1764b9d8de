"""The form in which plans write measurements."""

import dataclasses
from typing import Any

import pytest

from froc import plugins, provenance
from froc.errors import InputError
from froc.measuring import measurement_text
from froc.measuring.attack import Attack
from froc.measuring.measurement import measurement, written
from froc.measuring.measurement_text import Part
from froc.measuring.metric import Metric
from froc.measuring.named_risks import KNOWN
from froc.plugin_source import settings


@pytest.mark.parametrize("risk", KNOWN)
def test_known_risks_are_written_as_plans_write_them(risk: str) -> None:
    measurement_text.check(KNOWN[risk].of)
    assert str(measurement(KNOWN[risk].of)) == KNOWN[risk].of


@pytest.mark.parametrize(
    "text",
    ["membership:score=min_k_pp,k=0.2", "knn_hit:layer=-2", "rouge_l@relearning:lr=1e-05,steps=9+drift/earlier-2"],
)
def test_what_froc_writes_is_accepted(text: str) -> None:
    measurement_text.check(written("mine", measurement(text)))


@pytest.mark.parametrize(
    "text",
    [
        "", "extraction_strength\n", "extraction_strength@", "extraction_strength@drift+", "extraction_strength@verified by the ICO",
        "extraction_strength@Quantize", "extraction_strength/verified by the ICO", "extraction_strength/forgotten",
        "extraction_strength:verified=by the ICO, and approved", "extraction_strength:verified=yes", "membership:k=",
        "extraction_strength@synonyms:forms=2", "extraction_strength@relearning:step=30", "mine:a=" + "x" * 40,
    ],
)  # fmt: skip
def test_free_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"no measurement|no setting"):
        measurement_text.check(text)


@pytest.mark.parametrize(
    ("end", "pool"),
    [
        ("", ""), ("/utility", "utility"), ("/wordings", "wordings"), ("/earlier", "earlier"), ("/earlier-12", "earlier-12"),
        ("/forgotten", ""), ("/utility@drift", ""), ("/utility-2", ""),
    ],
)  # fmt: skip
def test_queries_are_named_at_the_end(end: str, pool: str) -> None:
    assert measurement_text.pool(f"rouge_l@relearning:steps=9{end}") == pool


def test_a_measurement_has_a_metric_and_attacks_with_the_keys_of_their_settings() -> None:
    assert measurement_text.parts("membership:score=min_k,k=0.2@relearning:lr=1e+3,steps=9+drift/earlier-2") == [
        Part("metric", "membership", ("score", "k")),
        Part("attack", "relearning", ("lr", "steps")),
        Part("attack", "drift"),
    ]
    assert measurement_text.parts("rouge_l") == [Part("metric", "rouge_l")]


@pytest.mark.parametrize("kind", [Metric, Attack])
def test_settings_of_plug_ins_are_read_without_importing_them(kind: Any) -> None:
    group = plugins.group(kind)
    for name in plugins.builtin_names(group):
        fields = frozenset(field.name for field in dataclasses.fields(plugins.find(kind, name)))
        assert settings(group, name) == fields
    assert settings(group, "of_another_package") is None


def test_every_part_after_an_at_or_a_plus_is_an_attack() -> None:
    plan: dict[str, Any] = {
        "metrics": {"forgetting": "extraction_strength@Quantize+verified by the ICO:steps=1e+3/utility"}
    }
    plan |= {"bound": {}, "procedure": "holm", "search": {}}
    assert provenance.unknown(plan) == {("attack", "Quantize"), ("attack", "verified by the ICO")}
