"""Metrics against formulas written anew from public code, in that code's layout: padded rows, labels of -100, shifted logits.

Public code counts an answer's end among its tokens where it averages likelihoods; froc leaves it out (docs/tasks.md), and so do the
labels here.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from froc import fidelity
from froc.data.task import Row
from froc.measuring.metric import Metric, Observation
from froc.measuring.model_observation import observe
from froc.metrics.membership import Membership
from froc.plugins import find, make, names
from tests.methods.part_losses import tiny_statistics
from tests.training.small import NO_TOKENIZER

IGNORED = -100
Array = NDArray[np.float64]


def labelled(logits: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each row's (A, V) log-probabilities at the positions before labels, and its (A,) labels."""
    logp = logits[:, :-1].log_softmax(-1)
    kept = labels[:, 1:] != IGNORED
    return [(logp[i][kept[i]], labels[i, 1:][kept[i]]) for i in range(len(labels))]


Rows = Sequence[tuple[Tensor, Tensor]]


def token_logp(rows: Rows) -> list[Array]:
    return [logp.gather(1, label[:, None])[:, 0].numpy() for logp, label in rows]


def exact(rows: Rows) -> list[float]:
    return [float((logp.argmax(-1) == label).double().mean()) for logp, label in rows]


def extraction(rows: Rows) -> list[float]:
    """1 - k / A for the first k from which all tokens are right; 0 where the last is wrong (public code: 1 / A)."""
    scores = []
    for logp, label in rows:
        right = (logp.argmax(-1) == label).tolist()
        scores.append(next((1 - k / len(right) for k in range(len(right)) if all(right[k:])), 0.0))
    return scores


def lowest(values: Sequence[Array], k: float) -> list[float]:
    return [float(np.sort(row)[: max(1, int(len(row) * k))].mean()) for row in values]


def standardised(rows: Rows) -> list[Array]:
    made = []
    for (logp, _), own in zip(rows, token_logp(rows), strict=True):
        mean = (logp.exp() * logp).sum(-1)
        variance = ((logp.exp() * logp.square()).sum(-1) - mean.square()).clamp_min(1e-6)
        made.append((own - mean.numpy()) / variance.sqrt().numpy())
    return made


@pytest.fixture(scope="module")
def seen() -> tuple[Observation, Rows]:
    """A model that predicts some tokens rightly, observed and in the layout of public code."""
    made = tiny_statistics()
    model: Any = made.base.model
    encoded = [*made.pools.rows["forget"], *made.pools.rows["retain"]]
    queries = tuple(Row("who", f"answer {i % 3} of {i}") for i in range(len(encoded)))
    # half of the answers' tokens are what the model itself would say
    draw = np.random.default_rng(3)
    for i, row in enumerate(encoded):
        tokens = list(row.ids)
        for place in range(row.prompt, row.prompt + row.answer):
            if draw.random() < 0.6:
                tokens[place] = int(model(input_ids=torch.tensor([tokens[:place]])).logits[0, -1].argmax())
        encoded[i] = replace(row, ids=tuple(tokens))
    width = max(len(row.ids) for row in encoded)
    ids = torch.tensor([[*row.ids, *[7] * (width - len(row.ids))] for row in encoded])
    answer = torch.tensor([[row.prompt <= k < row.prompt + row.answer for k in range(width)] for row in encoded])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        observation = observe(model, NO_TOKENIZER, encoded, queries, frozenset({"token_moments"}))
    return observation, labelled(logits, ids.masked_fill(~answer, IGNORED))


def test_scores_of_tokens_are_those_of_public_code(seen: tuple[Observation, Rows]) -> None:
    observation, rows = seen
    assert 0.2 < np.mean(exact(rows)) < 0.95
    assert make(Metric, "exact_memorization").scores(observation).tolist() == pytest.approx(exact(rows))
    assert make(Metric, "extraction_strength").scores(observation).tolist() == pytest.approx(extraction(rows))
    probability = [float(np.exp(own.mean())) for own in token_logp(rows)]
    assert make(Metric, "probability").scores(observation).tolist() == pytest.approx(probability, rel=1e-5)


