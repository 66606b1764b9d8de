"""Answers that a model as it stands writes, token by token: the likeliest ones, or drawn at temperature 1.

Both without a model's own habits of generation (penalties, bans, forced tokens): what is written must have the
probabilities that training and other metrics read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from froc.errors import FrocError
from froc.models.batches import Counts, Encoded, Limits, by_length

ROWS = 64
"""Rows that are drawn at a time."""


def sample_answers(
    model: PreTrainedModel, questions: Sequence[Encoded], most: Counts, seed: int, banned: Sequence[Sequence[int]] = ()
) -> list[Encoded]:
    """An answer to each row's prompt; same model, rows and seed, same answers.

    It stops at the token that ends the row's own answer, which is kept, or at (rows,) `most` tokens without one, or where
    the model's positions end. banned: tokens that each row's answer must not begin with. FrocError where likelihoods are no
    numbers.
    """
    device = next(model.parameters()).device
    most = np.minimum(most, _room(model, questions))
    parts = [list(range(start, min(start + ROWS, len(questions)))) for start in range(0, len(questions), ROWS)]
    answers = list(questions)
    with default_generation(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for index in _fitting(model, parts, questions, most):
            rows, ruled_out = [questions[i] for i in index], [banned[i] for i in index] if banned else ()
            for i, row in zip(index, _drawn(model, rows, most[index], ruled_out, device), strict=True):
                answers[i] = row
    return answers


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded], size: int
) -> list[tuple[int, ...]]:
    """Greedy continuations of the prompts, each as long as its answer and half as much again, whatever its batch.

    Each stops before a token by which the model ends texts or turns, or where its positions end.
    """
    most = np.minimum([row.answer + row.answer // 2 + 1 for row in rows], _room(model, rows))
    ends = _ends(model, tokenizer, rows)
    written: list[tuple[int, ...]] = [()] * len(rows)
    device = next(model.parameters()).device
    with default_generation(model):
        for index in _fitting(model, by_length(rows, size), rows, most):
            prompts, real = _padded([rows[i] for i in index], device)
            # generation comes by a mixin that the stubs do not know
            writer: Any = model
            generated = writer.generate(
                input_ids=prompts,
                attention_mask=real,
                do_sample=False,
                max_new_tokens=int(most[index].max()),
                eos_token_id=sorted(ends) or None,
                pad_token_id=min(ends, default=0),
            )
            for i, ids in zip(index, generated[:, prompts.shape[1] :].tolist(), strict=True):
                own = ids[: most[i]]
                written[i] = tuple(own[: next((k for k, token in enumerate(own) if token in ends), len(own))])
    return written


def _ends(model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded]) -> set[int]:
    """Tokens that end a text or a turn: the model's, the tokenizer's, and markers that end the rows' own answers."""
    named = [model.generation_config.eos_token_id, tokenizer.eos_token_id]
    known = {
        int(token)
        for token_ids in named
        if token_ids is not None
        for token in (token_ids if isinstance(token_ids, list) else [token_ids])
    }
    # a marker that is written in common letters may stand within an answer
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    return known | ({token for row in rows for token in row.marker} & special)


def _room(model: PreTrainedModel, rows: Sequence[Encoded]) -> Counts:
    """(rows,) tokens that the model's positions leave between each prompt and what ends its answer, one at least."""
    positions = Limits.of(model).positions or 2**31
    taken = np.array([row.prompt + len(row.end_ids) for row in rows], dtype=np.int64)
    return np.maximum(positions - taken, 1)


def _fitting(
    model: PreTrainedModel, batches: Sequence[list[int]], rows: Sequence[Encoded], most: Counts
) -> Iterator[list[int]]:
    """The batches, in parts where the longest prompt with the longest answer would leave the model's positions."""
    positions = Limits.of(model).positions or 2**31
    for index in batches:
        if len(index) == 1 or max(rows[i].prompt for i in index) + int(most[index].max()) <= positions:
            yield index
        else:
            index = sorted(index, key=lambda i: rows[i].prompt)
            yield from _fitting(model, [index[: len(index) // 2], index[len(index) // 2 :]], rows, most)


def _padded(rows: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) prompts, padded on the left with token 0, and where they are."""
    prompts = [row.ids[: row.prompt] for row in rows]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    real = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, real


def _drawn(
    model: Any, questions: Sequence[Encoded], most: Counts, banned: Sequence[Sequence[int]], device: torch.device
) -> list[Encoded]:
    ids, real = _padded(questions, device)
    width = ids.shape[1]
    ends = {row.marker for row in questions}

    def ruled(generated: Tensor, scores: Tensor) -> Tensor:
        # no number, too large a one, or none above -inf: in each case the largest says so
        if not bool(scores.amax(-1).isfinite().all()):
            raise FrocError("the model's likelihoods are no longer numbers")
        if generated.shape[1] == width:
            for row, tokens in enumerate(banned):
                scores[row, list(tokens)] = -torch.inf
        return scores

    generated = model.generate(
        input_ids=ids,
        attention_mask=real,
        max_new_tokens=int(most.max()),
        do_sample=True,
        top_k=0,
        # where ends differ, one row's is a token like any other to another row
        eos_token_id=list(ends.pop()) or None if len(ends) == 1 else None,
        pad_token_id=0,
        logits_processor=LogitsProcessorList([ruled]),
    )
    return [
        _cut(row, drawn, int(own))
        for row, drawn, own in zip(questions, generated[:, width:].tolist(), most, strict=True)
    ]


@contextmanager
def default_generation(model: Any) -> Iterator[None]:
    """Without a model's own habits of generation."""
    kept = model.generation_config
    try:
        model.generation_config = GenerationConfig()
        yield
    finally:
        model.generation_config = kept


def _cut(row: Encoded, tokens: Sequence[int], most: int) -> Encoded:
    ids, end = tuple(tokens[:most]), row.marker
    stop = ids.index(end[0]) if end and end[0] in ids else len(ids)
    return Encoded((*row.ids[: row.prompt], *ids[: stop + 1]), row.prompt, stop)
