"""The sentence of each named risk says what its measurement does: shown by the metric and the attacks as they are."""

from collections.abc import Callable
from typing import Any

import pytest

from froc.audit.rendering.meanings import meaning
from froc.audit.rendering.words import MEANINGS
from froc.cli import list_
from froc.data.prompts import PromptFormat
from froc.data.rows import Row
from froc.data.task import EARLIER, FORGETTING, UTILITY, WORDINGS
from froc.measuring.attack import Material
from froc.measuring.measurement import Measurement, measurement
from froc.measuring.named_risks import KNOWN

ROW = Row("Where does Bo live?", "old mill", "Bo", paraphrases=("In what place is Bo?",))
OTHER = Row("Where does Al live?", "new barn", "Al")
MATERIAL = Material((OTHER,), (OTHER,), (), PromptFormat("{question} {answer}"))


def _kinds(measured: Measurement) -> set[str]:
    return {type(attack).__name__ for attack in measured.attacks}


def _asked(measured: Measurement) -> set[str]:
    """The questions that the attacks put in place of `ROW`'s."""
    return {row.question for attack in measured.attacks for form in attack.ask((ROW,), MATERIAL) for row in form}


def _values(measured: Measurement, name: str) -> list[Any]:
    return [getattr(attack, name) for attack in measured.attacks]


SHOWN: dict[str, Callable[[Measurement], bool]] = {
    "forgetting": lambda m: not m.attacks and m.pool == FORGETTING,
    "utility": lambda m: not m.attacks and m.pool == UTILITY and m.drop,
    "earlier": lambda m: not m.attacks and m.pool == EARLIER,
    "wordings": lambda m: not m.attacks and m.pool == WORDINGS,
    "paraphrase": lambda m: _asked(m) == {"In what place is Bo?"},
    # fewer than the sixteen of half precision
    "quantized": lambda m: _kinds(m) == {"Quantization"} and sorted(_values(m, "bits")) == [4, 8],
    "relearning": lambda m: _kinds(m) == {"Relearning"} and _values(m, "holds") == [True],
    "drift": lambda m: _kinds(m) == {"Drift"} and _values(m, "holds") == [False],
    # few rows or all that are held, and rates to either side of the usual one
    "relearning_sweep": lambda m: (
        _kinds(m) == {"Relearning"}
        and {0, 4} == set(_values(m, "rows"))
        and min(_values(m, "rate")) < 1 < max(_values(m, "rate"))
    ),
    "benign": lambda m: _kinds(m) == {"BenignFinetuning"} and _values(m, "holds") == [False],
    "gptq": lambda m: _kinds(m) == {"Gptq"} and _values(m, "bits") == [4],
    "pruned": lambda m: _kinds(m) == {"Pruning"} and 0 < _values(m, "share")[0] < 1,
    "merged": lambda m: _kinds(m) == {"Merging"} and 0 < _values(m, "keeps")[0] < 1,
    # forget rows' names are held, and no parameter changes
    "steered": lambda m: (
        _kinds(m) == {"ActivationSteering"} and _values(m, "holds") == [True] and _values(m, "changes_model") == [False]
    ),
    "multi_hop": lambda m: _asked(m) == {"Think of Bo. Now about what you thought of: Where does it live?"},
    "sampled": lambda m: _kinds(m) == {"Sampling"} and _values(m, "k") == [8] and "written" in m.metric.reads,
    "jailbreak": lambda m: (
        all(ROW.question in text != ROW.question for text in _asked(m)) and not any(_values(m, "changes_model"))
    ),
    "options": lambda m: not m.attacks and "others" in m.metric.reads,
    "refusal": lambda m: m.pool == UTILITY and m.metric.finds == "faults",
    "gibberish": lambda m: m.pool == FORGETTING and m.metric.finds == "faults",
    "flips": lambda m: m.pool == UTILITY and m.drop,
    "latent": lambda m: _kinds(m) == {"LatentPerturbation"} and _values(m, "changes_model") == [False],
    "lens": lambda m: _kinds(m) == {"LogitLens"} and _values(m, "changes_model") == [False],
    "privacy": lambda m: m.metric.bank == "holdout" and not vars(m.metric)["over"],
    "overforgetting": lambda m: m.metric.bank == "holdout" and bool(vars(m.metric)["over"]),
}


@pytest.mark.parametrize("risk", KNOWN)
def test_a_risk_is_what_its_sentence_says(risk: str) -> None:
    assert SHOWN[risk](measurement(KNOWN[risk].of))
    # on the page, and on the screen
    assert meaning(risk, KNOWN[risk].of) == MEANINGS.get(risk, KNOWN[risk].says)
    (entry,) = list_._risks(risk)
    assert entry["summary"].startswith(KNOWN[risk].says)


def test_every_risk_is_shown() -> None:
    assert set(SHOWN) == set(KNOWN)
