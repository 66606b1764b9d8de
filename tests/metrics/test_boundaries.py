"""Scores at boundaries: ties, the shortest texts, the index of a judge's label."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from froc.data.task import Row
from froc.measuring.metric import Observation
from froc.metrics.entailment import Entailment, _labels
from froc.metrics.gibberish import gibberish
from froc.metrics.multiple_choice import MultipleChoice


def options(own: list[list[float]], others: list[list[float]]) -> Observation:
    """Log-probabilities of the answer's tokens, and the mean of each other answer; NaN where a row has fewer."""
    most, widest = max(map(len, own)), max(map(len, others))
    logp = np.zeros((len(own), most), np.float32)
    wrong = np.full((len(own), widest, 2), np.nan, np.float32)
    for i, (tokens, means) in enumerate(zip(own, others, strict=True)):
        logp[i, : len(tokens)] = tokens
        wrong[i, : len(means), 1] = means
    rows = tuple(Row("q", "a", others=tuple(f"o{k}" for k in range(len(means)))) for means in others)
    return Observation(logp < 1, logp, np.array([len(tokens) for tokens in own]), rows=rows, others=wrong)


def test_an_option_is_compared_per_token_and_the_nearest_number_below_loses() -> None:
    """Three tokens of -1 are -1 each, and as likely as an option of -1; the next float below -1 is not."""
    below, above = (
        float(np.nextafter(np.float32(-1), np.float32(-2))),
        float(np.nextafter(np.float32(-1), np.float32(0))),
    )
    seen = options([[-1.0] * 3] * 3 + [[-1.0]], [[-1.0], [below, -1.0], [below, above], [-2.0, -0.5]])
    assert MultipleChoice().scores(seen).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_equal_probabilities_are_equal_whatever_their_precision() -> None:
    """A mean of our tokens is worked out in double precision, the option's in single: both ways of rounding are ties."""
    draw = np.random.default_rng(0)
    tokens = draw.uniform(-5, -0.1, (200, 3)).astype(np.float32)
    means = tokens.sum(axis=1, dtype=np.float64) / 3
    single = means.astype(np.float32)
    assert (single > means).any()
    assert (single < means).any()
    seen = options(tokens.tolist(), [[float(mean)] for mean in single])
    assert MultipleChoice().scores(seen).tolist() == [1.0] * 200


def test_a_row_with_fewer_options_is_not_compared_with_what_it_lacks() -> None:
    seen = options([[-1.0], [-1.0], [-1.0]], [[-2.0, -3.0], [-2.0], []])
    assert MultipleChoice().scores(seen) == pytest.approx([1.0, 1.0, math.nan], nan_ok=True)
    # an option that the model gave no number for is not one that was lost against
    torn = options([[-1.0]], [[-2.0, math.nan]])
    assert math.isnan(MultipleChoice().scores(torn)[0])


BY_HAND = {
    # one word, and two: no n-gram has stood before
    "so": 0.0,
    "so so": 0.0,
    # 2-grams: 2, one of them new; 3-grams: one. (1/2 * 1 + 0 * 2) / 3
    "so so so": 1 / 6,
    # 2-grams ab ba ab: 1/3 again; 3-grams aba bab: none
    "a b a b": 1 / 9,
    # one of two, of three characters: blanks are none of them, and no controls either
    "a\ufffd": 1 / 2,
    "a \t\n b \ufffd": 1 / 3,
    "a b\tc\n": 0.0,
    # private, unassigned, control; a picture, and a sign of mathematics, which is text
    "a\ue000": 1 / 2,
    "a\u0378": 1 / 2,
    "a\x07": 1 / 2,
    "a\u2603": 1 / 2,
    "a+": 0.0,
    # repetition 5/9 and one character of nine: the larger, not the sum
    "so so so so \ufffd": 5 / 9,
    # one of nine repeats nothing, and three strange ones of four are more
    "a\ufffd\ufffd\ufffd": 3 / 4,
    # nothing to read
    "": 1.0,
    "...": 1.0,
    "\u2603": 1.0,
}


@pytest.mark.parametrize("text", BY_HAND, ids=ascii)
def test_gibberish_by_hand(text: str) -> None:
    assert gibberish(text) == pytest.approx(BY_HAND[text], abs=1e-12)


@dataclass
class Config:
    """The fields of the judge's configuration that are read."""

    id2label: dict[int, str]
    max_position_embeddings: int = 60


class Pairs(dict[str, Any]):
    """Tokens of pairs, on whatever device."""

    def to(self, device: str) -> "Pairs":
        assert device == "here"
        return self


class Judge:
    """A model whose odds of entailment are the premise's length over the hypothesis's, against 1 for each of two other labels."""

    device = "here"

    def __init__(self, labels: list[str]) -> None:
        self.config = Config(dict(enumerate(labels)))
        self.model_max_length = 10**30
        self.limits: set[int] = set()

    def __call__(self, *texts: Any, **options: Any) -> Any:
        if texts:
            premises, hypotheses = texts
            self.limits.add(options["max_length"])
            assert options["truncation"]
            assert options["padding"]
            return Pairs(odds=[len(p) / len(h) for p, h in zip(premises, hypotheses, strict=True)])
        odds = torch.tensor(options["odds"], dtype=torch.float64)[:, None]
        places = [name == "Entailment" for name in self.config.id2label.values()]
        self.logits = torch.where(torch.tensor(places), odds.log(), 0.0)
        return self


@pytest.mark.parametrize(
    "labels",
    [
        ["contradiction", "neutral", "Entailment"],
        ["Entailment", "neutral", "contradiction"],
        ["not_entailment", "Entailment", "neutral"],
    ],
)
def test_the_judges_label_is_read_where_it_stands(labels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """70 pairs of all lengths: each has its own probability, with the written text as the premise: odds of w / e against 2."""
    judge = Judge(labels)
    monkeypatch.setattr("froc.metrics.entailment._judge", lambda path, device: (judge, judge))
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 50, (70, 2))
    seen = Observation(
        np.ones((70, 1), bool), np.zeros((70, 1), np.float32), np.ones(70, np.int64), rows=(Row("", "a"),) * 70,
        written=tuple("w" * int(n) for n in lengths[:, 0]), expected=tuple("e" * int(n) for n in lengths[:, 1]),
    )  # fmt: skip
    odds = lengths[:, 0] / lengths[:, 1]
    assert Entailment("J").scores(seen) == pytest.approx(odds / (odds + 2), rel=1e-12)
    # two of its 60 places are the judge's own
    assert judge.limits == {58}


def test_labels_that_deny_entailment_are_none() -> None:
    assert _labels({0: "not_entailment", 1: "entailment"}) == [1]
    assert _labels({"0": "ENTAILMENT", "1": "NON_ENTAILMENT", "2": "no_entailment"}) == [0]
    assert _labels({0: "LABEL_0", 1: "neutral"}) == []
