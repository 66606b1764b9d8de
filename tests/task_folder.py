"""Files of a task folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from froc.data.task import Row


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Questions and answers, a row per line."""
    lines = (json.dumps({"question": row.question, "answer": row.answer}) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
