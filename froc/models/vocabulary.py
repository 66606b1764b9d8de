"""Does a model's tokenizer give away what is to be forgotten? Its files go wherever the model goes, and unlearning leaves them as they are."""

from collections.abc import Iterable, Sequence
from typing import Any

from froc.data.task import FORGETTING, WORDINGS, Row, Task

FROM_DATA, HOLDS_TEXT = "from-the-data", "holds-forgotten-text"
"""What a plan says of a tokenizer that is no stranger to the data: it was made from them; it holds texts of them."""
LONGEST_WORD = 9
"""Letters up to which a single word is no finding: vocabularies of large corpora hold thousands of common ones."""


def judge(task: Task, tokenizer: Any) -> str | None:
    """What a plan is to say of the tokenizer; None where nothing of the data is known to be in it.

    tokenizer: of the base model (a `transformers` tokenizer).
    """
    if task.tokenizer_from_data:
        return FROM_DATA
    forgotten = [*task.forget, *task.queries[FORGETTING], *task.queries.get(WORDINGS, ())]
    return HOLDS_TEXT if held(tokenizer, forgotten) else None


def held(tokenizer: Any, rows: Sequence[Row]) -> int:
    """How many rows have a question, an answer or a group that is one token of the vocabulary, or stands in the chat template.

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
    """Those that the tokenizer writes as a single token."""
    if not texts:
        return set()
    written = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    unknown = getattr(tokenizer, "unk_token_id", None)
    return {text for text, tokens in zip(texts, written, strict=True) if len(tokens) == 1 and tokens[0] != unknown}
