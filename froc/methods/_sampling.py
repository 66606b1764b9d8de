"""Answers that the model as it stands draws, and how likely tokens are to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from froc.batches import Counts, Encoded, Stack, by_length
from froc.errors import FrocError
from froc.forward import Forward

ROWS = 64


def sampled(model: PreTrainedModel, asked: Sequence[Encoded], most: Counts, seed: int) -> list[Encoded]:
    """An answer to each row's prompt, drawn token by token at temperature 1; same model, rows and seed, same answers.

    It stops at the token that ends the row's own answer, which is kept, or at (rows,) `most` tokens without one. FrocError where
    likelihoods are no numbers.
    """
    device = next(model.parameters()).device
    prompts = [row.ids[: row.prompt] for row in asked]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(one)) + list(one) for one in prompts], device=device)
    real = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
    ends = sorted({end for row in asked for end in _end(row)})
    with _plainly(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        told = model.generate(  # type: ignore[operator]  # generation comes by a mixin that the stubs do not know
            input_ids=ids,
            attention_mask=real,
            max_new_tokens=int(most.max()),
            do_sample=True,
            top_k=0,
            eos_token_id=ends or None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([_finite]),
        )
    return [_cut(row, one, int(own)) for row, one, own in zip(asked, told[:, width:].tolist(), most, strict=True)]


@contextmanager
def _plainly(model: Any) -> Iterator[None]:
    """Without a model's own habits of generation: what is drawn must have the probabilities that training reads."""
    kept = model.generation_config
    try:
        model.generation_config = GenerationConfig()
        yield
    finally:
        model.generation_config = kept


def _finite(_ids: Tensor, scores: Tensor) -> Tensor:
    # no number, too large a one, or none above -inf: in each case the largest says so
    if not bool(scores.amax(-1).isfinite().all()):
        raise FrocError("the model's likelihoods are no longer numbers")
    return scores


def _end(row: Encoded) -> tuple[int, ...]:
    """The token that ends the answer, if any."""
    return row.ids[row.prompt + row.answer :][:1]


def _cut(row: Encoded, told: Sequence[int], most: int) -> Encoded:
    some, end = tuple(told[:most]), _end(row)
    stop = some.index(end[0]) if end and end[0] in some else len(some)
    return Encoded((*row.ids[: row.prompt], *some[: stop + 1]), row.prompt, stop)


@torch.no_grad()
def likelihoods(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """(rows, tokens of the longest answer and its end) log-probabilities; 0 where a row has no such token."""
    stack = Stack(rows, next(model.parameters()).device)
    found = torch.zeros(len(rows), int((stack.length - stack.start).max()), device=stack.ids.device)
    for index in by_length(rows, ROWS):
        forward = Forward.of(model, stack.batch(np.asarray(index)))
        found[torch.tensor(index, device=found.device)[forward.row], forward.place] = -forward.nll.to(found)
    return found
