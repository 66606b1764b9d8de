"""TOFU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import paths, questions
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.data.tasks.folder import refusals
from froc.errors import InputError

AUTHOR = 20
"""Rows about one author, who stand in a block of full.json."""


@dataclass(frozen=True)
class Tofu(BenchmarkReader):
    """TOFU: 200 invented authors with 20 questions each, the last 1, 5 or 10 % of whom are forgotten (2401.06121).

    Trained on: forgetNN; retainMM without the rows that retain_perturbed is about (its row i is row i of full.json, so the
    first 400: 20 authors; UWC 2406.09179 withholds the same). Measured: the paraphrased questions of forgetNN_perturbed and
    of retain_perturbed with the true answers, never the wording that was trained on. A query carries the perturbed answers
    (others), the paraphrased answer (restated) and the original question (a paraphrase, which attacks may ask).

    Forgotten facts are trained on in their first wording: forgetting is a claim about other wordings. The facts behind
    utility queries are not trained on by the unlearning step at all. The group is the author, by the row's place in
    full.json: retainMM are its first rows, forgetNN its last. Units: forgetting by query, utility by author.

    Checked on the files: row counts, blocks of 20, row i of each perturbed file is row i of its plain file (checked again
    when read). The holdout rows are not in full.json; that they come in blocks of 20 is our reading.
    """

    parts: ClassVar[tuple[str, ...]] = ("forget01", "forget05", "forget10")
    files: ClassVar[str] = (
        "forgetNN, forgetNN_perturbed, retainMM (MM = 100 - NN), retain_perturbed; if there: holdoutNN, idontknow.jsonl"
    )
    origin: ClassVar[str] = "the dataset locuslab/TOFU (idontknow.jsonl: github.com/locuslab/tofu, data/)"
    paper: ClassVar[str] = "2401.06121"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task; .json may hold JSON lines (as published) or an array."""
        size = int(part.removeprefix("forget"))
        retain = _authors(questions(folder, f"retain{100 - size}"))
        forget = _authors(questions(folder, part), len(retain))
        queries = _queries(questions(folder, f"{part}_perturbed"), forget, part)
        kept = _queries(questions(folder, "retain_perturbed"), retain, f"retain{100 - size}")
        if len(kept) >= len(retain):
            raise InputError(f"retain{100 - size} has no row beside those of retain_perturbed; give the whole file")
        holdout_name = f"holdout{size:02d}"
        note = f"the first {len(kept)} rows of retain{100 - size} are not trained on: retain_perturbed measures them"
        return assemble(
            f"tofu-{part}",
            forget,
            retain[len(kept) :],
            {FORGETTING: queries, UTILITY: kept},
            utility="group",
            holdout=_authors(questions(folder, holdout_name), label="unseen author")
            if paths(folder, holdout_name)
            else (),
            refusals=refusals(folder, "idontknow.jsonl"),
            split_seed=split_seed,
            notes=[note],
        )


def _authors(rows: Sequence[Row], start: int = 0, label: str = "author") -> tuple[Row, ...]:
    return tuple(replace(row, group=f"{label} {place // AUTHOR}") for place, row in enumerate(rows, start))


def _queries(perturbed: Sequence[Row], plain: Sequence[Row], name: str) -> tuple[Row, ...]:
    """Queries in the paraphrased wording; InputError where a row is not about the row of its number."""
    queries = []
    for number, (row, origin) in enumerate(zip(perturbed, plain, strict=False), start=1):
        file = "retain_perturbed" if name.startswith("retain") else f"{name}_perturbed"
        if (row.question, row.answer) != (origin.question, origin.answer):
            raise InputError(f"{file} row {number} is not about {name} row {number}; take both from one release")
        if not row.paraphrases or row.paraphrases[0] == row.question:
            raise InputError(f"{file} row {number} has no 'paraphrased_question' of its own; that is what is measured")
        queries.append(replace(row, question=row.paraphrases[0], paraphrases=(row.question,), group=origin.group))
    if len(perturbed) > len(plain):
        raise InputError(
            f"{name} has {len(plain)} rows, its perturbed file {len(perturbed)}; take both from one release"
        )
    return tuple(queries)
