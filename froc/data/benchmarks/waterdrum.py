"""WaterDrum."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, objects, plain
from froc.data.benchmarks._withholding import MEASURED_FORGET, MEASURED_RETAIN, group_of, note, withhold
from froc.data.task import FORGETTING, UTILITY, Row, Task

AUTHOR = 20
"""Rows about one author of the question-answering corpus, which is TOFU's in TOFU's order."""


@dataclass(frozen=True)
class WaterDrum(BenchmarkReader):
    """WaterDrum: questions about invented authors, or abstracts of papers, in each owner's watermarked words (2505.05064).

    Parts: the hub's configurations, forget_NN or unwatermarked_forget_NN. Files with `question` and `answer` (WaterDrum-TOFU) or with
    `text` (WaterDrum-Ax). Trained on: half of the rows of `forget`, by row; of `retain` three quarters, by author or document.
    Measured: the other half, and the other quarter. The group is the author (blocks of 20 rows, TOFU's order) or the document; documents are cut into passages. For texts take
    --metric verbatim or exact_memorization. Units: forgetting by query, utility by group.

    Read in the dataset cards and the authors' code: configurations, splits and columns. Our reading: which rows are withheld, for the
    benchmark measures the watermark in what is written, not answers. Duplicates (exact_duplicate, semantic_duplicate), copies that
    other owners hold and may keep, are not read.
    """

    parts: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}forget_{size}" for kind in ("", "unwatermarked_") for size in ("01", "03", "05", "10")
    )
    files: ClassVar[str] = "PART/forget, PART/retain"
    origin: ClassVar[str] = "the datasets Glow-AI/WaterDrum-TOFU and Glow-AI/WaterDrum-Ax"
    paper: ClassVar[str] = "2505.05064"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        forget, retain = _rows(folder, f"{part}/forget", "forgotten"), _rows(folder, f"{part}/retain", "retained")
        trained_forget, forget_queries = withhold(forget, MEASURED_FORGET, "forget rows")
        trained_retain, retain_queries = withhold(retain, MEASURED_RETAIN, "retained groups", group_of)
        return assemble(
            f"waterdrum-{part}",
            trained_forget,
            trained_retain,
            {FORGETTING: forget_queries, UTILITY: retain_queries},
            utility="group",
            split_seed=split_seed,
            notes=[note(forget_queries, retain_queries)],
        )


def _rows(folder: Path, name: str, side: str) -> tuple[Row, ...]:
    records = objects(folder, name)
    if "text" in records[0][1]:
        return plain(((field(record, "text", where), where) for where, record in records), f"{side} document")
    return tuple(
        Row(
            field(record, "question", where),
            field(record, "answer", where),
            f"{side} author {place // AUTHOR}",
            origin=where,
        )
        for place, (where, record) in enumerate(records)
    )
