"""Rows as token tensors; `froc.data.prompts` decides where an answer begins and ends.

Shapes: B rows, T tokens (right-padded to the longest row of the batch), N predicting positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.data.prompts import PromptFormat, tokenised
from froc.data.rows import Row
from froc.errors import InputError

Counts = NDArray[np.int64]
LONGEST = 1024
"""Largest number of tokens per row, for any model."""
MOST = 6
"""Largest number of passes that a step's rows are split into by length."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as token ids: the prompt, the answer, and the end of the answer (end-of-text or end-of-turn).

    ids: all tokens.
    prompt: number of prompt tokens.
    answer: number of answer tokens, without the end.
    blank: number of whitespace tokens between the answer and its end token, as in Llama 2's template.
    """

    ids: tuple[int, ...]
    prompt: int
    answer: int
    blank: int = 0

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The answer's tokens, without its end."""
        return self.ids[self.prompt : self.prompt + self.answer]

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens of the answer's end."""
        return self.ids[self.prompt + self.answer :]

    @property
    def marker(self) -> tuple[int, ...]:
        """The token with which a model ends the answer, as a tuple; () if there is none."""
        return self.end_ids[self.blank : self.blank + 1]


@dataclass(frozen=True)
class Limits:
    """Limits of a model.

    positions: tokens per row; None if unlimited.
    vocabulary: number of token ids; None if unknown.
    """

    positions: int | None = None
    vocabulary: int | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Limits":
        """From the model's configuration and its embedding."""
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        embedding = getattr(model.get_input_embeddings(), "weight", None)
        return cls(
            positions if isinstance(positions, int) and positions > 0 else None,
            None if embedding is None else int(embedding.shape[0]),
        )

    def without(self, tokens: int) -> "Limits":
        """The limits left when `tokens` tokens are added to each row."""
        return self if self.positions is None else replace(self, positions=self.positions - tokens)

    def refuse(self, ids: Sequence[int], place: str) -> None:
        """InputError where the model cannot process a row's tokens."""
        if self.positions is not None and len(ids) > self.positions < LONGEST:
            raise InputError(
                f"{place} has {len(ids)} tokens, more than the model's {self.positions} positions; shorten it"
            )
        if len(ids) > LONGEST:
            raise InputError(f"{place} has {len(ids)} tokens, more than {LONGEST}; shorten it")
        if self.vocabulary is not None and max(ids) >= self.vocabulary:
            raise InputError(
                f"{place} has a token beyond the model's {self.vocabulary} embeddings; give the tokenizer that belongs to the model"
            )


class Batch:
    """B rows as tensors on one device.

    index: (B,) position of each row in its pool.
    ids: (B, T) int64.
    start, stop: (B,) on the host, the answer's first column and the one after its last.
    length: (B,) on the host, tokens of the row with the answer's end.
    """

    def __init__(self, index: Tensor, ids: Tensor, start: Counts, stop: Counts, length: Counts) -> None:
        self.index, self.ids, self.start, self.stop, self.length = index, ids, start, stop, length

    @cached_property
    def attention(self) -> Tensor:
        """(B, T) int64, 1 for tokens, 0 for padding. Causal models do not need it for rows padded on the right."""
        return self._columns(np.zeros_like(self.length), self.length).long()

    @cached_property
    def trained(self) -> Tensor:
        """(B, T) bool, tokens whose prediction is trained: the answer and its end."""
        return self._columns(self.start, self.length)

    @cached_property
    def measured(self) -> Tensor:
        """(B, T) bool, tokens whose prediction is measured: the answer only, since its end is easy to guess."""
        return self._columns(self.start, self.stop)

    @cached_property
    def answer_states(self) -> Tensor:
        """(B, T) bool, positions whose hidden states represent the answer: those that predict it and its end, except a row's first.

        Models keep constant states a hundred times as large at the first token (2402.17762), which would dominate any
        mean.
        """
        return self._columns(np.maximum(self.start - 1, 1), self.length - 1)

    def predicting(self, end: bool) -> tuple[Counts, Counts]:
        """(N,) rows and (N,) columns, in order, of the positions that predict the answer, and its end if `end`.

        Computed on the host from lengths: finding them in a mask would wait for the device.
        """
        count = (self.length if end else self.stop) - self.start
        row = np.repeat(np.arange(len(count)), count)
        first = np.repeat(self.start - 1 - (np.cumsum(count) - count), count)
        return row, np.arange(len(row)) + first

    def _columns(self, start: Counts, stop: Counts) -> Tensor:
        place = np.arange(self.ids.shape[1])
        return on_device((place >= start[:, None]) & (place < stop[:, None]), self.ids.device)


