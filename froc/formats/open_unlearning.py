"""OpenUnlearning's evaluation logs."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from froc.errors import InputError
from froc.formats._logs import Log, Logs, Scores, need, scores_of

AUTHOR = 20
"""Rows about one author in TOFU's forget and retain sets, in order."""
ROUGE = ("rougeL_recall", "rougeL_f1", "rouge1_recall")
BY_F1 = re.compile(r"knowmem|verbmem")
"""MUSE's means are of rougeL_f1, TOFU's and DUET's of rougeL_recall."""
SPLIT = re.compile(r"(forget|retain|ra|wf|holdout)_")
Value = Callable[[Any], Any]


@dataclass(frozen=True)
class OpenUnlearning(Logs):
    """OpenUnlearning's TOFU_EVAL.json, MUSE_EVAL.json and others of that shape such as DUET_EVAL.json; plain or gzip.

    Measures are called as in the log, and have the value per row whose mean the log reports: rougeL_recall (rougeL_f1 in
    MUSE's), prob (its mean over wrong answers), score. `NAME.FIELD` takes another ROUGE. Truth ratios s are turned as
    OpenUnlearning does: min(s, 1/s) for the forget set, max(0, 1 - s) for the others. A membership attack (mia_...) has a forget
    row's share of holdout rows that score higher, whose mean is its AUC. Rows of TOFU's authors are units of 20.
    """

    files: ClassVar[tuple[str, ...]] = ("*_EVAL.json", "*_EVAL.json.gz")

    def scores(self, document: Any, path: Path) -> Log:
        """Every metric that has values by index."""
        if not isinstance(document, dict):
            raise InputError("the file holds no object of metrics")
        tofu = any("_Q_A_" in name for name in document)
        return dict(found for name, entry in document.items() for found in _entry(name, entry, AUTHOR if tofu else 1))


def _entry(name: str, entry: Any, block: int) -> Iterator[tuple[str, Scores]]:
    if not isinstance(entry, dict):
        raise InputError(f"the key {name} holds {type(entry).__name__}, not an object")
    if "forget" in entry and "holdout" in entry:
        yield name, _placed(name, entry, block)
        return
    if "value_by_index" not in entry:
        return
    rows = need(entry, "value_by_index", dict, name)
    if not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise InputError(f"the key {name}.value_by_index holds no rows")
    for measure, value, main in _values(name, next(iter(rows.values()))):
        reported = entry.get("agg_value") if main else None
        yield measure, _scores(name, rows, value, block, reported)


def _values(name: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Value, bool]]:
    """Measure, its value of a row, and whether the log reports its mean."""
    if "prob" in row:
        yield name, lambda one: _mean(one.get("prob")), True
    elif "rougeL_recall" in row:
        main = "rougeL_f1" if BY_F1.search(name) else "rougeL_recall"
        yield name, _field(main), True
        for field in ROUGE:
            yield f"{name}.{field}", _field(field), False
    elif "score" in row and name.lower().endswith("truth_ratio"):
        yield name, _forget_ratio if name.startswith("forget") else _ratio, True
    elif "score" in row:
        yield name, _field("score"), True


def _scores(name: str, rows: Mapping[str, Any], value: Value, block: int, reported: Any) -> Scores:
    split = SPLIT.match(name)
    prefix = split[1] if split else "forget"
    size = block if prefix in ("forget", "retain") else 1
    return scores_of(
        rows, value, name=name, prefix=prefix, block=size, asked=lambda row: row.get("ground_truth"), reported=reported
    )


def _placed(name: str, entry: Mapping[str, Any], block: int) -> Scores:
    """A forget row's share of holdout rows with a higher score, half of those with the same."""
    mine, others = (
        need(need(entry, side, dict, name), "value_by_index", dict, f"{name}.{side}") for side in ("forget", "holdout")
    )
    bank = np.sort(np.array([_plain(row, name) for row in others.values()]))

    def above(row: Any) -> float:
        score = _plain(row, name)
        low, high = np.searchsorted(bank, score, "left"), np.searchsorted(bank, score, "right")
        return float((len(bank) - high) + 0.5 * (high - low)) / len(bank)

    return scores_of(mine, above, name=name, prefix="forget", block=block, reported=entry.get("auc"))


def _plain(row: Any, name: str) -> float:
    score = row.get("score") if isinstance(row, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise InputError(f"{name} has a row without a score; the attack's values are not whole")
    return float(score)


def _field(field: str) -> Value:
    return lambda row: row.get(field)


def _mean(prob: Any) -> Any:
    if isinstance(prob, list):
        return None if not prob or None in prob else float(np.mean(prob))
    return prob


def _forget_ratio(row: Mapping[str, Any]) -> Any:
    score = row.get("score")
    return min(score, 1 / score) if score else score


def _ratio(row: Mapping[str, Any]) -> Any:
    score = row.get("score")
    return None if score is None else max(0.0, 1.0 - score)
