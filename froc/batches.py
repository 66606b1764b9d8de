"""Text -> token tensors. The only place that knows where an answer begins and ends.

Shapes: B rows, T tokens (right-padded to the longest row of the batch).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from froc.data import Row
from froc.errors import InputError


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as token ids: prompt, answer, and what ends the answer (end-of-text, end-of-turn)."""

    ids: tuple[int, ...]
    prompt: int
    answer: int


@dataclass(frozen=True)
class Batch:
    """Rows as tensors on one device.

    index: (B,) position of each row in its pool. ids, attention: (B, T) int64.
    trained: (B, T) bool, tokens whose prediction is trained: the answer and its end.
    measured: (B, T) bool, tokens whose prediction is measured: the answer alone, since an end is easily guessed.
    """

    index: torch.Tensor
    ids: torch.Tensor
    attention: torch.Tensor
    trained: torch.Tensor
    measured: torch.Tensor


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
    """Right-padded tensors of the rows at `index`; padding is never attended to, trained or measured."""
    chosen = [rows[i] for i in index]
    lengths = torch.tensor([len(row.ids) for row in chosen])
    width = int(lengths.max())
    ids = torch.zeros(len(chosen), width, dtype=torch.long)
    for i, row in enumerate(chosen):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
    place = torch.arange(width)[None, :]
    start = torch.tensor([row.prompt for row in chosen])[:, None]
    stop = start + torch.tensor([row.answer for row in chosen])[:, None]
    inside = place < lengths[:, None]
    tensors = (
        torch.tensor(list(index)),
        ids,
        inside.long(),
        (place >= start) & inside,
        (place >= start) & (place < stop),
    )
    return Batch(*(tensor.to(device) for tensor in tensors))


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
