"""Whether a model's tokenizer reveals what is to be forgotten: its files ship with the model, and unlearning does not change them."""

from collections.abc import Iterable, Sequence
from typing import Any

from froc.data.task import FORGETTING, WORDINGS, Row, Task

FROM_DATA, HOLDS_TEXT = "from-the-data", "holds-forgotten-text"
"""What a plan records of a tokenizer related to the data: it was made from them, or it holds texts of them."""
LONGEST_WORD = 9
"""Single words of up to this many letters do not count: vocabularies of large corpora hold thousands of common ones."""


def judge(task: Task, tokenizer: Any) -> str | None:
    """What a plan records of the tokenizer; None where it holds nothing of the data, as far as known.

    tokenizer: the base model's (a `transformers` tokenizer).
    """
    if task.tokenizer_from_data:
        return FROM_DATA
    forgotten = [*task.forget, *task.queries[FORGETTING], *task.queries.get(WORDINGS, ())]
    return HOLDS_TEXT if held(tokenizer, forgotten) else None


def held(tokenizer: Any, rows: Sequence[Row]) -> int:
    """Number of rows with a question, answer or group that is a single token, or occurs in the chat template.

    Single words of up to LONGEST_WORD letters are not counted.
    """
    texts = sorted({text for row in rows for text in _texts(row)})
    template = str(getattr(tokenizer, "chat_template", None) or "")
    single = _single(tokenizer, texts) | _single(tokenizer, [f" {text}" for text in texts])
    shown = {text for text in texts if text in template or text in single or f" {text}" in single}
    return sum(not shown.isdisjoint(_texts(row)) for row in rows)


def _texts(row: Row) -> Iterable[str]:
    texts = (text.strip() for text in (row.question, row.answer, row.group) if text)
    return [text for text in texts if len(text) > LONGEST_WORD or len(text.split()) > 1]


def _single(tokenizer: Any, texts: Sequence[str]) -> set[str]:
    """The texts that the tokenizer encodes as a single token."""
    if not texts:
        return set()
    written = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    unknown = getattr(tokenizer, "unk_token_id", None)
    return {text for text, tokens in zip(texts, written, strict=True) if len(tokens) == 1 and tokens[0] != unknown}
