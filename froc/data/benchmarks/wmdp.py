"""WMDP."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, objects, plain, texts
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError

DOCUMENTS = 2000
"""Documents read of each corpus: the published training looks at 600 (150 batches of 4), and one corpus has two gigabytes."""
PIECES_PER_DOCUMENT = 3
"""Pieces kept of each document: as the published training, which cuts documents after some hundred tokens."""
MAX_QUESTION_BYTES = 2500
"""UTF-8 bytes that a question with its longest option may have; longer ones (listings of code) do not fit a row."""


@dataclass(frozen=True)
class Wmdp(BenchmarkReader):
    """WMDP: hazardous knowledge, forgotten from a corpus and measured by multiple-choice questions (2403.03218).

    Trained on: the start of the documents of the forget and the retain corpus, cut into rows of plain text; the group is the
    document. Measured: the questions with the right option as the answer and the others as `others`, so that
    `multiple_choice` reads them as well as the default metric; utility on MMLU-shaped questions. Units: queries; the group
    of an MMLU question is its subject. Questions that are too long for a row are left out, and counted in a note.

    Names read in public code: bio_remove_dataset.jsonl (also bio-forget-corpus), bio-retain-corpus, cyber-forget-corpus,
    cyber-retain-corpus with a column `text`; bio_questions.json, cyber_questions.json with question, choices and answer (a
    place from 0), as JSON lines or an array, which others keep in a folder wmdp-mcqs; wmdp-bio and wmdp-cyber as the hub's
    Parquet folders. The authors' repository was not at hand. Our reading: a file mmlu (question, choices, answer, subject);
    the retain corpus of the same part, where the published training takes Wikipedia; 2,000 documents and 3 pieces of each.
    The authors compare the letters of options that stand in the prompt; here the options' texts follow the question.
    """

    parts: ClassVar[tuple[str, ...]] = ("bio", "cyber")
    files: ClassVar[str] = (
        "bio_remove_dataset (cyber: cyber-forget-corpus), bio-retain-corpus, bio_questions, mmlu (or mmlu/test-*.parquet)"
    )
    origin: ClassVar[str] = "the datasets cais/wmdp, cais/wmdp-corpora (bio's forget corpus: on request), cais/mmlu"
    paper: ClassVar[str] = "2403.03218"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        forget = texts(folder, *(["bio_remove_dataset"] * (part == "bio")), f"{part}-forget-corpus", most=DOCUMENTS)
        retain = texts(folder, f"{part}-retain-corpus", most=DOCUMENTS)
        notes = [
            f"trained on the start of at most {DOCUMENTS} documents of each corpus ({PIECES_PER_DOCUMENT} pieces each)"
        ]
        queries = _chosen(folder, notes, f"{part}_questions", f"wmdp-mcqs/{part}_questions", f"wmdp-{part}")
        return assemble(
            f"wmdp-{part}",
            plain(forget, "document", PIECES_PER_DOCUMENT),
            plain(retain, "retained document", PIECES_PER_DOCUMENT),
            {FORGETTING: queries, UTILITY: _chosen(folder, notes, "mmlu")},
            utility="query",
            split_seed=split_seed,
            notes=notes,
        )


def _chosen(folder: Path, notes: list[str], *names: str) -> tuple[Row, ...]:
    """Multiple-choice questions that fit a row."""
    rows = [_choice(record, where) for where, record in objects(folder, *names)]
    short = [
        row
        for row in rows
        if len(row.question.encode()) + max(map(_size, (row.answer, *row.others))) <= MAX_QUESTION_BYTES
    ]
    if len(short) < len(rows):
        notes.append(
            f"{len(rows) - len(short)} of {len(rows)} questions of {names[0]} are left out: too long for a row"
        )
    return tuple(short)


def _size(text: str) -> int:
    return len(text.encode())


def _choice(record: dict[str, Any], where: str) -> Row:
    choices, place = record.get("choices"), record.get("answer")
    if not isinstance(choices, list) or not all(isinstance(text, str) and text.strip() for text in choices):
        raise InputError(f"{where}: 'choices' must be a list of texts, none of them blank; mend the row")
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(choices):
        raise InputError(f"{where}: 'answer' must be a place in 'choices', counted from 0; mend the row")
    others = tuple(text for text in choices if text != choices[place])
    if not others:
        raise InputError(f"{where}: every option is the answer; give 'choices' that differ")
    row = Row(field(record, "question", where), choices[place], others=others, origin=where)
    return replace(row, group=f"{record['subject']}") if record.get("subject") else row
