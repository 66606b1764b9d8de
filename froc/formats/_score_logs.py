"""Logs of evaluation tools -> losses: the common part of formats. Configurations are named by their paths.

A format turns a file into scores: measure -> one value in [0, 1] per query (`froc.formats._scores`). The user chooses the
loss of each risk by a rule:

    forgetting=forget_qa_rouge          the score: knowledge that should be removed is still there
    utility=1-retain_qa_rouge           one minus the score: knowledge that should be kept is missing
    utility=base-retain_qa_rouge        the score's drop against the base model's log, 0 where it rose
"""

import difflib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from froc import hashing
from froc.data.named_prompts import NamedPrompt
from froc.errors import InputError
from froc.formats import Format, Read, Source
from froc.formats._files import inside, json_of, names, tail, text_of
from froc.formats._scores import Log, Rule, Scores, Unfit
from froc.loss_table import check
from froc.risk.positive_control import BASE as CONTROL
from froc.risk.positive_control import Control, Kind

BASE = "the base model's log"
MAX_NAMED_MEASURES = 3
"""Measures that a note names before it counts the others."""


class UnfinishedError(InputError):
    """A log of an evaluation that did not end: skipped with a note in a folder, an error where it was named."""


@dataclass(frozen=True)
class _Run:
    """All scores of one model, from one or several files. prompts: measure -> how questions were asked, if a file says so."""

    log: dict[str, Scores | Unfit]
    sources: tuple[Source, ...]
    prompts: dict[str, NamedPrompt]


