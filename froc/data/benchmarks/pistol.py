"""PISTOL."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, needed, objects, paths
from froc.data.benchmarks._withholding import MEASURED_FORGET, MEASURED_RETAIN, Rows, note, withhold
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError

FILES = ("sample_data_1", "sample_data_2", "pistol_sample1", "pistol_sample2")


@dataclass(frozen=True)
class Pistol(BenchmarkReader):
    """PISTOL: invented contracts between invented companies, some of which are forgotten; others name the same companies (2406.16810).

    Parts: the contract to forget, by the two parties of its column `edge` (A_B), or several (A_B+A_C). Trained on: half of its questions;
    of every other contract three quarters. Measured: the other half; the other quarter of each other contract, so that what is near
    the forgotten one is measured, too. The group is the contract. Units: forgetting by query, utility by contract.

    Read in public code that uses the files (of PISTOL and of LUNAR, by some of the same authors): one array of rows with `question`,
    `answer` and `edge`, the names of files, edges written A_B. Our reading: the authors measure the questions that they train on.
    """

    parts: ClassVar[tuple[str, ...]] = ("EDGE",)
    files: ClassVar[str] = f"one of {', '.join(FILES)}"
    origin: ClassVar[str] = "the authors' release of PISTOL, its folder data"
    paper: ClassVar[str] = "2406.16810"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task; InputError names contracts that there are, where one is unknown."""
        present = [name for name in FILES if paths(folder, name)]
        if len(present) > 1:
            raise InputError(f"{folder} holds {present[0]} and {present[1]}; keep one of them")
        if not present:
            needed(folder, *FILES)
        rows = [
            Row(
                field(record, "question", where),
                field(record, "answer", where),
                field(record, "edge", where),
                origin=where,
            )
            for where, record in objects(folder, present[0])
        ]
        edges, wanted = sorted({row.group for row in rows}), part.split("+")
        unknown = next((edge for edge in wanted if edge not in edges), None)
        if unknown is not None:
            raise InputError(
                f"{present[0]} has no contract {unknown!r}; there are {', '.join(edges[:6])} ({len(edges)} in all)"
            )
        forget, forget_queries = _each(rows, MEASURED_FORGET, lambda edge: edge in wanted)
        retain, retain_queries = _each(rows, MEASURED_RETAIN, lambda edge: edge not in wanted)
        return assemble(
            f"pistol-{part}",
            forget,
            retain,
            {FORGETTING: forget_queries, UTILITY: retain_queries},
            utility="group",
            split_seed=split_seed,
            notes=[note(forget_queries, retain_queries)],
        )


def _each(rows: list[Row], fraction: float, chosen: Callable[[str], bool]) -> tuple[Rows, Rows]:
    """Rows to train on and to measure, divided within each chosen contract."""
    trained: Rows = ()
    measured: Rows = ()
    ordered = sorted(rows, key=lambda row: row.group)
    for edge, of_edge in groupby(ordered, key=lambda row: row.group):
        if chosen(edge):
            parts = withhold(list(of_edge), fraction, f"questions about {edge}")
            trained, measured = trained + parts[0], measured + parts[1]
    return trained, measured
