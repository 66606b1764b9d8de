"""LUME."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, needed, objects, paths
from froc.data.benchmarks._withholding import MEASURED_RETAIN, group_of, withhold
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError

ID = re.compile(r"(?P<document>.+?)(?P<kind>sc|qa)\d+")


@dataclass(frozen=True)
class Lume(BenchmarkReader):
    """LUME, the data of SemEval 2025 task 4: invented stories, invented people's data, real biographies (2502.15097).

    Parts: one of the three tasks (column `task`: Task1 stories, Task2 people, Task3 biographies), or all. Trained on: the sentence
    completions (ids ending in sc and a number) of the documents to forget; all rows of retained documents that are not measured.
    Measured: the questions (ids ending in qa and a number) about the documents to forget; those about a quarter of the retained
    documents. A row is `input` and `output`; the group is the document, its id without that ending. Units: forgetting by query,
    utility by document.

    Checked on the files of github.com/amazon-science/lume-llm-unlearning: names, columns, ids, several questions about a person.
    Read in public code of the shared task: its files forget_train, forget_validation, retain_train, retain_validation have the same
    columns; both of a side are read. Our reading: the authors unlearn on completions and questions alike and measure both; here the
    questions are kept apart, so that the claim is about what was not trained on. Membership files (mia_data) are not read.
    """

    parts: ClassVar[tuple[str, ...]] = ("task1", "task2", "task3", "all")
    files: ClassVar[str] = (
        "forget, retain (or the shared task's forget_train, forget_validation, retain_train, retain_validation)"
    )
    origin: ClassVar[str] = "github.com/amazon-science/lume-llm-unlearning, data/"
    paper: ClassVar[str] = "2502.15097"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        place = folder / "data" if (folder / "data").is_dir() else folder
        forget, retain = _side(place, "forget", part), _side(place, "retain", part)
        trained, measured = withhold([row for row, _ in retain], MEASURED_RETAIN, "retained documents", group_of)
        asked = {row.key for row, kind in retain if kind == "qa"}
        note = f"{len({row.group for row in measured})} of {len({row.group for row, _ in retain})} retained documents are not trained on: they are measured"
        return assemble(
            f"lume-{part}",
            [row for row, kind in forget if kind == "sc"],
            trained,
            {
                FORGETTING: [row for row, kind in forget if kind == "qa"],
                UTILITY: [row for row in measured if row.key in asked],
            },
            utility="group",
            split_seed=split_seed,
            notes=[note],
        )


def _side(place: Path, side: str, part: str) -> list[tuple[Row, str]]:
    """Rows of the documents to forget, or to keep, and each one's kind, `sc` or `qa`."""
    names = [name for name in (side, f"{side}_train", f"{side}_validation") if paths(place, name)]
    if not names:
        needed(place, side)
    rows = []
    for name in names:
        for where, record in objects(place, name):
            match = ID.fullmatch(field(record, "id", where))
            if match is None:
                raise InputError(f"{where}: 'id' must end with sc or qa and a number; take the file from {Lume.origin}")
            if part in ("all", field(record, "task", where).lower()):
                document = f"{match['document']}".strip('"')
                row = Row(
                    field(record, "input", where), field(record, "output", where), f"document {document}", origin=where
                )
                rows.append((row, match["kind"]))
    if not rows:
        raise InputError(
            f"{', '.join(names)} has no row of {part}; its column 'task' says which of them each row is of"
        )
    return rows
