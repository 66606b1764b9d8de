"""The files of a bundle, each written one way and read one way.

Reading never follows a link, never reads more than a file may hold, and raises VerificationError with the name of the
failed check. Messages name a file and a line, never its content.
"""

import io
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from froc import hashing, timestamp
from froc.audit import plain_files
from froc.audit.canonical_json import MAX_DEPTH, compact, exact, strict_json
from froc.errors import InputError, VerificationError
from froc.loss_table import SCHEMA
from froc.risk.positive_control import BASE

MIB = 2**20
LIMITS = {
    "losses.csv": 256 * MIB,
    "plan.dsse.json": 4 * MIB,
    "plan.json": 4 * MIB,
    "report.dsse.json": 16 * MIB,
    "report.html": 4 * MIB,
    "seal.json": 4 * MIB,
    "trials.jsonl": 64 * MIB,
}
"""Every file of a bundle, and the largest number of bytes read of it."""
COMPARED = {"comparison.csv": 256 * MIB, "comparison.json": 4 * MIB}
"""Further files of a bundle that includes a comparison of methods."""
STAGES = "stages.json"
"""Further stages of a run that was continued with fresh queries."""
LATER = {"reexecution.dsse.json": 4 * MIB}
"""Files that may be added after the report was signed; each has its own signature."""
TOKEN_BYTES = 64 * 2**10
MOST_BYTES = 320 * MIB
"""Limit of a whole bundle, by file sizes before any is read; a file with several names counts each time."""
PLAN_TOKEN = "plan.tsr"
"""Time stamp of the plan's signature, made before the report: evidence like other files."""
MOST_FILES = len(LIMITS) + len(COMPARED) + len(LATER) + 2 + MAX_DEPTH
"""Upper limit on the number of files: one time stamp of the plan and one per signature, of which an envelope has at most MAX_DEPTH."""
_REPORT_TOKEN = re.compile(r"report-([0-9a-f]{64})\.tsr")
"""Time stamp of the report's signature by the named key, made after it."""
MEDIA = {
    ".csv": "text/csv", ".html": "text/html", ".json": "application/json", ".jsonl": "application/jsonl",
    ".tsr": "application/timestamp-reply",
}  # fmt: skip
PUBLIC = ("report.html",)
"""Files that anyone may see, beside the report itself; the others are for auditors."""
HEADER = "config,split,risk,unit,query,loss"
CONFIG = r"c[0-9]{4}[a-z0-9-]{0,32}"
RISK = r"[a-z][a-z0-9_-]{0,31}"
ENTRY = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,100}"
POINT = rf"base|{ENTRY}@[01]\.[0-9]{{4}}"
_PART = "[a-z0-9_]{1,64}"
METHOD = rf"{_PART}(\({_PART}(\({_PART}(\({_PART}\))?\))?\))?"
"""A wrapper has its inner method in brackets."""
WORD = r"[!-~]{1,200}"  # a hyperparameter's name, or its value where that is text: no sentence
REASON = r"[A-Za-z_][A-Za-z0-9_]*(Error|Exception)( at [A-Za-z0-9_.]+:[0-9]+)?"
MANY = 10**6
"""More trials, candidates, attempts or openings than any run has."""
Stamp = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")
Hex = Field(pattern=r"^[0-9a-f]{64}$")
Name = Field(pattern=rf"^{CONFIG}$")
Loss = Field(pattern=r"^[0-9]{1,3}\.[0-9]{1,8}$|^[1-9](\.[0-9]{1,3})?e-[0-9]{2}$")
Number = Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,20})?(e-[0-9]{1,3})?$")
Mean = Field(pattern=r"^0(\.[0-9]{1,20})?$|^1(\.0)?$|^[1-9](\.[0-9]{1,20})?e-[0-9]{1,3}$")
Share = Field(pattern=r"^0\.[0-9]{1,4}$|^1\.0$")


@dataclass(frozen=True)
class Csv:
    """A file of losses: its name, and the pattern of its configurations' names."""

    name: str
    config: str

    @cached_property
    def cells(self) -> dict[str, re.Pattern[str]]:
        """Check name -> pattern of a cell, in the order of columns."""
        return {
            "table-config": re.compile(self.config),
            "table-split": re.compile("calibration(?:-[1-9][0-9]{0,3})?|search"),
            "table-risk": re.compile(RISK),
            "table-unit-id": re.compile(r"[0-9a-f]{16,64}"),
            "table-example-id": re.compile(r"[0-9a-f]{16,64}"),
            "table-loss-format": re.compile(r"0|[1-9][0-9]{0,2}|1000"),
        }

    @cached_property
    def row(self) -> re.Pattern[str]:
        """Pattern of a whole line."""
        return re.compile(",".join(f"({cell.pattern})" for cell in self.cells.values()))


LOSSES = Csv("losses.csv", f"{BASE}|{CONFIG}")
"""Rows of the base model, where a plan requires them, show its own losses (`froc.risk.positive_control`)."""
COMPARED_LOSSES = Csv("comparison.csv", POINT)


