"""KnowUnDo."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, objects
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError

LISTS = ("train", "val")


@dataclass(frozen=True)
class KnowUnDo(BenchmarkReader):
    """KnowUnDo: copyrighted books and invented people, each with what to unlearn and what is like it and must stay (2407.01920).

    Trained on: the list `train` of PART/unlearn and, to be kept, of PART/retention. Measured: the lists `val` of both. A row is a
    question `text` with the answer `labels`. Units: queries, for rows do not say whom they are about; each row is its own group.

    Read in the authors' code: both files are one object with the lists `train` and `val`; their models are taught both lists,
    unlearn on `train`, and `val` is tokenised apart to be evaluated. Our reading: the files' names, after the hub's configurations and splits.
    """

    parts: ClassVar[tuple[str, ...]] = ("copyright", "privacy")
    files: ClassVar[str] = "PART/unlearn, PART/retention"
    origin: ClassVar[str] = "the dataset zjunlp/KnowUnDo"
    paper: ClassVar[str] = "2407.01920"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        forget, forget_queries = _lists(folder, f"{part}/unlearn", "unlearned row")
        retain, retain_queries = _lists(folder, f"{part}/retention", "retained row")
        return assemble(
            f"knowundo-{part}",
            forget,
            retain,
            {FORGETTING: forget_queries, UTILITY: retain_queries},
            utility="query",
            split_seed=split_seed,
        )


def _lists(folder: Path, name: str, label: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows of the lists `train` and `val` of a file."""
    records = objects(folder, name)
    train, val = (
        [(f"{where} {key} {place}", value) for where, record in records for place, value in _list(record, key, where)]
        for key in LISTS
    )
    rows = [
        Row(field(value, "text", where), field(value, "labels", where), f"{label} {number}", origin=where)
        for number, (where, value) in enumerate([*train, *val], start=1)
    ]
    return tuple(rows[: len(train)]), tuple(rows[len(train) :])


def _list(record: dict[str, Any], key: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    values = record.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
        have = ", ".join(sorted(map(str, record)))
        raise InputError(f"{where}: {key!r} must be a list of objects with 'text' and 'labels' (it has: {have})")
    yield from enumerate(values, start=1)
