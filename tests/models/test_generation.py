"""What a model writes: without its own habits, no further than its positions, to the end that its answers have."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from froc.errors import FrocError
from froc.measuring.model_observation import observe
from froc.methods.rule import likelihoods
from froc.models.batches import Encoded, Stack
from froc.models.forward import Pass
from froc.models.generation import greedy_answers, sample_answers
from froc.training.alternates import alternates
from tests.training.small import encoded, gpt2

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
    plain = greedy_answers(model, TOKENIZER, _rows(), 4)
    model.generation_config = GenerationConfig(**{habit: HABITS[habit]})
    assert greedy_answers(model, TOKENIZER, _rows(), 4) == plain
    assert getattr(model.generation_config, habit) == HABITS[habit]


def test_the_likeliest_token_is_written_each_time(model: Any) -> None:
    for row, answer in zip(_rows(), greedy_answers(model, TOKENIZER, _rows(), 4), strict=True):
        ids = list(row.ids[: row.prompt])
        with torch.no_grad():
            for _ in range(row.answer + row.answer // 2 + 1):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert list(answer) == ids[row.prompt :][: len(answer)]
        assert len(answer) == row.answer + row.answer // 2 + 1 or ids[row.prompt + len(answer)] == 0


def test_a_text_ends_where_the_model_ends_texts_or_turns(model: Any) -> None:
    rows = _rows(1, 20)
    (whole,) = greedy_answers(model, TOKENIZER, rows, 4)
    assert len(set(whole)) > 2
    token = next(token for token in whole if token != whole[0])
    model.generation_config = GenerationConfig(eos_token_id=[token, 39])
    assert greedy_answers(model, TOKENIZER, rows, 4) == [whole[: whole.index(token)]]


def test_a_special_token_that_ends_answers_ends_texts_and_a_common_one_does_not(model: Any) -> None:
    rows = _rows(1, 20)
    (whole,) = greedy_answers(model, TOKENIZER, rows, 4)
    token = next(token for token in whole if token != whole[0])
    marked = [Encoded((*rows[0].ids[:-1], 5, token), 3, 20, blank=1)]
    assert marked[0].marker == (token,)
    assert greedy_answers(model, TOKENIZER, marked, 4) == [whole]
    special: Any = Ids(token)
    assert greedy_answers(model, special, marked, 4) == [whole[: whole.index(token)]]


def test_nothing_is_written_beyond_the_models_positions() -> None:
    """A short prompt with a long answer and a long prompt in one batch: together they would leave the positions."""
    model = gpt2(V, spread=0.6)
    assert model.config.n_positions == 64
    draw = np.random.default_rng(5)
    rows = [Encoded(tuple(draw.integers(8, V, 62).tolist()), prompt, 62 - prompt) for prompt in (2, 20, 58)]
    answers = greedy_answers(model, TOKENIZER, rows, 8)
    assert [len(ids) <= 64 - row.prompt for ids, row in zip(answers, rows, strict=True)] == [True] * 3
    assert answers == [greedy_answers(model, TOKENIZER, [row], 8)[0] for row in rows]
    drawn = sample_answers(model, rows, np.full(3, 200), 0)
    assert all(len(row.ids) <= 64 for row in drawn)
    ended = [Encoded((*row.ids[:-2], 33, 34), row.prompt, row.answer - 2) for row in rows]
    made = alternates(model, ended, 0)
    assert [row.end_ids for row in made] == [(33, 34)] * 3
    assert all(len(row.ids) <= 64 for row in made)


def test_what_ends_an_answer_is_not_measured(model: Any) -> None:
    """Probability and truth ratio are of the answer alone: an end that a model is never to say is nothing forgotten."""
    rows = _rows()
    others = [Encoded((*row.ids[:-1], 33, 34), row.prompt, row.answer) for row in rows]
    observed, observed_with_ends = observe(model, None, rows), observe(model, None, others)
    assert np.allclose(observed.logp, observed_with_ends.logp, atol=1e-5)
    assert (observed.length == observed_with_ends.length).all()


V = 50


@pytest.fixture(scope="module")
def small() -> Any:
    """In float64: no rounding hides a wrong formula."""
    return gpt2(V).double()


def _likeliest(chances: Tensor, *_: Any, **__: Any) -> Tensor:
    return chances.argmax(-1, keepdim=True)


def test_answers_are_drawn_as_if_each_were_alone_and_stop_at_their_end(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the likeliest tokens, found without padding and without what is kept between tokens."""
    first = encoded(6, V, 11)
    prompts = [row.ids[: row.prompt] for row in first]
    likeliest: list[list[int]] = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(9):
            with torch.no_grad():
                ids.append(int(small(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        likeliest.append(ids[len(prompt) :])
    # each row's end is a token that its own likeliest answer has, third at the earliest, or none
    ends = [tokens[2] if k % 2 else V - 1 for k, tokens in enumerate(likeliest)]
    most = np.array([9, 9, 4, 9, 5, 2])
    with_ends = [Encoded((*p, 1, 2, end), len(p), 2) for p, end in zip(prompts, ends, strict=True)]
    for row, answer, own in zip(with_ends, likeliest, most, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "multinomial", _likeliest)
            (result,) = sample_answers(small, [row], np.array([own]), 0)
        end = row.ids[-1]
        stop = answer[:own].index(end) if end in answer[:own] else int(own)
        assert result.ids == (*row.ids[: row.prompt], *answer[: min(stop + 1, own)])
        assert (result.prompt, result.answer) == (row.prompt, stop)
    # together: with one end for all, and with ends that are tokens like any other to another row
    shared = [Encoded((*row.ids[:-1], V - 1), row.prompt, row.answer) for row in with_ends]
    for rows in (shared, with_ends):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "multinomial", _likeliest)
            alone = [sample_answers(small, [row], np.array([own]), 0)[0] for row, own in zip(rows, most, strict=True)]
            assert sample_answers(small, rows, most, 0) == alone


def test_no_answer_begins_with_what_is_ruled_out_and_the_rest_is_drawn_as_ever(small: Any) -> None:
    rows, most = encoded(6, V, 11) * 20, np.full(120, 5)
    free = sample_answers(small, rows, most, 3)
    firsts = {answer.ids[answer.prompt] for answer in free}
    banned = [tuple(range(k % 7, V, 2)) for k in range(120)]
    result = sample_answers(small, rows, most, 3, banned)
    assert all(
        answer.ids[answer.prompt] not in banned_tokens for answer, banned_tokens in zip(result, banned, strict=True)
    )
    assert any(answer.ids[answer.prompt] in banned_tokens for answer, banned_tokens in zip(free, banned, strict=True))
    # further on nothing is ruled out
    later = {
        token
        for answer, k in zip(result, range(120), strict=True)
        for token in answer.answer_ids[1:]
        if token in banned[k]
    }
    assert firsts
    assert later


def test_same_seed_same_answers_and_torch_draws_on_as_if_nothing_had_been(small: Any) -> None:
    rows, most = encoded(6, V, 11), np.full(6, 5)
    before = torch.get_rng_state()
    answers = sample_answers(small, rows, most, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert sample_answers(small, rows, most, 3) == answers
    assert sample_answers(small, rows, most, 4) != answers


def test_tokens_are_drawn_with_their_probabilities(small: Any) -> None:
    """Of 4000 answers to one question: counts of first tokens, and of second ones after the likeliest first, within five
    standard deviations; habits that the model brings change nothing."""
    count = 4000
    row = encoded(1, V, 12)[0]
    model = copy.deepcopy(small)
    model.generation_config.update(top_k=2, top_p=0.5, temperature=0.1, repetition_penalty=3.0, do_sample=True)
    rows = [Encoded((*row.ids[: row.prompt], 1), row.prompt, 1)] * count
    answers = sample_answers(model, rows, np.full(count, 2), 5)
    pairs = np.array([answer.ids[answer.prompt :][:2] for answer in answers])

    def close(drawn: np.ndarray, prompt: tuple[int, ...]) -> None:
        with torch.no_grad():
            p = small(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1).numpy()
        counts = np.bincount(drawn, minlength=V)
        assert p.max() < 0.9
        assert (np.abs(counts - len(drawn) * p) <= 5 * np.sqrt(len(drawn) * p * (1 - p)) + 1).all()

    close(pairs[:, 0], row.ids[: row.prompt])
    first = int(np.bincount(pairs[:, 0]).argmax())
    close(pairs[pairs[:, 0] == first, 1], (*row.ids[: row.prompt], first))


def test_likelihoods_are_each_rows_own(small: Any) -> None:
    rows = [*encoded(4, V, 13), Encoded((3, 4, 0), 2, 0)]
    result = likelihoods(small, rows)
    for row, likelihoods_of_row in zip(rows, result, strict=True):
        with torch.no_grad():
            alone = Pass(small, Stack([row], "cpu").batch([0])).nll
        assert likelihoods_of_row[: len(alone)].tolist() == pytest.approx((-alone).tolist(), rel=1e-5)
        assert bool((likelihoods_of_row[len(alone) :] == 0).all())


@pytest.mark.parametrize(("tokens", "wrong"), [([3], math.nan), ([3], math.inf), (list(range(V)), -math.inf)])
def test_a_diverged_model_is_an_error_that_says_so(small: Any, tokens: list[int], wrong: float) -> None:
    def spoil(_module: Any, _args: Any, scores: Tensor) -> Tensor:
        return scores.index_fill(-1, torch.tensor(tokens), wrong)

    model = copy.deepcopy(small)
    model.lm_head.register_forward_hook(spoil)
    with pytest.raises(FrocError, match="no longer numbers"):
        sample_answers(model, encoded(3, V, 1), np.full(3, 2), 0)
