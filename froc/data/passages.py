"""Long texts, cut into passages of a row's length. Torch-free."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from froc.data.rows import Row

MAX_TEXT_BYTES = 1000
"""UTF-8 bytes of a row of plain text: no byte-level tokenizer makes more tokens of them than `froc.models.batches.encode` takes."""
MIN_TEXT_CHARACTERS = 50
"""Characters that a row of plain text has at least; what is left of a text is dropped (RMU's code does so too)."""
SENTENCE_END = re.compile(r"[.!?][\"')\]”’]*\s+|\n\s*\n")


def pieces(text: str, longest: int = MAX_TEXT_BYTES) -> list[str]:
    """A text in order, in pieces of at most `longest` UTF-8 bytes, cut after sentences, else words, else anywhere."""
    passages, start = [], 0
    while start < len(text):
        head = text[start : start + longest].encode()[:longest].decode("utf-8", "ignore")
        cut = len(head) if start + len(head) >= len(text) else _boundary(head)
        passages.append(head[:cut].strip())
        start += cut
    return [piece for piece in passages if len(piece) >= MIN_TEXT_CHARACTERS]


def _boundary(head: str) -> int:
    ends = [match.end() for match in SENTENCE_END.finditer(head)]
    if ends and ends[-1] > len(head) // 2:
        return ends[-1]
    blank = max(head.rfind(" "), head.rfind("\n"), head.rfind("\t"))
    return blank + 1 if blank > 0 else len(head)


def cut(rows: Sequence[Row], label: str) -> tuple[tuple[Row, ...], int]:
    """Rows whose plain texts are at most `MAX_TEXT_BYTES` bytes, and how many texts were cut.

    Passages keep the text's group, or get a common one where it has none, as they are from one document.
    """
    made = [list(_cut(row, f"{label} {number}")) for number, row in enumerate(rows, start=1)]
    return tuple(row for passages in made for row in passages), sum(_long(row) for row in rows)


def _long(row: Row) -> bool:
    return not row.question and len(row.answer.encode()) > MAX_TEXT_BYTES


def _cut(row: Row, document: str) -> Iterator[Row]:
    if not _long(row):
        yield row
        return
    for piece in pieces(row.answer):
        yield replace(row, answer=piece, group=row.group or document)
