"""Logs of evaluation tools -> losses: what all of them share. Paths are the only names that configurations have.

A tool's format says how its file becomes scores: measure -> one value in [0, 1] per query. Which scores are a loss is the
user's to say, as a rule per risk:

    forgetting=forget_qa_rouge          the score itself: what should be gone is still there
    utility=1-retain_qa_rouge           one minus it: what should have stayed is gone
    utility=base-retain_qa_rouge        what the base model's log had more, and 0 where it had less
"""

import difflib
import gzip
import json
import math
import os
import re
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from froc import digest
from froc.errors import InputError
from froc.formats import Format, Read, Source
from froc.losses import quantise

AGREE = 1e-6
"""How far a reported mean may be from the mean of its rows; logs keep single precision."""
BASE = "the base model's log"
GZIP = b"\x1f\x8b"
MEASURE = re.compile(r"(1-|base-)?(.+)")


@dataclass(frozen=True)
class Scores:
    """One measure of a log. query, unit: ids. value: in [0, 1], None for a query that could not be measured.

    asked: digest of what was asked, or "" where the log does not say it. reported: the tool's own mean of `value`.
    """

    query: tuple[str, ...]
    unit: tuple[str, ...]
    value: tuple[float | None, ...]
    asked: tuple[str, ...]
    reported: float | None = None


Log = Mapping[str, Scores]


@dataclass(frozen=True)
class Rule:
    """How a risk's losses follow from a measure."""

    kind: Literal["", "1-", "base-"]
    measure: str

    @classmethod
    def of(cls, text: str) -> "Rule":
        """`NAME`, `1-NAME` or `base-NAME`."""
        found = MEASURE.fullmatch(text.strip())
        if found is None:
            raise InputError("a loss needs a measure; write RISK=NAME, RISK=1-NAME or RISK=base-NAME")
        kind: Any = found[1] or ""
        return cls(kind, found[2])

    def losses(self, scores: Scores, base: Scores | None) -> list[float]:
        """A loss in [0, 1] per query; 1 for a query that could not be measured."""
        if self.kind == "":
            return [1.0 if v is None else v for v in scores.value]
        if self.kind == "1-":
            return [1.0 if v is None else 1.0 - v for v in scores.value]
        assert base is not None
        before = dict(zip(base.query, base.value, strict=True))
        pairs = [(before[query], now) for query, now in zip(scores.query, scores.value, strict=True)]
        return [1.0 if was is None or now is None else max(0.0, was - now) for was, now in pairs]


