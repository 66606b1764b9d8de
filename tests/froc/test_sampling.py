"""What a model writes: without its own habits, no further than its positions, to the end that its answers have."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from froc.alternates import alternates
from froc.batches import Encoded
from froc.observe import observe
from froc.sampling import likeliest, sampled
from tests.froc.small import gpt2

V = 40


class Ids:
    """A tokenizer that has special tokens and no text."""

    eos_token_id = 0
    all_special_ids = (0,)

    def __init__(self, *markers: int) -> None:
        self.added_tokens_decoder = dict.fromkeys(markers)


TOKENIZER: Any = Ids()


@pytest.fixture
def model() -> Any:
    return gpt2(V, spread=0.6)


def _rows(count: int = 6, answer: int = 6) -> list[Encoded]:
    draw = np.random.default_rng(4)
    return [Encoded((*draw.integers(8, V, 3 + k + answer).tolist(), 0), 3 + k, answer) for k in range(count)]


HABITS = {
    "repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "min_new_tokens": 9, "forced_eos_token_id": 3,
    "suppress_tokens": list(range(8, V, 2)), "begin_suppress_tokens": list(range(9, V, 2)), "bad_words_ids": [[11], [12]],
}  # fmt: skip


@pytest.mark.parametrize("habit", HABITS)
def test_a_models_own_habits_of_generation_change_nothing(model: Any, habit: str) -> None:
    plain = likeliest(model, TOKENIZER, _rows(), 4)
    model.generation_config = GenerationConfig(**{habit: HABITS[habit]})
    assert likeliest(model, TOKENIZER, _rows(), 4) == plain
    assert getattr(model.generation_config, habit) == HABITS[habit]


def test_the_likeliest_token_is_written_each_time(model: Any) -> None:
    for row, told in zip(_rows(), likeliest(model, TOKENIZER, _rows(), 4), strict=True):
        ids = list(row.ids[: row.prompt])
        with torch.no_grad():
            for _ in range(row.answer + row.answer // 2 + 1):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert list(told) == ids[row.prompt :][: len(told)]
        assert len(told) == row.answer + row.answer // 2 + 1 or ids[row.prompt + len(told)] == 0


def test_a_text_ends_where_the_model_ends_texts_or_turns(model: Any) -> None:
    rows = _rows(1, 20)
    (whole,) = likeliest(model, TOKENIZER, rows, 4)
    assert len(set(whole)) > 2
    token = next(token for token in whole if token != whole[0])
    model.generation_config = GenerationConfig(eos_token_id=[token, 39])
    assert likeliest(model, TOKENIZER, rows, 4) == [whole[: whole.index(token)]]


def test_a_special_token_that_ends_answers_ends_texts_and_a_common_one_does_not(model: Any) -> None:
    rows = _rows(1, 20)
    (whole,) = likeliest(model, TOKENIZER, rows, 4)
    token = next(token for token in whole if token != whole[0])
    marked = [Encoded((*rows[0].ids[:-1], 5, token), 3, 20, blank=1)]
    assert marked[0].marker == (token,)
    assert likeliest(model, TOKENIZER, marked, 4) == [whole]
    special: Any = Ids(token)
    assert likeliest(model, special, marked, 4) == [whole[: whole.index(token)]]


def test_nothing_is_written_beyond_the_models_positions() -> None:
    """A short prompt with a long answer and a long prompt in one batch: together they would leave the positions."""
    model = gpt2(V, spread=0.6)
    assert model.config.n_positions == 64
    draw = np.random.default_rng(5)
    rows = [Encoded(tuple(draw.integers(8, V, 62).tolist()), prompt, 62 - prompt) for prompt in (2, 20, 58)]
    told = likeliest(model, TOKENIZER, rows, 8)
    assert [len(ids) <= 64 - row.prompt for ids, row in zip(told, rows, strict=True)] == [True] * 3
    assert told == [likeliest(model, TOKENIZER, [row], 8)[0] for row in rows]
    drawn = sampled(model, rows, np.full(3, 200), 0)
    assert all(len(row.ids) <= 64 for row in drawn)
    ended = [Encoded((*row.ids[:-2], 33, 34), row.prompt, row.answer - 2) for row in rows]
    made = alternates(model, ended, 0)
    assert [row.ending for row in made] == [(33, 34)] * 3
    assert all(len(row.ids) <= 64 for row in made)


def test_what_ends_an_answer_is_not_measured(model: Any) -> None:
    """Probability and truth ratio are of the answer alone: an end that a model is never to say is nothing forgotten."""
    rows = _rows()
    others = [Encoded((*row.ids[:-1], 33, 34), row.prompt, row.answer) for row in rows]
    one, two = observe(model, None, rows), observe(model, None, others)
    assert np.allclose(one.logp, two.logp, atol=1e-5)
    assert (one.length == two.length).all()
