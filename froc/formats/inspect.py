"""Logs of Inspect."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from froc import hashing
from froc.data.named_prompts import CHAT, SYSTEM, NamedPrompt
from froc.errors import InputError
from froc.formats._files import json_of, text_of
from froc.formats._inspect_zip import ZIP, log_of
from froc.formats._score_logs import Logs, UnfinishedError
from froc.formats._scores import Log, Scores, Unfit, fit, mean_reported, need, score

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Correct, partial, incorrect, no answer: numbers that Inspect gives them."""
SAME_MODEL = re.compile(
    r"device(_map)?|batch_size|max_connections|max_batch.*|timeout|port|seed|.*parallel_size|gpu_memory_utilization|"
    r".*(key|token|secret|password).*|trust_remote_code|attn_implementation|tokenizer_call_args|hidden_states"
)
"""Arguments of a model that make no other model of it; and secrets, which no digest should be of."""
MEAN = ("accuracy", "mean")
"""Metrics that are the mean over samples."""


@dataclass(frozen=True)
class Inspect(Logs):
    """Inspect's logs, `.eval` or JSON; plain or gzip.

    Logs in one folder of the same model are one configuration; the model's arguments (path, revision, base URL, adapter) tell
    models apart that are called alike, as all local ones are. Measures are called `TASK.SCORER` (`wmdp.choice`),
    `TASK.SCORER.KEY` where a score has several values. A sample is one query, however many epochs ask it: its value is the mean
    over epochs, and epochs without a score count as a loss of 1. Only finished logs (status success) are read.
    """

    files: ClassVar[tuple[str, ...]] = ("*.eval", "*.json", "*.json.gz")
    no_logs: ClassVar[tuple[str, ...]] = ("logs.json", "eval-set.json", "listing.json", "eval-retryable.json")

    def parse(self, data: bytes) -> Any:
        """A zip archive or a JSON document."""
        return log_of(data) if data[:4] == ZIP else json_of(text_of(data))

    def run(self, document: Any, path: Path) -> Path:
        """Folder and model; behind the # what tells models of one name apart."""
        _refuse_unfinished(document)
        spec = need(document, "eval", dict)
        model = need(spec, "model", str, "eval")
        arguments = {
            key: _normal(value) for key, value in _inner(spec, "model_args").items() if not SAME_MODEL.fullmatch(key)
        }
        place = arguments.get("model_path")
        words = [model, *([posixpath.basename(place)] if isinstance(place, str) else [])]
        label = "-".join(re.sub(r"[^\w.-]+", "-", word).strip("-") for word in words)
        identity = hashing.sha256_json({"model": model, "args": arguments, "url": spec.get("model_base_url")})
        return path.parent / f"{label}#{identity[:12]}"

    def prompt(self, document: Any, path: Path) -> NamedPrompt | None:
        """Templates of the solvers that write into the prompt, and the system message and chat template that the model is given."""
        plan, spec = _inner(document, "plan"), _inner(document, "eval")
        steps = plan.get("steps")
        if not isinstance(steps, list):
            return None
        key = "system_message"
        system = _inner(plan, "config").get(key) or _inner(spec, "model_generate_config").get(key)
        parts = {SYSTEM: system, CHAT: _inner(spec, "model_args").get("chat_template")}
        for place, step in enumerate(step for step in steps if isinstance(step, dict)):
            parts[f"solver {place} ({step.get('solver')})"] = _inner(step, "params").get("template")
        return NamedPrompt(path.name, {name: text for name, text in parts.items() if isinstance(text, str)})

    def scores(self, document: Any, path: Path) -> Log:
        """Every scorer's values, a sample's mean over its epochs."""
        samples = need(document, "samples", list)
        if not samples:
            raise InputError(
                "the key samples is empty; the log was written without its samples, run it with log_samples"
            )
        spec = need(document, "eval", dict)
        task = need(spec, "task", str, "eval").rpartition("/")[2]
        for number, sample in enumerate(samples):
            for key in ("id", "epoch"):
                if not isinstance(sample, dict) or not isinstance(sample.get(key), str | int):
                    raise InputError(f"samples[{number}] has no key {key}; is the log whole?")
        samples_by_id = _SamplesById.of(samples, spec)
        names = dict.fromkeys(name for sample in samples for name in _values(sample))
        return {f"{task}.{name}": samples_by_id.scores(task, name, _reported(document, name)) for name in names}


def _inner(document: Any, key: str) -> Mapping[str, Any]:
    """An object inside of an object; empty where there is none."""
    inner = document.get(key) if isinstance(document, dict) else None
    return inner if isinstance(inner, dict) else {}