@dataclass(frozen=True)
class _Run:
    """Everything that was measured of one model, from one file or several."""

    log: dict[str, Scores]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Logs(Format):
    """Files of one tool. files: patterns of their names, for folders."""

    files: ClassVar[tuple[str, ...]]

    @abstractmethod
    def scores(self, document: Any, path: Path) -> Log:
        """measure -> scores of a parsed file; raises InputError naming the key that is not as it must be."""

    def parse(self, text: str) -> Any:
        """The file's text as what `scores` reads: one JSON document unless said otherwise."""
        return json.loads(text)

    def run(self, document: Any, path: Path) -> Path:
        """What tells one model's files from another's: the file itself, unless models have several."""
        return path

    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """Losses of every log by the rules; see `Format.read`."""
        runs = self._runs(paths)
        if not losses:
            names = ", ".join(dict.fromkeys(name for run in runs.values() for name in run.log))
            raise InputError(
                f"say which scores are losses, such as --loss forgetting=NAME --loss utility=1-NAME; there are: {names}"
            )
        before = self._base(base) if base is not None else None
        parts: list[pl.DataFrame] = []
        notes: list[str] = []
        for risk, rule in ((risk, Rule.of(text)) for risk, text in losses.items()):
            some = {config: _measure(run.log, rule.measure, config) for config, run in runs.items()}
            start = _start(rule, before)
            _refuse_other_queries(some | ({BASE: start} if start else {}), rule.measure)
            notes += _notes(some, rule.measure)
            parts += [_rows(config, risk, rule, scores, start) for config, scores in some.items()]
        sources = {config: run.sources for config, run in runs.items()}
        return Read(pl.concat(parts), sources, tuple(dict.fromkeys(notes)))

    def measures(self, paths: Sequence[Path]) -> pl.DataFrame:
        """config, measure, queries and mean: what rules may name."""
        found = [
            (config, name, len(scores.query), _mean(scores))
            for config, run in self._runs(paths).items()
            for name, scores in run.log.items()
        ]
        return pl.DataFrame(found, schema=["config", "measure", "queries", "mean"], orient="row")

    def _runs(self, paths: Sequence[Path]) -> dict[str, _Run]:
        """Configuration -> its measurements."""
        known: dict[str, Path] = {}
        found: dict[Path, _Run] = {}
        for path in self._found(paths):
            data = path.read_bytes()
            sha = digest.of_bytes(data)
            if known.setdefault(sha, path) != path:
                raise InputError(f"{known[sha]} and {path} are the same file under two names; give each log once")
            document = self._document(path, data)
            key, log = self._scores(document, path)
            before = found.get(key, _Run({}, ()))
            for name in log:
                if name in before.log:
                    raise InputError(
                        f"{path}: the measure {name} of this model is in another file, too; give one of them"
                    )
            found[key] = _Run({**before.log, **log}, (*before.sources, Source(_tail(path, paths), sha)))
        return {name: found[path] for path, name in _names(list(found)).items()}

    def _base(self, path: Path) -> Log:
        runs = self._runs([path])
        if len(runs) != 1:
            raise InputError(f"{path} holds logs of {len(runs)} models; --base is one model's")
        return next(iter(runs.values())).log

    def _found(self, paths: Sequence[Path]) -> list[Path]:
        found: list[Path] = []
        for path in paths:
            if path.is_dir():
                inside = sorted({f for pattern in self.files for f in path.rglob(pattern)})
                if not inside:
                    raise InputError(f"{path} holds no {' or '.join(self.files)}; give the files themselves")
                found += inside
            elif path.is_file():
                found.append(path)
            else:
                raise InputError(f"{path} does not exist; give a log, or a folder of them")
        return list(dict.fromkeys(found))

    def _document(self, path: Path, data: bytes) -> Any:
        try:
            return self.parse((gzip.decompress(data) if data[:2] == GZIP else data).decode("utf-8-sig"))
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the gzip data ends too early or is damaged; copy the file again") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}); is it this format's file?") from error
        except (json.JSONDecodeError, RecursionError) as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise InputError(
                f"{path}: no whole JSON{where}; the tool may have been stopped while writing, run it again"
            ) from error

    def _scores(self, document: Any, path: Path) -> tuple[Path, Log]:
        try:
            key, log = self.run(document, path), self.scores(document, path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if not log:
            raise InputError(f"{path}: no measure with a value per query; is it this format's file?")
        return key, log


def scores_of(
    rows: Mapping[str, Any],
    value: Any,
    *,
    name: str,
    prefix: str,
    block: int = 1,
    asked: Any = None,
    reported: Any = None,
) -> Scores:
    """Scores of rows under their numbers. rows: "0", "1", ... -> row; value(row) -> number or None.

    block: rows that are about one unit. asked(row) -> what the query was, if the log says it.
    Raises InputError where rows are missing, or a value is no number in [0, 1].
    """
    numbers = _numbers(rows, name)
    values = [_number(value(rows[str(i)]), f"{name}, row {i}") for i in numbers]
    told = [asked(rows[str(i)]) if asked else None for i in numbers]
    return Scores(
        query=tuple(f"{prefix}-{i}" for i in numbers),
        unit=tuple(f"{prefix}-{i // block}" if block == 1 else f"{prefix}-unit-{i // block}" for i in numbers),
        value=tuple(values),
        asked=tuple("" if text is None else digest.of_bytes(str(text).encode()) for text in told),
        reported=reported if isinstance(reported, float | int) and math.isfinite(reported) else None,
    )


def need(document: Any, key: str, kind: type, where: str = "") -> Any:
    """document[key], of a kind; InputError naming the key."""
    place = f"{where}.{key}" if where else key
    if not isinstance(document, dict) or key not in document:
        raise InputError(f"the key {place} is missing; is the file whole, and of this format?")
    if not isinstance(document[key], kind):
        raise InputError(f"the key {place} holds {type(document[key]).__name__}, not {kind.__name__}")
    return document[key]


def _numbers(rows: Mapping[str, Any], name: str) -> range:
    if set(rows) != {str(i) for i in range(len(rows))}:
        missing = next(str(i) for i in range(len(rows) + 1) if str(i) not in rows)
        raise InputError(f"{name} has {len(rows)} rows, and none of number {missing}; was the log cut?")
    return range(len(rows))


def _number(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: the score is {type(value).__name__}, not a number")
    # single precision can say 1.0000001
    if not -AGREE <= value <= 1 + AGREE:
        raise InputError(f"{where}: the score {value:g} is outside [0, 1]; no loss can be made of it")
    return min(1.0, max(0.0, float(value)))


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Short names: the words that not all paths share, below the folder that all lie in, or the paths below it."""
    places = {path: path.resolve() for path in paths}
    # a file is named by its folder where every file has its own
    folders = {path: place.parent if path.is_file() else place for path, place in places.items()}
    if len(set(folders.values())) == len(paths):
        places = folders
    if len(paths) == 1:
        return {path: place.name for path, place in places.items()}
    top = Path(os.path.commonpath(places.values()))
    below = {path: place.relative_to(top) for path, place in places.items()}
    words = {path: [word for part in place.parts for word in part.split("_")] for path, place in below.items()}
    shared = set.intersection(*(set(some) for some in words.values()))
    short = {path: "_".join(dict.fromkeys(word for word in some if word not in shared)) for path, some in words.items()}
    told_apart = all(short.values()) and len(set(short.values())) == len(paths)
    return short if told_apart else {path: place.as_posix() for path, place in below.items()}


def _tail(path: Path, given: Sequence[Path]) -> str:
    """The path below the folder that was given; nothing of where that lies."""
    for folder in given:
        if folder.is_dir() and path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def _measure(log: Log, name: str, config: str) -> Scores:
    if name not in log:
        near = difflib.get_close_matches(name, log, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(log)}"
        raise InputError(f"{config} has no measure {name!r} with a value in [0, 1] per query; {hint}")
    return log[name]


def _start(rule: Rule, before: Log | None) -> Scores | None:
    if rule.kind != "base-":
        return None
    if before is None:
        raise InputError(f"base-{rule.measure} compares with the base model; give its log with --base")
    return _measure(before, rule.measure, BASE)


def _refuse_other_queries(some: Mapping[str, Scores], measure: str) -> None:
    (first, one), *others = some.items()
    for config, scores in others:
        if scores.query != one.query:
            raise InputError(
                f"{measure}: {config} has {len(scores.query)} queries and {first} has {len(one.query)}; compare models on the "
                "same ones, of the same split"
            )
        for query, mine, theirs in zip(one.query, one.asked, scores.asked, strict=True):
            if mine and theirs and mine != theirs:
                raise InputError(
                    f"{measure}: query {query} asks another question in {config} than in {first}; the rows do not match"
                )


def _notes(some: Mapping[str, Scores], measure: str) -> Iterator[str]:
    for config, scores in some.items():
        lost = scores.value.count(None)
        if lost:
            yield f"{config}: {lost} queries of {measure} have no score; each counts as a loss of 1"
        elif scores.reported is not None and abs(scores.reported - (_mean(scores) or 0.0)) > AGREE:
            yield f"{config}: the log reports {scores.reported:.6g} for {measure}, its rows have a mean of {_mean(scores):.6g}"


def _mean(scores: Scores) -> float | None:
    some = [v for v in scores.value if v is not None]
    return float(np.mean(some)) if some else None


def _rows(config: str, risk: str, rule: Rule, scores: Scores, base: Scores | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "config": [config] * len(scores.query),
            "risk": [risk] * len(scores.query),
            "metric": [f"{rule.kind}{rule.measure}"] * len(scores.query),
            "unit": scores.unit,
            "query": scores.query,
            "loss": pl.Series(quantise(rule.losses(scores, base)), dtype=pl.Int16),
        }
    )
