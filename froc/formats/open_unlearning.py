"""OpenUnlearning's evaluation logs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from froc.data.named_prompts import NamedPrompt, run_prompt
from froc.errors import InputError
from froc.formats._score_logs import Logs
from froc.formats._scores import (
    AUTHOR_ROWS,
    MEAN_TOLERANCE,
    Columns,
    Log,
    Scores,
    Unfit,
    finite,
    fit,
    forget_ratio,
    mean_reported,
    need,
    retain_ratio,
    scores_of,
)
from froc.formats.lm_eval import samples

ROUGE = ("rougeL_recall", "rougeL_f1", "rouge1_recall")
BY_F1 = re.compile(r"knowmem|verbmem")
"""MUSE's means are of rougeL_f1, TOFU's and DUET's of rougeL_recall."""
SPLIT = re.compile(r"(forget|retain|ra|wf|holdout)_")


@dataclass(frozen=True)
class OpenUnlearning(Logs):
    """OpenUnlearning's TOFU_EVAL.json, MUSE_EVAL.json, LMEval_EVAL.json and others such as DUET_EVAL.json; plain or gzip.

    All files of one folder are one model's. Measures are called as in the log, and have the value per row whose mean the log
    reports: rougeL_recall (rougeL_f1 in MUSE's), prob (its mean over wrong answers), score. `NAME.FIELD` takes another ROUGE.
    Truth ratios s = wrong / correct are turned as OpenUnlearning does: min(s, 1/s) for the forget set, max(0, 1 - s) for the
    others; shares correct / (correct + wrong), its `prob_mean`, are taken as they are. The reported mean says which it is;
    `NAME.ratio` and `NAME.score` name one. A membership attack (mia_...) has a forget row's share of holdout rows that score higher,
    whose mean is its AUC. Rows of TOFU's authors are units of 20. Tasks of the harness are measures as in `lm-eval`.
    """

    files: ClassVar[tuple[str, ...]] = ("*_EVAL.json", "*_EVAL.json.gz")

    def run(self, document: Any, path: Path) -> Path:
        """The folder."""
        return path.parent

    def prompt(self, document: Any, path: Path) -> NamedPrompt | None:
        """The run's configuration; the harness has a prompt of its own."""
        return None if path.name.startswith("LMEval") else run_prompt(path.parent)

    def scores(self, document: Any, path: Path) -> Log:
        """Every metric that has values by index, and tasks of the harness."""
        if not isinstance(document, dict):
            raise InputError("the file holds no object of metrics; is it this format's file?")
        block = AUTHOR_ROWS if any("_Q_A_" in name for name in document) else 1
        measures: dict[str, Scores | Unfit] = {}
        for name, entry in document.items():
            for measure, scores in _entry(name, entry, block):
                if measure in measures:
                    raise InputError(f"the measure {measure} is there twice; keep one of them")
                measures[measure] = scores
        return measures


def _entry(name: str, entry: Any, block: int) -> Iterator[tuple[str, Scores | Unfit]]:
    try:
        if not isinstance(entry, dict):
            raise InputError(f"the key {name} holds {type(entry).__name__}, not an object; was it edited?")
        if entry and "value_by_index" not in entry and all(isinstance(rows, list) for rows in entry.values()):
            for task, rows in entry.items():
                yield from samples(task, rows).items()
        elif "forget" in entry and "holdout" in entry:
            yield name, fit(lambda: _placed(name, entry, block))
        elif "value_by_index" in entry:
            yield from _by_index(name, entry, block)
    except InputError as error:
        yield name, Unfit(str(error))


def _by_index(name: str, entry: Mapping[str, Any], block: int) -> Iterator[tuple[str, Scores | Unfit]]:
    rows = need(entry, "value_by_index", dict, name)
    if not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise InputError(f"the key {name}.value_by_index holds no rows; is the log whole?")
    fields = {field for row in rows.values() for field in row}
    measures = _Entry(name, rows, block, entry.get("agg_value"))
    if "prob" in fields:
        yield name, measures.of("prob", reported=True)
    elif "rougeL_recall" in fields:
        yield name, measures.of("rougeL_f1" if BY_F1.search(name) else "rougeL_recall", reported=True)
        for field in ROUGE:
            yield f"{name}.{field}", measures.of(field, reported=False)
    elif "score" in fields and name.lower().endswith("truth_ratio"):
        forms = {"ratio": measures.ratio(), "score": measures.of("score", reported=True)}
        yield name, _form(name, forms, measures)
        yield from ((f"{name}.{form}", scores) for form, scores in forms.items() if isinstance(scores, Scores))
    elif "score" in fields:
        yield name, measures.of("score", reported=True)