MEMBERSHIP: dict[str, Callable[[Rows, Sequence[str]], list[float]]] = {
    "loss": lambda rows, _: [float(own.mean()) for own in token_logp(rows)],
    "min_k": lambda rows, _: lowest(token_logp(rows), 0.4),
    "min_k_pp": lambda rows, _: lowest(standardised(rows), 0.4),
    "zlib": lambda rows, texts: [
        float(own.mean()) / len(zlib.compress(text.encode())) for own, text in zip(token_logp(rows), texts, strict=True)
    ],
}


@pytest.mark.parametrize("score", MEMBERSHIP)
def test_membership_scores_are_those_of_public_code(seen: tuple[Observation, Rows], score: str) -> None:
    """Public code gives the negative: there a low number means a member."""
    observation, rows = seen
    expected = MEMBERSHIP[score](rows, [row.answer for row in observation.rows])
    assert Membership(score).familiar(observation).tolist() == pytest.approx(expected, rel=1e-4)


def test_truth_ratio_and_options_are_those_of_public_code() -> None:
    """From mean losses of the true answer and of two false ones."""
    draw = np.random.default_rng(5)
    true, false = draw.uniform(0.1, 3, 20), draw.uniform(0.1, 3, (20, 2))
    rows = tuple(Row("q", "a", others=("b", "c")) for _ in range(20))
    observation = Observation(
        np.ones((20, 1), bool), -true[:, None].astype(np.float32), np.ones(20, np.int64), rows=rows,
        others=np.stack([-false * 4, -false], axis=2).astype(np.float32), restated=np.full((20, 2), np.nan, np.float32),
    )  # fmt: skip
    right, wrong = np.exp(-true), np.exp(-false.mean(axis=1))
    ratio = wrong / right
    forms = {
        "share": right / (right + wrong),
        "margin": np.maximum(0, 1 - ratio),
        "ratio": 1 - np.minimum(ratio, 1 / ratio),
    }
    for form, expected in forms.items():
        metric = make(Metric, "truth_ratio", {"form": form, "mean": "geometric"})
        assert metric.scores(observation).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    options = right / (right + np.exp(-false).sum(axis=1))
    assert make(Metric, "probability_options").scores(observation).tolist() == pytest.approx(options.tolist(), rel=1e-4)


def test_word_overlap_is_that_of_public_code() -> None:
    """ROUGE-L by its definition: the longest common subsequence of lower-case runs of letters and digits, by the textbook's table."""
    draw = np.random.default_rng(1)
    vocabulary = ["Ada", "wrote", "the", "first", "program", "in", "1843", "re-read", "snake_case"]
    texts = [" ".join(draw.choice(vocabulary, draw.integers(1, 9))) for _ in range(60)]

    def split(text: str) -> list[str]:
        return "".join(c if c.isalnum() else " " for c in text.lower()).split()

    def longest(a: list[str], b: list[str]) -> int:
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, left in enumerate(a):
            for j, right in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if left == right else max(table[i, j + 1], table[i + 1, j])
        return int(table[-1, -1])

    written, expected = tuple(texts[:30]), tuple(texts[30:])
    observation = Observation(
        np.ones((30, 1), bool), np.zeros((30, 1), np.float32), np.ones(30, np.int64), written=written, expected=expected
    )
    recall = [longest(split(a), split(b)) / len(split(b)) for a, b in zip(written, expected, strict=True)]
    assert make(Metric, "rouge_l").scores(observation).tolist() == pytest.approx(recall)


CHECKED = {
    "exact_memorization", "extraction_strength", "membership", "probability", "probability_options", "rouge_l", "truth_ratio",
}  # fmt: skip
"""Metrics that the tests above hold against public code."""


def test_no_metric_claims_a_check_that_is_not_here() -> None:
    assert {name for name in names(Metric) if fidelity.of(find(Metric, name)) == "code-checked"} == CHECKED
