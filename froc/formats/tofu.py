"""Logs of TOFU's own code."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from froc.errors import InputError
from froc.formats._score_logs import Logs
from froc.formats._scores import AUTHOR_ROWS, Log, Scores, Unfit, fit, forget_ratio, retain_ratio, scores_of

SECTIONS = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "probability": ("avg_gt_loss",),
    "rougeL_recall": ("rougeL_recall",),
    "rouge1_recall": ("rouge1_recall",),
    "truth_ratio": ("truth_ratio",),
}
PARTS = ("avg_paraphrased_loss", "average_perturb_loss")
"""What a truth ratio is made of, where the log does not hold it itself."""


@dataclass(frozen=True)
class Tofu(Logs):
    """eval_log_aggregated.json of TOFU's original code (2401.06121); plain or gzip.

    Values by index, or lists as in the logs that NPO and SimNPO released, where a row's index is its place. Measures are
    `SPLIT_probability` (exp of minus the mean loss per token), `SPLIT_rougeL_recall`, `SPLIT_rouge1_recall` and `SPLIT_truth_ratio`
    (min(s, 1/s) on the forget set, max(0, 1 - s) elsewhere; s is exp(avg_paraphrased_loss - mean(average_perturb_loss)) where the log
    has no truth_ratio), SPLIT being forget, retain, real_authors or world_facts. Rows of the forget and retain sets are
    units of 20, one for each author.
    """

    files: ClassVar[tuple[str, ...]] = ("eval_log_aggregated.json", "eval_log_aggregated.json.gz")

    def scores(self, document: Any, path: Path) -> Log:
        """Every section's measures."""
        if not isinstance(document, dict) or not set(SECTIONS) & set(document):
            raise InputError(f"none of the keys {', '.join(SECTIONS)} is there; give eval_log_aggregated.json")
        return dict(
            measure
            for key, split in SECTIONS.items()
            if key in document
            for measure in _section(document[key], key, split)
        )


def _section(section: Any, key: str, split: str) -> Iterator[tuple[str, Scores | Unfit]]:
    if not isinstance(section, dict):
        raise InputError(f"the key {key} holds {type(section).__name__}, not an object; give eval_log_aggregated.json")
    for measure, columns in COLUMNS.items():
        if measure == "truth_ratio" and "truth_ratio" not in section:
            columns = PARTS
        if all(column in section for column in columns):
            yield f"{split}_{measure}", fit(partial(_scores, section, key, split, measure, columns))


def _scores(section: Mapping[str, Any], key: str, split: str, measure: str, columns: tuple[str, ...]) -> Scores:
    values = [_by_index(section[column], f"{key}.{column}") for column in columns]
    if any(set(column) != set(values[0]) for column in values):
        raise InputError(f"{key}: {' and '.join(columns)} do not have the same rows; was the log cut?")
    texts = _by_index(section["generated_text"], f"{key}.generated_text") if "generated_text" in section else {}
    rows = {number: ([column[number] for column in values], texts.get(number)) for number in values[0]}
    return scores_of(
        rows, lambda row: row[0], _turn(measure, split, columns), name=f"{key}.{columns[0]}", prefix=split,
        block=AUTHOR_ROWS if split in ("forget", "retain") else 1, reference=lambda row: _answer(row[1]),
    )  # fmt: skip


def _by_index(values: Any, where: str) -> Mapping[str, Any]:
    """Values under their numbers; the older form is a list, where the number is the place."""
    if isinstance(values, list):
        return {str(number): value for number, value in enumerate(values)}
    if not isinstance(values, dict):
        raise InputError(f"the key {where} holds {type(values).__name__}, neither a list nor an object; was it edited?")
    return values


def _answer(generated: Any) -> Any:
    """The reference answer, which tells rows apart; it is digested at once."""
    return generated[-1] if isinstance(generated, list) and generated else None


def _turn(measure: str, split: str, columns: tuple[str, ...]) -> Any:
    if measure == "probability":
        return lambda loss: math.exp(-loss)
    if measure != "truth_ratio":
        return float
    turned = forget_ratio if split == "forget" else retain_ratio
    if columns == PARTS:
        return lambda paraphrased, perturbed: turned(math.exp(paraphrased - perturbed))
    return turned
