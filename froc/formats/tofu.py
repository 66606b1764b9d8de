"""Logs of TOFU's own code."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from froc.errors import InputError
from froc.formats._logs import Log, Logs, Scores, need, scores_of

SECTIONS = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
AUTHOR = 20
"""Rows about one author in the forget and retain sets, in order."""


@dataclass(frozen=True)
class Tofu(Logs):
    """eval_log_aggregated.json of TOFU's original code (2401.06121); plain or gzip.

    Measures are `SPLIT_probability` (exp of minus the mean loss per token), `SPLIT_rougeL_recall`, `SPLIT_rouge1_recall` and
    `SPLIT_truth_ratio` (min(s, 1/s) on the forget set, max(0, 1 - s) elsewhere), SPLIT being forget, retain, real_authors or
    world_facts. Rows of the forget and retain sets are units of 20, one for each author.
    """

    files: ClassVar[tuple[str, ...]] = ("eval_log_aggregated.json", "eval_log_aggregated.json.gz")

    def scores(self, document: Any, path: Path) -> Log:
        """Every section's measures."""
        if not isinstance(document, dict) or not set(SECTIONS) & set(document):
            raise InputError(f"none of the keys {', '.join(SECTIONS)} is there; give eval_log_aggregated.json")
        return dict(
            found
            for key, split in SECTIONS.items()
            if key in document
            for found in _section(need(document, key, dict), key, split)
        )


def _section(section: dict[str, Any], key: str, split: str) -> Iterator[tuple[str, Scores]]:
    told = need(section, "generated_text", dict, key) if "generated_text" in section else {}
    for measure, column, value in (
        ("probability", "avg_gt_loss", _probability),
        ("rougeL_recall", "rougeL_recall", _same),
        ("rouge1_recall", "rouge1_recall", _same),
        ("truth_ratio", "truth_ratio", _forget_ratio if split == "forget" else _ratio),
    ):
        if column not in section:
            continue
        values = need(section, column, dict, key)
        # the reference answer tells rows apart; it is digested at once
        rows = {number: (one, (told.get(number) or [None])[-1]) for number, one in values.items()}
        yield (
            f"{split}_{measure}",
            scores_of(
                rows, lambda row, value=value: value(row[0]), name=f"{key}.{column}", prefix=split,
                block=AUTHOR if split in ("forget", "retain") else 1, asked=lambda row: row[1],
            ),
        )  # fmt: skip


def _same(value: Any) -> Any:
    return value


def _probability(loss: Any) -> Any:
    return None if loss is None else math.exp(-loss)


def _forget_ratio(ratio: Any) -> Any:
    return min(ratio, 1 / ratio) if ratio else ratio


def _ratio(ratio: Any) -> Any:
    return None if ratio is None else max(0.0, 1.0 - ratio)