def _refuse_unfinished(document: Any) -> None:
    status = need(document, "status", str)
    if status != "success":
        raise UnfinishedError(
            f"the key status says {status!r}; an evaluation that did not end has no losses, finish it first"
        )
    if document.get("invalidated") is True:
        raise UnfinishedError("the key invalidated says that the log does not count; run the evaluation again")


def _normal(value: Any) -> Any:
    """Paths that differ in `./` alone are one."""
    return posixpath.normpath(value) if isinstance(value, str) and "/" in value and "://" not in value else value


@dataclass(frozen=True)
class _SamplesById:
    """Samples by id, in order. epochs: how often each was to be asked. reducer: how the log makes one score of them."""

    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    epochs: int
    reducer: str

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> "_SamplesById":
        by_id: dict[str, list[Mapping[str, Any]]] = {str(sample["id"]): [] for sample in samples}
        # samples that were to be asked and are not in the log have no score
        listed = _inner(spec, "dataset").get("sample_ids")
        by_id |= {str(name): [] for name in listed or () if str(name) not in by_id}
        for sample in samples:
            by_id[str(sample["id"])].append(sample)
        seen = [[int(sample["epoch"]) for sample in samples_of_id] for samples_of_id in by_id.values()]
        if any(len(set(epochs)) < len(epochs) for epochs in seen):
            raise InputError("a sample is there twice with the same epoch; the log holds several runs")
        config = _inner(spec, "config")
        planned_epochs = config.get("epochs")
        # epochs beyond what the log plans are asked all the same
        most = max([*map(len, seen), planned_epochs if isinstance(planned_epochs, int) else 1])
        reducers = config.get("epochs_reducer") or ["mean"]
        reducer = ", ".join(map(str, reducers)) if isinstance(reducers, list) else str(reducers)
        return cls({name: by_id[name] for name in sorted(by_id)}, most, reducer)

    def scores(self, task: str, name: str, reported: float | None) -> Scores | Unfit:
        """One scorer's values."""
        return fit(lambda: self._scores(task, name, reported))

    def _scores(self, task: str, name: str, reported: float | None) -> Scores:
        values: list[float | None] = []
        lacking: list[float] = []
        for number, samples in enumerate(self.samples.values()):
            values_by_epoch = [_score(sample, name, f"{task}.{name}, sample {number}") for sample in samples]
            scored = [value for value in values_by_epoch if value is not None]
            values.append(sum(scored) / len(scored) if scored else None)
            lacking.append(1.0 - len(scored) / self.epochs)
        note = f"a sample's {name} is its mean over {self.epochs} epochs" if self.epochs > 1 else ""
        if note and self.reducer != "mean":
            note += f"; the log itself reduces them by {self.reducer}"
        query = tuple(f"{task}-{key}" for key in self.samples)
        digests = tuple(_target(samples) for samples in self.samples.values())
        return Scores(query, query, tuple(values), digests, reported, tuple(lacking), note)


def _target(samples: Sequence[Mapping[str, Any]]) -> str:
    return hashing.sha256_bytes(f"{samples[0]['id']} {samples[0].get('target')}".encode()) if samples else ""


def _score(sample: Mapping[str, Any], name: str, where: str) -> float | None:
    value = None if sample.get("invalidation") else _values(sample).get(name)
    if isinstance(value, bool):
        value = float(value)
    elif isinstance(value, str):
        value = GRADES.get(value, GRADES.get(value.lower(), value))
    return score([value], where)


def _values(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Scorer, or scorer and key -> value."""
    values: dict[str, Any] = {}
    scores = sample.get("scores")
    for scorer, entry in scores.items() if isinstance(scores, dict) else ():
        value = entry.get("value") if isinstance(entry, dict) else None
        if isinstance(value, dict):
            values |= {f"{scorer}.{key}": part for key, part in value.items()}
        else:
            values[scorer] = value
    return values


def _reported(document: Mapping[str, Any], name: str) -> float | None:
    """The mean over samples that the log reports of a scorer, or of a key of its values."""
    entries = _inner(document, "results").get("scores")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("reducer") not in (None, "mean"):
            continue
        if name not in (entry.get("scorer"), f"{entry.get('scorer')}.{entry.get('name')}"):
            continue
        metrics = entry.get("metrics")
        for metric in MEAN:
            value = metrics.get(metric) if isinstance(metrics, dict) else None
            if isinstance(value, dict):
                return mean_reported(value.get("value"))
    return None
