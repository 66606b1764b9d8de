"""Benchmark readers, one file each: a benchmark's published files -> `froc.data.task.Task`.

A benchmark has parts (`tofu:forget10`). Its reader documents which files a part needs, where they come from, and which rows are
trained on and measured. Measured rows are never trained on: `assemble` leaves them out and notes how many.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from froc.data.rows import Row, refuse_overlaps, stripped
from froc.data.task import FORGETTING, UTILITY, Task, Unit
from froc.errors import InputError
from froc.plugins import make, names


@dataclass(frozen=True)
class BenchmarkReader(ABC):
    """Reader of one benchmark; its docstring says what is trained on and what is measured.

    parts: what can follow the colon; a part in capitals stands for any name.
    files: what the folder must hold, in words.
    origin: where the files come from.
    paper: the benchmark's authors.
    """

    parts: ClassVar[tuple[str, ...]]
    files: ClassVar[str]
    origin: ClassVar[str]
    paper: ClassVar[str] = ""

    @abstractmethod
    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task; raises InputError naming the part, or file, row and mend."""


def named(text: str) -> bool:
    """Whether a text names a benchmark (`NAME:PART`, or NAME alone) and not a folder."""
    return not Path(text).is_dir() and (
        text in names(BenchmarkReader) or (":" in text and "/" not in text.partition(":")[0])
    )


def read(text: str, data: Path | None, split_seed: int = 0) -> Task:
    """The task of `NAME:PART` with its files in `data`; InputError for what is unknown, missing or cannot be read."""
    name, _, part = text.partition(":")
    reader = make(BenchmarkReader, name)
    wanted = f"--task {name}:PART --data DIR"
    if not part:
        raise InputError(f"{name} has parts; write {wanted} with one of: {', '.join(reader.parts)}")
    if not any(known == part or known.isupper() for known in reader.parts):
        raise InputError(
            f"{name} has no part {part!r}; there are: {', '.join(reader.parts)} (froc list benchmarks {name})"
        )
    if data is None:
        raise InputError(f"{text} is read from files; add --data DIR with {reader.files} (froc list benchmarks {name})")
    if not data.is_dir():
        raise InputError(f"--data {data} is no folder; give the folder with the files from {reader.origin}")
    return reader.load(data, part, split_seed)


def assemble(
    name: str,
    forget: Sequence[Row],
    retain: Sequence[Row],
    queries: Mapping[str, Sequence[Row]],
    *,
    utility: Unit,
    holdout: Sequence[Row] = (),
    refusals: tuple[str, ...] = (),
    template: str = Task.template,
    split_seed: int = 0,
    notes: Iterable[str] = (),
) -> Task:
    """A task with disjoint files: a repeated row is kept as a query first, then as a forget row, then elsewhere.

    queries: pool -> rows. The unit of forgetting is the query: who is forgotten is listed, the questions are drawn.
    """
    all_notes = list(notes)
    files = {
        "forget_queries": queries[FORGETTING], "retain_queries": queries[UTILITY], "forget": forget, "retain": retain,
        "holdout": holdout,
    }  # fmt: skip
    kept: dict[str, tuple[Row, ...]] = {}
    seen: set[tuple[str, str]] = set()
    for file, read in files.items():
        rows, blanks = stripped(read)
        if blanks:
            all_notes.append(f"whitespace around the answers of {blanks} of {len(rows)} {file} rows is left out")
        fresh = [row for row in rows if row.key not in seen]
        # rows that are trained on may repeat, a query counts once
        fresh = list({row.key: row for row in fresh}.values()) if file.endswith("queries") else fresh
        seen |= {row.key for row in fresh}
        kept[file] = tuple(fresh)
        if len(fresh) < len(rows):
            all_notes.append(
                f"{len(rows) - len(fresh)} of {len(rows)} {file} rows are left out: the same stand elsewhere"
            )
        if not fresh and file != "holdout":
            raise InputError(f"no {file} rows are left; give files of one release")
    refuse_overlaps(kept)
    return Task(
        name=name,
        forget=kept["forget"],
        retain=kept["retain"],
        queries={FORGETTING: kept["forget_queries"], UTILITY: kept["retain_queries"]},
        units={FORGETTING: "query", UTILITY: utility},
        refusals=refusals,
        holdout=kept["holdout"],
        template=template,
        split_seed=split_seed,
        notes=tuple(all_notes),
    )
