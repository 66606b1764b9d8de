"""Sample logs of lm-evaluation-harness."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from froc import hashing
from froc.data.named_prompts import CHAT, SYSTEM, NamedPrompt, results
from froc.errors import InputError
from froc.formats._files import json_of, lines_of, text_of
from froc.formats._score_logs import Logs
from froc.formats._scores import Log, Scores, Unfit, fit, scores_of

TASK = re.compile(r"samples_(.+?)(?:_(\d{4}-\d\d-\d\dT[\d.:-]+))?\.jsonl")
FILTER = "none"
"""What a task without filters calls its only one."""
SAME_MODEL = (
    "batch_size",
    "max_batch_size",
    "batch_sizes",
    "device",
    "limit",
    "gen_kwargs",
    "bootstrap_iters",
    "use_cache",
)
"""Settings of a run that make no other model of it."""
PROMPT = {"system_instruction": SYSTEM, "chat_template": CHAT, "fewshot_as_multiturn": "few-shot examples as turns"}
"""What the harness's results call the parts of a prompt."""


@dataclass(frozen=True)
class LmEval(Logs):
    """samples_TASK_TIME.jsonl of lm-evaluation-harness (`--log_samples`); plain or gzip.

    The files of one folder are one model's, as the harness writes them; where the results beside them name several, the folder is
    refused. Measures are called `TASK.METRIC` (`mmlu.acc`), with the filter where a task has several
    (`gsm8k.exact_match,strict-match`). A metric that is a list per sample is left out.
    """

    files: ClassVar[tuple[str, ...]] = ("samples_*.jsonl", "samples_*.jsonl.gz")

    def parse(self, data: bytes) -> Any:
        """One object per line."""
        return lines_of(text_of(data))

    def run(self, document: Any, path: Path) -> Path:
        """The folder."""
        _refuse_several(path.parent)
        return path.parent

    def prompt(self, document: Any, path: Path) -> NamedPrompt | None:
        """What the results of the same time say; samples hold rendered prompts alone."""
        time = (match := TASK.match(path.name)) and match[2]
        reported = results(path.with_name(f"results_{time}.json")) if time else {}
        if not any(key in reported for key in PROMPT):
            return None
        parts = {name: reported[key] for key, name in PROMPT.items() if isinstance(reported.get(key), str | bool)}
        return NamedPrompt(f"results_{time}.json", parts)

    def scores(self, document: Any, path: Path) -> Log:
        """Every metric that is a number per sample, by filter."""
        return samples(_task(path), document)


def samples(task: str, rows: Any) -> dict[str, Scores | Unfit]:
    """Measures of one task's samples, as the harness logs them. rows: a list of objects."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError("no line of samples; was the harness run with --log_samples?")
    by_filter: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("doc_id"), int):
            raise InputError(f"line {number}: the key doc_id is missing or no number; is it a file of samples?")
        by_filter.setdefault(str(row.get("filter", FILTER)), []).append(row)
    suffix = {name: f",{name}" if len(by_filter) > 1 else "" for name in by_filter}
    return dict(
        measure
        for name, rows_of_filter in by_filter.items()
        for measure in _filtered(task, rows_of_filter, suffix[name])
    )


def _refuse_several(folder: Path) -> None:
    """InputError where the harness's results in a folder, of the same times as samples, name several models."""
    times = {match[2] for path in folder.glob("samples_*") if (match := TASK.match(path.name)) and match[2]}
    models = set()
    for time in sorted(times):
        path = folder / f"results_{time}.json"
        if path.is_file():
            document = json_of(text_of(path.read_bytes()))
            config = document.get("config") if isinstance(document, dict) else None
            settings = (
                {k: v for k, v in config.items() if k in ("model", "model_args")} if isinstance(config, dict) else {}
            )
            arguments = settings.get("model_args")
            if isinstance(arguments, str):
                settings["model_args"] = sorted(
                    argument for argument in arguments.split(",") if argument.partition("=")[0] not in SAME_MODEL
                )
            elif isinstance(arguments, dict):
                settings["model_args"] = {k: v for k, v in arguments.items() if k not in SAME_MODEL}
            models.add(hashing.sha256_json(settings))
    if len(models) > 1:
        raise InputError(
            f"the results in its folder name {len(models)} models, and samples do not say whose they are; give each model a folder"
        )


def _task(path: Path) -> str:
    match = TASK.match(path.name)
    return match[1] if match else path.name.partition(".")[0]


def _filtered(task: str, rows: Sequence[Mapping[str, Any]], suffix: str) -> Iterator[tuple[str, Scores | Unfit]]:
    ids = [row["doc_id"] for row in rows]
    if len(set(ids)) != len(ids):
        raise InputError("a doc_id is there twice under one filter; the file holds several runs")
    # a run with --limit or a sharded one need not begin at 0
    ordered = {str(i): row for i, row in enumerate(sorted(rows, key=lambda row: row["doc_id"]))}
    for name in _metrics(rows):
        yield f"{task}.{name}{suffix}", fit(partial(_scores, task, name, ordered))


def _scores(task: str, name: str, ordered: Mapping[str, Any]) -> Scores:
    return scores_of(
        ordered, lambda row: [_value(row.get(name))], name=f"{task}.{name}", prefix=task, reference=_row_identity
    )


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the log says its metrics are; logs of older versions do not, and have a number under each metric's name."""
    listed = rows[0].get("metrics")
    if isinstance(listed, list):
        names = [str(name) for name in listed]
    else:
        names = [key for key, value in rows[0].items() if key != "doc_id" and isinstance(value, bool | int | float)]
    return [name for name in names if all(isinstance(row.get(name), bool | int | float | None) for row in rows)]


def _value(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


def _row_identity(row: Mapping[str, Any]) -> str:
    return f"{row['doc_id']} {row.get('doc_hash', '')} {row.get('target_hash', '')}"