class Strict(BaseModel):
    """Base of documents that are read from outside: exact types, and no unknown keys unless a subclass allows them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Average(Strict):
    """Mean loss and accuracy on one risk's search queries, as decimals: after unlearning, and of the base model."""

    loss: str = Loss
    accuracy: str = Share
    base_loss: str = Loss
    base_accuracy: str = Share


class Variant(Strict):
    """A configuration that a trial gave without further training: stopped at a step, mixed with the base model by `mix`."""

    config: str = Name
    stop: int = Field(ge=1, le=10**12)
    mix: str = Number
    search: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Annotated[str, Mean]]
    averages: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Average] | None = None


class Trial(Strict):
    """One line of a bundle's trials.jsonl: a started trial, without anything that could hold text."""

    trial: int = Field(ge=0, le=MANY)
    attempt: int = Field(ge=1, le=MANY)
    config: str = Name
    method: str = Field(pattern=rf"^{METHOD}$")
    params: dict[
        Annotated[str, Field(pattern=rf"^{WORD}$")], Annotated[str, Field(pattern=rf"^{WORD}$")] | int | bool | None
    ]
    seed: int | Annotated[str, Field(pattern=r"^-?[0-9]{1,40}$")]
    status: Literal["complete", "pruned", "diverged", "out-of-memory", "timed-out", "failed", "interrupted"]
    reason: str | None = Field(pattern=rf"^{REASON}$")
    started: str = Stamp
    ended: str | None = Stamp
    steps: int = Field(ge=0, le=10**12)
    seconds: str = Number
    search: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Annotated[str, Mean]] | None
    averages: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Average] | None = None
    variants: list[Variant] = Field(default_factory=list, max_length=64)
    plan: str = Hex

    @model_validator(mode="after")
    def _ended(self) -> Self:
        if self.ended is None and self.status != "interrupted":
            raise ValueError("only an attempt whose process ended before it has no end")
        return self

    @property
    def configs(self) -> list[str]:
        """Names of the trial's end and of its stops and mixes."""
        return [self.config, *(variant.config for variant in self.variants)]


