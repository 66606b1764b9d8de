"""Text -> token tensors. The only place that knows where an answer begins and ends.

Shapes: B rows, T tokens (right-padded to the longest row of the batch).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from froc.data import Row
from froc.errors import InputError

Counts = NDArray[np.int64]
MOST = 6
"""Passes that the rows of one step are cut into at most, for their lengths' sake."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as token ids: prompt, answer, and what ends the answer (end-of-text, end-of-turn)."""

    ids: tuple[int, ...]
    prompt: int
    answer: int

    @property
    def told(self) -> tuple[int, ...]:
        """The answer's tokens, without what ends it."""
        return self.ids[self.prompt : self.prompt + self.answer]

    @property
    def ending(self) -> tuple[int, ...]:
        """What ends the answer."""
        return self.ids[self.prompt + self.answer :]


class Batch:
    """B rows as tensors on one device.

    index: (B,) position of each row in its pool. ids: (B, T) int64. start, stop: (B,) on the host, the columns of the
    answer; length: (B,) on the host, with what ends the answer.
    """

    def __init__(self, index: Tensor, ids: Tensor, start: Counts, stop: Counts, length: Counts) -> None:
        self.index, self.ids, self.start, self.stop, self.length = index, ids, start, stop, length

    @cached_property
    def attention(self) -> Tensor:
        """(B, T) int64, 1 on real tokens. Causal models need none of it for rows padded on the right."""
        return self._columns(np.zeros_like(self.length), self.length).long()

    @cached_property
    def trained(self) -> Tensor:
        """(B, T) bool, tokens whose prediction is trained: the answer and its end."""
        return self._columns(self.start, self.length)

    @cached_property
    def measured(self) -> Tensor:
        """(B, T) bool, tokens whose prediction is measured: the answer alone, since an end is easily guessed."""
        return self._columns(self.start, self.stop)

    @cached_property
    def telling(self) -> Tensor:
        """(B, T) bool, positions whose hidden states stand for the answer: those that predict it and its end, but no row's first.

        Models keep constant states a hundred times as large at the first token (2402.17762), which would be most of any mean.
        """
        return self._columns(np.maximum(self.start - 1, 1), self.length - 1)

    def predicting(self, end: bool) -> tuple[Counts, Counts]:
        """(N,) rows and (N,) columns, in order, of the positions that predict the answer, its `end` too or not.

        Worked out on the host from lengths: finding them in a mask would wait for the device.
        """
        count = (self.length if end else self.stop) - self.start
        row = np.repeat(np.arange(len(count)), count)
        first = np.repeat(self.start - 1 - (np.cumsum(count) - count), count)
        return row, np.arange(len(row)) + first

    def _columns(self, start: Counts, stop: Counts) -> Tensor:
        place = np.arange(self.ids.shape[1])
        return torch.from_numpy((place >= start[:, None]) & (place < stop[:, None])).to(self.ids.device)


class Stack:
    """Rows as one padded tensor on a device, made once; a batch is a slice of it.

    ids: (N, T) int32. start, stop, length: (N,) on the host, see `Batch`.
    """

    def __init__(self, rows: Sequence[Encoded], device: torch.device | str) -> None:
        self.length = np.array([len(row.ids) for row in rows], dtype=np.int64)
        self.start = np.array([row.prompt for row in rows], dtype=np.int64)
        self.stop = self.start + np.array([row.answer for row in rows], dtype=np.int64)
        ids = np.zeros((len(rows), int(self.length.max(initial=0))), dtype=np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
        self.ids = torch.from_numpy(ids).to(device)

    def batch(self, index: Sequence[int] | Counts) -> Batch:
        """The rows at `index`, padded to the longest of them; padding is never trained or measured."""
        some = np.asarray(index, dtype=np.int64)
        place = torch.from_numpy(some).to(self.ids.device)
        ids = self.ids[place, : int(self.length[some].max())].long()
        return Batch(place, ids, self.start[some], self.stop[some], self.length[some])


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], template: str, max_length: int = 1024
) -> list[Encoded]:
    """Tokenise rows: chat template where the tokenizer has one, else the task's template.

    Prompt and answer are tokenised apart, so that the prompt's tokens are the same whatever the answer.
    Rows of plain text have a prompt of one token: the first token cannot be predicted.
    """
    texts = [_parts(tokenizer, row, template) for row in rows]
    prompts = _ids(tokenizer, [prompt for prompt, _, _ in texts], special=tokenizer.chat_template is None)
    answers = _ids(tokenizer, [answer for _, answer, _ in texts], special=False)
    ends = _ids(tokenizer, [end for _, _, end in texts], special=False)
    close = [] if tokenizer.chat_template or tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    made = []
    for number, (prompt, answer, end) in enumerate(zip(prompts, answers, ends, strict=True), start=1):
        if not prompt:
            prompt, answer = answer[:1], answer[1:]
        if not answer:
            raise InputError(f"row {number} has an answer of no tokens under this tokenizer; remove the row")
        whole = [*prompt, *answer, *end, *close]
        if len(whole) > max_length:
            raise InputError(f"row {number} has {len(whole)} tokens, more than {max_length}; shorten it")
        made.append(Encoded(tuple(whole), len(prompt), len(answer)))
    return made


def collate(rows: Sequence[Encoded], index: Sequence[int], device: torch.device | str) -> Batch:
    """A batch of the rows at `index`, for those who need it once."""
    batch = Stack([rows[i] for i in index], device).batch(range(len(index)))
    batch.index = torch.tensor(list(index), device=device)
    return batch


def chunks(length: Counts, overhead: int, limit: int | None = None) -> list[Counts]:
    """Positions of rows cut into passes of similar length, at most `limit` rows each.

    Cut into as many equal parts as makes padded tokens and `overhead` tokens per pass fewest.
    """
    order = np.argsort(length, kind="stable")
    least = 1 if limit is None else -(-len(order) // limit)
    cuts = [np.array_split(order, parts) for parts in range(least, max(least, min(MOST, len(order))) + 1)]
    return min(cuts, key=lambda cut: sum(len(part) * int(length[part[-1]]) + overhead for part in cut))


def by_length(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """Positions of rows in batches of similar length: little padding, same batches every time."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _parts(tokenizer: PreTrainedTokenizerBase, row: Row, template: str) -> tuple[str, str, str]:
    if not row.question:
        return "", row.answer, ""
    if tokenizer.chat_template:
        return _chat(tokenizer, row)
    prompt = template.replace("{question}", row.question).removesuffix("{answer}")
    bare = prompt.rstrip(" ")
    # the blank before an answer belongs to its first token in every byte-pair and unigram vocabulary
    return bare, prompt[len(bare) :] + row.answer, ""


def _chat(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[str, str, str]:
    asked = [{"role": "user", "content": row.question}]
    told = [*asked, {"role": "assistant", "content": row.answer}]
    prompt: Any = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole: Any = tokenizer.apply_chat_template(told, tokenize=False)
    at = whole.rfind(row.answer)
    if not whole.startswith(prompt) or at < 0:
        # templates that rewrite earlier turns: take the prompt as given, and the end-of-text token as the end
        return prompt, row.answer, tokenizer.eos_token or ""
    stop = at + len(row.answer)
    return whole[:at], row.answer, whole[stop:].rstrip("\n")


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool) -> list[list[int]]:
    filled = [text or " " for text in texts]
    made: Any = tokenizer(filled, add_special_tokens=special)["input_ids"]
    return [[] if not text else list(ids) for text, ids in zip(texts, made, strict=True)]
