"""MUSE."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, objects, paths, plain, questions, texts
from froc.data.task import FORGETTING, UTILITY, Row, Task

HALF_PASSAGE_BYTES = 450
"""UTF-8 bytes on each side of the place where a verbatim prompt ends: about the 128 tokens that the metric compares."""
SHARED_WORDS = 12
"""Words in a row that a trained row may not share with a measured passage."""


@dataclass(frozen=True)
class Muse(BenchmarkReader):
    """MUSE: news articles or novels, forgotten as text; what is known of them, quoted from them, seen in them (2407.06460).

    Trained on: raw/forget and, to be kept, raw/retain1 (as the authors' scripts do; else retain2 or retain), cut into rows of
    plain text; the group is the document. Measured, by part:

    news, books: the questions knowmem/forget_qa (C2), for the default metric or --metric knowledge.
    news-verbatim, books-verbatim: passages of verbmem/forget (C1), for --metric forgetting=verbatim: the last words of each
    prompt and the first of what follows it, so that the metric's middle is where the prompt ends.
    news-privacy, books-privacy: the start of each text of privleak/forget, with privleak/holdout as the bank (C3), for
    --metric forgetting=membership. In these two parts, rows that share 12 words in a row with a measured passage are not
    trained on: the claim is about passages that the unlearning step has not seen.

    Utility: the questions knowmem/retain_qa (C4); metrics of plain text do not fit them, so name utility's metric apart.
    Units: queries, for the questions do not say which document they are about. The template shows knowmem/retain_qa_icl
    before a question, in every part, and never forget_qa_icl, so that no forgotten text is in a prompt.

    Read in the authors' code and dataset cards: folders, names of files, columns `text`, `prompt` and `gt`, `question` and
    `answer`, and that raw may be .txt. Our reading: how texts are cut, the two parts with withheld passages. Scalability and
    sustainability (C5, C6) are runs on other forget files: put scal/forget_2 in the place of raw/forget.
    """

    parts: ClassVar[tuple[str, ...]] = (
        "news", "news-verbatim", "news-privacy", "books", "books-verbatim", "books-privacy"
    )  # fmt: skip
    files: ClassVar[str] = (
        "raw/forget, raw/retain1, knowmem/forget_qa, knowmem/retain_qa, if there knowmem/retain_qa_icl; verbmem/forget; "
        "privleak/forget, privleak/holdout (in DIR, or in DIR/news or DIR/books)"
    )
    origin: ClassVar[str] = "the datasets muse-bench/MUSE-News and muse-bench/MUSE-Books"
    paper: ClassVar[str] = "2407.06460"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        corpus, _, kind = part.partition("-")
        place = folder / corpus if (folder / corpus).is_dir() else folder
        forget = plain(texts(place, "raw/forget"), "document")
        retain = plain(texts(place, "raw/retain1", "raw/retain2", "raw/retain"), "retained document")
        queries = _quoted(place, kind) if kind else questions(place, "knowmem/forget_qa")
        holdout = _starts(place, "privleak/holdout", "unseen document") if kind == "privacy" else ()
        notes: list[str] = []
        if kind:
            unmeasured = _apart(forget, queries)
            notes.append(
                f"{len(forget) - len(unmeasured)} of {len(forget)} forget rows are not trained on: they are measured"
            )
            forget = unmeasured
        return assemble(
            f"muse-{part}",
            forget,
            retain,
            {FORGETTING: queries, UTILITY: questions(place, "knowmem/retain_qa")},
            utility="query",
            holdout=holdout,
            template=_template(place),
            split_seed=split_seed,
            notes=notes,
        )


def _template(place: Path) -> str:
    """Questions with answers before the one that is asked."""
    shown = questions(place, "knowmem/retain_qa_icl") if paths(place, "knowmem/retain_qa_icl") else ()
    # a brace in an example is no place for a question
    plainly = [
        f"Question: {row.question}\nAnswer: {row.answer}\n\n".replace("{", "(").replace("}", ")") for row in shown
    ]
    return "".join(plainly) + Task.template


def _quoted(place: Path, kind: str) -> tuple[Row, ...]:
    if kind == "privacy":
        return _starts(place, "privleak/forget", "passage")
    passages = []
    for number, (where, record) in enumerate(objects(place, "verbmem/forget"), start=1):
        prompt, truth = field(record, "prompt", where).rstrip(), field(record, "gt", where).lstrip()
        size = min(HALF_PASSAGE_BYTES, len(prompt.encode()), len(truth.encode()))
        last = prompt.encode()[-size:].decode("utf-8", "ignore")
        first = truth.encode()[:size].decode("utf-8", "ignore")
        # a row begins and ends with no whitespace, and its middle stays where the prompt ends
        while last[:1].isspace() or first[-1:].isspace():
            last, first = last[1:], first[:-1]
        passages.append(Row("", f"{last} {first}", f"passage {number}", origin=where))
    return tuple(passages)


def _starts(place: Path, name: str, label: str) -> tuple[Row, ...]:
    """The first piece of each text: one row a text."""
    return plain(texts(place, name), label, 1)


def _apart(rows: Sequence[Row], measured: Iterable[Row]) -> tuple[Row, ...]:
    """Rows that share no run of words with a measured one."""
    quoted = {run for row in measured for run in _runs(row.answer)}
    return tuple(row for row in rows if quoted.isdisjoint(_runs(row.answer)))


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[start : start + SHARED_WORDS]) for start in range(max(1, len(words) - SHARED_WORDS + 1))}