def read_bundle(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle, each read once. VerificationError for unlisted, missing, linked or too large files."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, MOST_FILES + 1))
        size = sum((folder / name).lstat().st_size for name in names)
    except OSError as error:
        raise InputError(f"cannot list {folder} ({error.strerror}); verify as someone who may") from error
    if len(names) > MOST_FILES:
        raise VerificationError("bundle-too-many-files", f"the bundle holds more than {MOST_FILES} files")
    if size > MOST_BYTES:
        raise VerificationError("bundle-too-large", f"the bundle's files hold more than {MOST_BYTES} bytes together")
    wanted = LIMITS | (COMPARED if any(name in COMPARED for name in names) else {})
    wanted |= {name: limit for name, limit in (LATER | {STAGES: 4 * MIB}).items() if name in names}
    wanted |= {name: TOKEN_BYTES for name in names if name == PLAN_TOKEN or _REPORT_TOKEN.fullmatch(name)}
    for name in names:
        if name not in wanted:
            raise VerificationError("bundle-unlisted-file", "the bundle holds a file that no bundle has")
    for name in wanted:
        if name not in names:
            raise VerificationError("bundle-missing-file", f"{name} is missing")
    return {name: plain_files.read(folder / name, limit) for name, limit in wanted.items()}


def report_token(keyid: str) -> str:
    """Name of the file with the time stamp of a key's signature over the report."""
    return f"report-{keyid}.tsr"


def token_keyid(name: str) -> str | None:
    """Id of the key whose signature over the report a file stamps; None for the plan's time stamp."""
    match = _REPORT_TOKEN.fullmatch(name)
    return match and match[1]


def moment(stamp: str) -> datetime:
    """Aware time of a date in the form of `Stamp`; VerificationError for an impossible date."""
    try:
        return timestamp.moment(stamp)
    except ValueError as error:
        raise VerificationError("bad-timestamp", "a date is no RFC 3339 time in UTC") from error


def listing(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The evidence list of a report: name, digest, size, media type and audience of each file."""
    return [
        {
            "name": name,
            "digest": {"sha256": hashing.sha256_bytes(files[name])},
            "size": len(files[name]),
            "mediaType": MEDIA[Path(name).suffix],
            "tier": "public" if name in PUBLIC else "restricted",
        }
        for name in sorted(files)
        if name != "report.dsse.json" and name not in LATER and not _REPORT_TOKEN.fullmatch(name)
    ]


def write_losses(table: pl.DataFrame, configs: Iterable[str], csv: Csv = LOSSES) -> bytes:
    """The rows of these configurations as losses.csv: sorted, ASCII, LF, whole thousandths.

    table: a checked loss table; it has search rows only for risks about a listed population. VerificationError where a cell could not be read back.
    """
    rows = table.filter(pl.col("config").is_in(list(configs))).select(HEADER.split(",")).rows()
    rows.sort(key=lambda row: (row[0], row[1], row[2], row[4]))
    lines = [",".join(map(str, row)) for row in rows]
    for number, line in enumerate(lines, start=2):
        _cells(line, number, csv)
    return "".join(f"{line}\n" for line in (HEADER, *lines)).encode("ascii")


def read_losses(
    data: bytes, configs: Sequence[str], metrics: Mapping[str, str], *, ragged: bool = False, csv: Csv = LOSSES
) -> pl.DataFrame:
    """The loss table of a losses file, in froc's schema: every candidate, risk and query exactly once.

    metrics: risk -> metric name.
    ragged: candidates may be measured on different queries, since measuring stopped early; the seal is then checked for
        which.

    VerificationError names the line.
    """
    if data.partition(b"\n")[0] != HEADER.encode():
        raise VerificationError("table-header", f"{csv.name} does not begin with the columns {HEADER}")
    if not data.endswith(b"\n"):
        raise VerificationError("table-line-ending", f"{csv.name} does not end with a line feed")
    columns: dict[str, list[str]] = {name: [] for name in HEADER.split(",")}
    kept = tuple(columns.values())
    known: dict[str, str] = {}
    last: tuple[str, ...] = ()
    wanted = frozenset(configs)
    stream = io.BytesIO(data)
    stream.readline()
    for number, line in enumerate(stream, start=2):
        cells = _cells(line[:-1].decode("ascii", "replace"), number, csv)
        config, split, risk, _unit, query, _loss = cells
        if config not in wanted or risk not in metrics:
            raise VerificationError("table-unplanned-row", f"{csv.name} line {number}: not a sealed candidate or risk")
        key = (config, split, risk, query)
        if key <= last:
            check = "table-duplicate-row" if key == last else "table-order"
            raise VerificationError(check, f"{csv.name} line {number}: repeats or precedes the line before it")
        last = key
        # each name is stored once, so that memory stays that of the table
        for column, cell in zip(kept, cells, strict=True):
            column.append(known.setdefault(cell, cell))
    table = pl.DataFrame(
        {**columns, "metric": [metrics[risk] for risk in columns["risk"]], "loss": list(map(int, columns["loss"]))},
        schema_overrides=SCHEMA,
    ).select([pl.col(name).cast(kind) for name, kind in SCHEMA.items()])
    if not ragged:
        _refuse_gaps(table, configs, metrics)
    return table


def _cells(line: str, number: int, csv: Csv) -> tuple[str, ...]:
    match = csv.row.fullmatch(line)
    if match is not None:
        return match.groups()
    cells = line.split(",")
    if len(cells) == len(csv.cells):
        for (check, grammar), cell in zip(csv.cells.items(), cells, strict=True):
            if not grammar.fullmatch(cell):
                raise VerificationError(check, f"{csv.name} line {number}: a cell is not of the form {grammar.pattern}")
    raise VerificationError("table-columns", f"{csv.name} line {number}: not {len(csv.cells)} cells")


def _refuse_gaps(table: pl.DataFrame, configs: Sequence[str], metrics: Mapping[str, str]) -> None:
    rows = table.select("config", "risk", "query", "unit").unique(
        ["config", "risk", "query"], keep="last", maintain_order=True
    )
    parts = rows.sort("config", "risk", "query").partition_by("config", "risk", as_dict=True)
    for config in configs:
        for risk in metrics:
            queries, others = parts.get((config, risk)), parts.get((configs[0], risk))
            if queries is None or others is None or not queries["query"].equals(others["query"]):
                raise VerificationError(
                    "table-missing-row", f"{config} was not measured on the same {risk} queries as the others"
                )
            if not queries["unit"].equals(others["unit"]):
                raise VerificationError("table-unit-id", f"{config}: the same {risk} queries belong to other units")


def write_trials(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """trials.jsonl of a run without anything that could hold text."""
    kept = []
    for line in lines:
        reason = line.get("reason")
        row = {name: exact(line.get(name)) for name in Trial.model_fields}
        # a reason may quote a path or a row; an exception's type and position cannot
        row["reason"] = reason if isinstance(reason, str) and re.fullmatch(REASON, reason) else None
        row["status"] = "interrupted" if line.get("status") == "running" else line.get("status")
        row["seconds"] = repr(float(line.get("seconds") or 0))
        row["search"] = _means(line.get("search"))
        row["variants"] = [
            {name: exact(variant.get(name)) for name in Variant.model_fields} | {"search": _means(variant["search"])}
            for variant in line.get("variants") or ()
        ]
        kept.append(compact(row))
    return b"".join(kept)


def _means(search: Mapping[str, Any] | None) -> dict[str, str] | None:
    return {risk: repr(float(mean)) for risk, mean in search.items()} if search else None


def read_trials(data: bytes) -> tuple[Trial, ...]:
    """Every started trial. VerificationError names the line."""
    lines = data.split(b"\n")
    if lines[-1] != b"":
        raise VerificationError("trial-line-ending", "trials.jsonl does not end with a line feed")
    return tuple(_trial(line, number) for number, line in enumerate(lines[:-1], start=1))


def _trial(line: bytes, number: int) -> Trial:
    try:
        return Trial.model_validate(strict_json(line))
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else "shape"
        check = "trial-status" if field == "status" else "trial-shape"
        raise VerificationError(check, f"trials.jsonl line {number}: {field} is not as it must be") from error