@dataclass(frozen=True)
class _Entry:
    """A metric's rows by index, and the mean that the log reports."""

    name: str
    rows: Mapping[str, Any]
    block: int
    agg_value: Any

    def of(self, field: str, *, reported: bool) -> Scores | Unfit:
        """The field as it is."""
        return fit(lambda: self._scores(lambda row: [row.get(field)], float, self.agg_value if reported else None))

    def ratio(self) -> Scores | Unfit:
        """wrong / correct, turned as OpenUnlearning does."""
        turn = forget_ratio if self.name.startswith("forget") else retain_ratio
        return fit(lambda: self._scores(lambda row: [row.get("score")], turn, self.agg_value))

    def _scores(self, columns: Columns, turn: Any, reported: Any) -> Scores:
        split = SPLIT.match(self.name)
        prefix = split[1] if split else "forget"
        return scores_of(
            self.rows, columns, turn, name=self.name, prefix=prefix, reported=reported,
            block=self.block if prefix in ("forget", "retain") else 1, reference=lambda row: row.get("ground_truth"),
        )  # fmt: skip


def _form(name: str, forms: Mapping[str, Scores | Unfit], entry: _Entry) -> Scores | Unfit:
    """The truth ratio whose mean the log reports; never a form that the log does not bear out."""
    ratio, share = forms["ratio"], forms["score"]
    # scores above 1 can be ratios alone
    if isinstance(ratio, Unfit) or isinstance(share, Unfit) or share.mean is None:
        return ratio
    if _equal(ratio, share):
        return ratio
    reported = mean_reported(entry.agg_value)
    fitting = (
        []
        if reported is None
        else [form for form in (ratio, share) if abs((form.mean or 0.0) - reported) <= MEAN_TOLERANCE]
    )
    if len(fitting) != 1:
        return Unfit(
            f"{name}: its reported mean does not tell ratios wrong/correct from shares correct/(correct+wrong); name {name}.ratio "
            f"or {name}.score"
        )
    if fitting[0] is share:
        return replace(share, note=f"{name} holds shares correct/(correct+wrong), as its reported mean says")
    return ratio


def _equal(first: Scores, second: Scores) -> bool:
    pairs = zip(first.value, second.value, strict=True)
    return all(a is None or b is None or abs(a - b) <= MEAN_TOLERANCE for a, b in pairs)


def _placed(name: str, entry: Mapping[str, Any], block: int) -> Scores:
    """A forget row's share of holdout rows with a higher score, half of those with the same."""
    mine, others = (
        need(need(entry, side, dict, name), "value_by_index", dict, f"{name}.{side}") for side in ("forget", "holdout")
    )
    bank = [finite(_raw(row), f"{name}.holdout, row {number}") for number, row in others.items()]
    known = np.sort(np.array([score for score in bank if score is not None], dtype=np.float64))
    unknown = len(bank) - len(known)
    if not bank:
        raise InputError(f"{name}: there are no holdout rows to rank among; run the attack again")

    def above(score: float) -> float:
        low, high = np.searchsorted(known, score, "left"), np.searchsorted(known, score, "right")
        return float((len(known) - high) + 0.5 * (high - low)) / len(known)

    note = f"{unknown} of {len(bank)} holdout rows of {name} have no score, so that no rank among them is known"
    return scores_of(
        mine, lambda row: [None if unknown else _raw(row)], above, name=name, prefix="forget", block=block,
        reported=entry.get("auc"), note=note if unknown else "",
    )  # fmt: skip


def _raw(row: Any) -> Any:
    return row.get("score") if isinstance(row, dict) else None
