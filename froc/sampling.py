"""Answers that a model as it stands draws, token by token, at temperature 1."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from froc.batches import Counts, Encoded
from froc.errors import FrocError

ROWS = 64
"""Rows that are written at a time."""


def sampled(
    model: PreTrainedModel, asked: Sequence[Encoded], most: Counts, seed: int, banned: Sequence[Sequence[int]] = ()
) -> list[Encoded]:
    """An answer to each row's prompt; same model, rows and seed, same answers.

    It stops at the token that ends the row's own answer, which is kept, or at (rows,) `most` tokens without one. banned: tokens that
    each row's answer must not begin with. FrocError where likelihoods are no numbers.
    """
    device = next(model.parameters()).device
    found: list[Encoded] = []
    with _plainly(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(asked), ROWS):
            part = slice(start, start + ROWS)
            found += _written(model, asked[part], most[part], banned[part], device)
    return found


def _written(
    model: Any, asked: Sequence[Encoded], most: Counts, banned: Sequence[Sequence[int]], device: torch.device
) -> list[Encoded]:
    prompts = [row.ids[: row.prompt] for row in asked]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(one)) + list(one) for one in prompts], device=device)
    real = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
    ends = {row.ending[:1] for row in asked}

    def ruled(told: Tensor, scores: Tensor) -> Tensor:
        # no number, too large a one, or none above -inf: in each case the largest says so
        if not bool(scores.amax(-1).isfinite().all()):
            raise FrocError("the model's likelihoods are no longer numbers")
        if told.shape[1] == width:
            for row, tokens in enumerate(banned):
                scores[row, list(tokens)] = -torch.inf
        return scores

    told = model.generate(
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


def _cut(row: Encoded, told: Sequence[int], most: int) -> Encoded:
    some, end = tuple(told[:most]), row.ending[:1]
    stop = some.index(end[0]) if end and end[0] in some else len(some)
    return Encoded((*row.ids[: row.prompt], *some[: stop + 1]), row.prompt, stop)