@dataclass(frozen=True)
class Logs(Format):
    """Files of one tool. files: patterns of their names, for folders; no_logs: names of other files that lie beside them.

    allow_other_mean: take measures whose rows have another mean than the log reports, with a note.
    """

    files: ClassVar[tuple[str, ...]]
    no_logs: ClassVar[tuple[str, ...]] = ()

    allow_other_mean: bool = False

    @abstractmethod
    def scores(self, document: Any, path: Path) -> Log:
        """measure -> scores of a parsed file; raises InputError naming the key that is not as it must be."""

    def parse(self, data: bytes) -> Any:
        """The file's bytes as what `scores` reads: one JSON document, plain or gzip, unless said otherwise."""
        return json_of(text_of(data))

    def run(self, document: Any, path: Path) -> Path:
        """What tells one model's files from another's: the file itself, unless models have several."""
        return path

    def prompt(self, document: Any, path: Path) -> NamedPrompt | None:
        """How its questions were asked, where the log or a file beside it says so. `read` warns where two models were asked otherwise."""
        return None

    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """Losses of every log by the rules; see `Format.read`."""
        runs, notes = self._runs(paths)
        if not losses:
            known = ", ".join(dict.fromkeys(name for run in runs.values() for name in run.log))
            raise InputError(
                f"say which scores are losses, such as --loss forgetting=NAME --loss utility=1-NAME; there are: {known}"
            )
        start_run = self._base(base) if base is not None else None
        before = None if start_run is None else start_run.log
        rules = {risk: Rule.of(text) for risk, text in losses.items()}
        parts: list[pl.DataFrame] = []
        for risk, rule in rules.items():
            _refuse_gaps(runs, rule.measure)
            measured = {config: _measure(run.log, rule.measure, config) for config, run in runs.items()}
            start = _start(rule, before)
            compared = measured | ({BASE: start} if start else {})
            _refuse_other_queries(compared, rule.measure)
            for config, scores in compared.items():
                notes += self._notes(scores, rule.measure, config)
            parts += [_rows(config, risk, rule, scores, start) for config, scores in measured.items()]
            notes += _other_prompts(rule.measure, ({BASE: start_run} if start_run else {}) | runs)
        control, lacking = _control(rules, before, next(iter(runs.values())).log)
        notes += lacking
        if before is not None and control is not None:
            for rule in rules.values():
                notes += self._notes(_measure(before, rule.measure, BASE), rule.measure, BASE)
        measures_used = {rule.measure for rule in rules.values()}
        notes += [note for config, run in runs.items() for note in _left_out(config, run.log, measures_used)]
        sources = {config: run.sources for config, run in runs.items()}
        return Read(pl.concat(parts), sources, tuple(dict.fromkeys(notes)), control=control)

    def measures(self, paths: Sequence[Path]) -> pl.DataFrame:
        """config, measure, queries, mean over those that have a score, missing, reported, and note: what rules may name."""
        runs, _ = self._runs(paths)
        rows = [
            (config, name, None, None, None, None, scores.reason) if isinstance(scores, Unfit)
            else (config, name, len(scores.query), scores.mean, scores.missing, scores.reported, scores.note)
            for config, run in runs.items()
            for name, scores in run.log.items()
        ]  # fmt: skip
        kinds = {"config": pl.String, "measure": pl.String, "queries": pl.Int64, "mean": pl.Float64}
        kinds |= {"missing": pl.Int64, "reported": pl.Float64, "note": pl.String}
        return pl.DataFrame(rows, schema=kinds, orient="row")

    def _runs(self, paths: Sequence[Path]) -> tuple[dict[str, _Run], list[str]]:
        """Configuration -> its measurements, and notes on files that were skipped."""
        known: dict[str, Path] = {}
        runs: dict[Path, _Run] = {}
        notes: list[str] = []
        for path, searched in inside(paths, self.files, self.no_logs).items():
            data = path.read_bytes()
            sha = hashing.sha256_bytes(data)
            if known.setdefault(sha, path) != path:
                raise InputError(f"{known[sha]} and {path} are the same file under two names; give each log once")
            try:
                key, log, prompt = self._scores(data, path)
            except UnfinishedError as error:
                if not searched:
                    raise
                notes.append(f"skipped {tail(path, paths)}: {str(error).removeprefix(f'{path}: ')}")
                continue
            before = runs.get(key, _Run({}, (), {}))
            twice = next((name for name in log if name in before.log), None)
            if twice is not None:
                raise InputError(f"{path}: the measure {twice} of this model is in another file, too; give one of them")
            source = Source(tail(path, paths), sha)
            prompts = {} if prompt is None else dict.fromkeys(log, prompt)
            runs[key] = _Run({**before.log, **log}, (*before.sources, source), {**before.prompts, **prompts})
        if not runs:
            raise InputError(f"no log is whole: {notes[0]}")
        return {name: runs[path] for path, name in names(list(runs)).items()}, notes

    def _base(self, path: Path) -> _Run:
        runs, _ = self._runs([path])
        if len(runs) != 1:
            raise InputError(f"{path} holds logs of {len(runs)} models; --base is one model's")
        return next(iter(runs.values()))

    def _scores(self, data: bytes, path: Path) -> tuple[Path, dict[str, Scores | Unfit], NamedPrompt | None]:
        try:
            document = self.parse(data)
            key, log = self.run(document, path), dict(self.scores(document, path))
            prompt = self.prompt(document, path)
        except InputError as error:
            raise (UnfinishedError if isinstance(error, UnfinishedError) else InputError)(f"{path}: {error}") from error
        if not log:
            raise InputError(f"{path}: no measure with a value per query; is it this format's file?")
        named = {
            name: replace(scores, reason=f"{path}: {scores.reason}") if isinstance(scores, Unfit) else scores
            for name, scores in log.items()
        }
        return key, named, prompt

    def _notes(self, scores: Scores, measure: str, config: str) -> Iterator[str]:
        """What a reader should know of a measure that is used; InputError where its rows are not what the log's mean is of."""
        if scores.note:
            yield f"{config}: {scores.note}"
        if scores.missing:
            yield f"{config}: {scores.missing} queries of {measure} have no score, or not all; what is missing counts as a loss of 1"
        if scores.strays:
            differ = f"{config}: the log reports {scores.reported:.6g} for {measure}, its rows have a mean of {scores.mean:.6g}"
            if not self.allow_other_mean:
                raise InputError(
                    f"{differ}; they are not what was reported (--allow-other-mean takes the rows nonetheless)"
                )
            yield differ


def _refuse_gaps(runs: Mapping[str, _Run], measure: str) -> None:
    """InputError where some models were measured and others were not."""
    have = [config for config, run in runs.items() if measure in run.log]
    lack = [config for config in runs if config not in have]
    if have and lack:
        raise InputError(
            f"{have[0]} has the measure {measure} and {lack[0]} has not, and they are different models; give logs of both, or one "
            "model's alone"
        )