def on_device(values: NDArray[Any], device: torch.device | str) -> Tensor:
    """Numbers of the host as a tensor on a device, without waiting until the device has done its work.

    CUDA copies from pinned memory when it comes to it, and keeps that memory until then.
    """
    tensor = torch.from_numpy(values)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Stack:
    """Rows as one padded tensor on a device, built once; a batch is a slice of it.

    ids: (N, T) int32.
    start, stop, length: (N,) on the host, see `Batch`.
    """

    def __init__(self, rows: Sequence[Encoded], device: torch.device | str) -> None:
        self.length = np.array([len(row.ids) for row in rows], dtype=np.int64)
        self.start = np.array([row.prompt for row in rows], dtype=np.int64)
        self.stop = self.start + np.array([row.answer for row in rows], dtype=np.int64)
        ids = np.zeros((len(rows), int(self.length.max(initial=0))), dtype=np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
        self.ids = on_device(ids, device)

    def batch(self, index: Sequence[int] | Counts) -> Batch:
        """The rows at `index`, padded to the longest of them."""
        rows = np.asarray(index, dtype=np.int64)
        place = on_device(rows, self.ids.device)
        ids = self.ids[place, : int(self.length[rows].max())].long()
        return Batch(place, ids, self.start[rows], self.stop[rows], self.length[rows])


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    form: PromptFormat | str,
    limits: Limits = Limits(),
    name: str = "queries",
) -> list[Encoded]:
    """Tokenise rows with the tokenizer's chat template, or with the task's template if it has none.

    form: the prompt format, or the task's template as text.
    limits: of the model.
    name: how messages call rows that come from no file.

    InputError, naming file and row, where a template refuses a row, an answer has no tokens, or the model cannot
    process it.
    """
    form = PromptFormat(form) if isinstance(form, str) else form
    places = [row.at(name, number) for number, row in enumerate(rows, start=1)]
    blanks: dict[tuple[int, ...], int] = {}
    made = []
    for tokens, place in zip(tokenised(tokenizer, rows, form, places), places, strict=True):
        if not tokens.answer:
            raise InputError(f"{place} has an answer of no tokens under this tokenizer; remove the row")
        if tokens.end not in blanks:
            blanks[tokens.end] = _blank(tokenizer, tokens.end)
        ids = (*tokens.prompt, *tokens.answer, *tokens.end)
        limits.refuse(ids, place)
        made.append(Encoded(ids, len(tokens.prompt), len(tokens.answer), blanks[tokens.end]))
    return made


def _blank(tokenizer: PreTrainedTokenizerBase, end: Sequence[int]) -> int:
    """Number of whitespace tokens at the beginning of an end; 0 if it is nothing but whitespace."""
    texts = [str(tokenizer.decode([token])) for token in end]
    return next((place for place, text in enumerate(texts) if text.strip()), 0)


def collate(rows: Sequence[Encoded], index: Sequence[int], device: torch.device | str) -> Batch:
    """A batch of the rows at `index`, for single use."""
    batch = Stack([rows[i] for i in index], device).batch(range(len(index)))
    batch.index = torch.tensor(list(index), device=device)
    return batch


def chunks(length: Counts, overhead: int, limit: int | None = None) -> list[Counts]:
    """Positions of rows in passes of similar length, at most `limit` rows each.

    The number of equal parts minimises padded tokens plus `overhead` tokens per pass.
    """
    order = np.argsort(length, kind="stable")
    least = 1 if limit is None else -(-len(order) // limit)
    cuts = [np.array_split(order, parts) for parts in range(least, max(least, min(MOST, len(order))) + 1)]
    return min(cuts, key=lambda cut: sum(len(part) * int(length[part[-1]]) + overhead for part in cut))


def by_length(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """Positions of rows in batches of `size` rows of similar length, the same in each call: little padding."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    return [order[start : start + size] for start in range(0, len(order), size)]
