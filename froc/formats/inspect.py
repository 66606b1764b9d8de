"""Logs of Inspect."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from froc.errors import InputError
from froc.formats._logs import Log, Logs, Scores, need, scores_of

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partial, incorrect, no answer: numbers that Inspect gives them."""


@dataclass(frozen=True)
class Inspect(Logs):
    """Inspect's logs as JSON (`inspect log convert --to json`); plain or gzip.

    Logs in one folder of the same model are one configuration. Measures are called `TASK.SCORER` (`wmdp.choice`), `TASK.SCORER.KEY`
    where a score has several values. A sample asked several times is a unit of several queries. Only finished logs (status success) are read; a sample without score counts as a loss of 1.
    """

    files: ClassVar[tuple[str, ...]] = ("*.json", "*.json.gz")

    def run(self, document: Any, path: Path) -> Path:
        """Folder and model."""
        return path.parent / re.sub(r"[^\w.-]+", "-", str(_said(document, "model")))

    def scores(self, document: Any, path: Path) -> Log:
        """Every scorer's values."""
        status = need(document, "status", str)
        if status != "success":
            raise InputError(
                f"the key status says {status!r}; an evaluation that did not end has no losses, finish it first"
            )
        samples = need(document, "samples", list)
        if not samples:
            raise InputError("the key samples is empty; the log was written without its samples")
        task = str(_said(document, "task")).rpartition("/")[2]
        return {f"{task}.{name}": some for name, some in _by_scorer(task, samples)}


def _said(document: Any, key: str) -> Any:
    return need(need(document, "eval", dict), key, str, "eval")


def _by_scorer(task: str, samples: Sequence[Any]) -> Iterator[tuple[str, Scores]]:
    for number, sample in enumerate(samples):
        for key in ("id", "epoch"):
            if not isinstance(sample, dict) or key not in sample:
                raise InputError(f"samples[{number}] has no key {key}")
    rows = sorted(samples, key=lambda sample: (str(sample["id"]), int(sample["epoch"])))
    keys = [f"{sample['id']}#{sample['epoch']}" for sample in rows]
    if len(set(keys)) != len(keys):
        raise InputError("a sample is there twice with the same epoch")
    numbered = {str(i): sample for i, sample in enumerate(rows)}
    for name in dict.fromkeys(name for sample in rows for name in _values(sample)):
        some = scores_of(
            numbered, lambda sample, name=name: _grade(_values(sample).get(name)), name=name, prefix=task, asked=_asked
        )
        # samples are named by what they are called, not by their place: another log may lack some
        units = tuple(f"{task}-{sample['id']}" for sample in rows)
        yield name, Scores(tuple(f"{task}-{key}" for key in keys), units, some.value, some.asked)


def _values(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Scorer, or scorer and key -> value."""
    found: dict[str, Any] = {}
    for scorer, score in (sample.get("scores") or {}).items():
        value = score.get("value") if isinstance(score, dict) else None
        if isinstance(value, dict):
            found |= {f"{scorer}.{key}": one for key, one in value.items()}
        else:
            found[scorer] = value
    return found


def _grade(value: Any) -> Any:
    if isinstance(value, bool):
        return float(value)
    return GRADES.get(value, value) if isinstance(value, str) else value


def _asked(sample: Mapping[str, Any]) -> str:
    return f"{sample['id']} {sample['epoch']} {sample.get('target')}"