def _measure(log: Log, name: str, config: str) -> Scores:
    if name not in log:
        near = difflib.get_close_matches(name, log, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(log)}"
        raise InputError(f"{config} has no measure {name!r} with a value in [0, 1] per query; {hint}")
    scores = log[name]
    if isinstance(scores, Unfit):
        raise InputError(scores.reason)
    return scores


def _start(rule: Rule, before: Log | None) -> Scores | None:
    if rule.kind != "base-":
        return None
    if before is None:
        raise InputError(f"base-{rule.measure} compares with the base model; give its log with --base")
    return _measure(before, rule.measure, BASE)


def _refuse_other_queries(measured: Mapping[str, Scores], measure: str) -> None:
    (first, reference), *others = measured.items()
    for config, scores in others:
        if scores.query != reference.query:
            raise InputError(
                f"{measure}: {config} has {len(scores.query)} queries and {first} has {len(reference.query)}; compare models "
                "on the same ones, of the same split"
            )
        for query, mine, theirs in zip(reference.query, reference.query_digests, scores.query_digests, strict=True):
            if mine and theirs and mine != theirs:
                raise InputError(
                    f"{measure}: query {query} asks another question in {config} than in {first}; the rows do not match"
                )


def _other_prompts(measure: str, runs: Mapping[str, _Run]) -> Iterator[str]:
    """A warning for each model whose questions were asked differently from the first one's, as far as logs say so."""
    prompts = [(config, run.prompts[measure]) for config, run in runs.items() if measure in run.prompts]
    for config, prompt in prompts[1:]:
        first, reference = prompts[0]
        unlike = prompt.unlike(reference)
        if unlike:
            yield (
                f"{measure}: {config} was asked with another prompt than {first} ({unlike}), so that a difference between them may be "
                "the prompt's; evaluate both with the prompt that the model was taught with"
            )


def _left_out(config: str, log: Log, measures_used: set[str]) -> Iterator[str]:
    """A note on measures that no loss can be made of and no rule asks for."""
    unfit = [name for name, scores in log.items() if isinstance(scores, Unfit) and name not in measures_used]
    if unfit:
        more = f" and {len(unfit) - MAX_NAMED_MEASURES} more" if len(unfit) > MAX_NAMED_MEASURES else ""
        listed = ", ".join(unfit[:MAX_NAMED_MEASURES])
        yield f"{config}: left out {listed}{more}, which no rule asks for and no loss can be made of (--measures says why)"


CONTROL_OF_RULE: Mapping[str, Kind] = {"": "exceeds", "base-": "ceiling", "1-": "none"}
"""Rule -> what the base model must show for it: the score is to be lost, no more than the score can be lost, neither."""


def _control(rules: Mapping[str, Rule], before: Log | None, log: Log) -> tuple[Control | None, list[str]]:
    """The positive control from the base model's log, or a note on why there is none. log: of a model that is certified."""
    if before is None:
        return None, []
    parts = []
    for risk, rule in rules.items():
        start, measured = before.get(rule.measure), log[rule.measure]
        if not isinstance(start, Scores) or not isinstance(measured, Scores) or start.query != measured.query:
            return None, [f"{BASE} has no {rule.measure} on the same queries, so nothing is said about before"]
        # a lack of what the rule asks of the base: of a score, or of losses that it should not have
        lack = Rule("", rule.measure) if rule.kind == "1-" else Rule("1-", rule.measure)
        parts.append(_rows(CONTROL, risk, rule, start, None, lack))
    kinds = {risk: CONTROL_OF_RULE[rule.kind] for risk, rule in rules.items()}
    return Control(check(pl.concat(parts)), kinds), []


def _rows(
    config: str, risk: str, rule: Rule, scores: Scores, base: Scores | None, lack: Rule | None = None
) -> pl.DataFrame:
    """The losses of a rule as a table; lack: the rule of what is lacking instead, for the base model."""
    return pl.DataFrame(
        {
            "config": [config] * len(scores.query),
            "risk": [risk] * len(scores.query),
            "metric": [f"{rule.kind}{rule.measure}"] * len(scores.query),
            "unit": scores.unit,
            "query": scores.query,
            "loss": (lack or rule).losses(scores, base),
        }
    )
