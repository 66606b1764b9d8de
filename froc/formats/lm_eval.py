"""Sample logs of lm-evaluation-harness."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from froc.errors import InputError
from froc.formats._logs import Log, Logs, Scores, scores_of

TASK = re.compile(r"samples_(.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl")
FILTER = "none"
"""What a task without filters calls its only one."""


@dataclass(frozen=True)
class LmEval(Logs):
    """samples_TASK_TIME.jsonl of lm-evaluation-harness (`--log_samples`); plain or gzip.

    The files of one folder are one model's, as the harness writes them. Measures are called `TASK.METRIC` (`mmlu.acc`), with the
    filter where a task has several (`gsm8k.exact_match,strict-match`). A metric that is a list per sample is left out.
    """

    files: ClassVar[tuple[str, ...]] = ("samples_*.jsonl", "samples_*.jsonl.gz")

    def parse(self, text: str) -> Any:
        """One object per line."""
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def run(self, document: Any, path: Path) -> Path:
        """The folder."""
        return path.parent

    def scores(self, document: Any, path: Path) -> Log:
        """Every metric that is a number per sample, by filter."""
        if not document or not all(isinstance(row, dict) for row in document):
            raise InputError("no line of samples; was the harness run with --log_samples?")
        by_filter: dict[str, list[dict[str, Any]]] = {}
        for number, row in enumerate(document, start=1):
            if not isinstance(row.get("doc_id"), int):
                raise InputError(f"line {number}: the key doc_id is missing or no number")
            by_filter.setdefault(str(row.get("filter", FILTER)), []).append(row)
        task = _task(path)
        suffix = {name: f",{name}" if len(by_filter) > 1 else "" for name in by_filter}
        return dict(found for name, rows in by_filter.items() for found in _filtered(task, rows, suffix[name]))


def _task(path: Path) -> str:
    found = TASK.match(path.name)
    return found[1] if found else path.name.partition(".")[0]


def _filtered(task: str, rows: Sequence[Mapping[str, Any]], suffix: str) -> Iterator[tuple[str, Scores]]:
    ids = [row["doc_id"] for row in rows]
    if len(set(ids)) != len(ids):
        raise InputError("a doc_id is there twice under one filter; the file holds several runs")
    # a run with --limit or a sharded one need not begin at 0
    ordered = {str(i): row for i, row in enumerate(sorted(rows, key=lambda row: row["doc_id"]))}
    for name in _metrics(rows):
        some = scores_of(ordered, lambda row, name=name: _value(row.get(name)), name=name, prefix=task, asked=_asked)
        yield f"{task}.{name}{suffix}", some


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the log says its metrics are; logs of older versions do not, and have a number under each metric's name."""
    said = rows[0].get("metrics")
    if isinstance(said, list):
        names = [str(name) for name in said]
    else:
        names = [key for key, value in rows[0].items() if key != "doc_id" and isinstance(value, bool | int | float)]
    return [name for name in names if all(isinstance(row.get(name), bool | int | float | None) for row in rows)]


def _value(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


def _asked(row: Mapping[str, Any]) -> str:
    return f"{row['doc_id']} {row.get('doc_hash', '')} {row.get('target_hash', '')}"
