"""Alarms, with a known false-alarm probability, where a deployed model exceeds its certified budgets. Torch-free.

    monitor("losses.csv", certificate="froc-run", state="monitor.json")

Per risk, the e-process of `froc.monitoring.e_process` against H: the mean of each next loss, given those before, is at most the
budget. The alarm is raised, permanently, when it reaches K / level (K risks share the level), so that the probability of any
false alarm is at most `level` over the whole stream, however often it is checked.

MAPIE's `RiskMonitoring` (1.6) takes only 0-1 losses, recomputes its bound from the first loss on at every update in a
Python loop, keeps no state between calls, and compares only the latest bound; `benchmarks/monitoring.py` compares it.

Rows are in order of arrival. The state holds digests of the risk and query of counted rows, which are skipped, so that
repeated calls and growing logs count nothing twice.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from narwhals.typing import IntoFrame
from numpy.typing import NDArray
from pydantic import ValidationError

from froc import hashing
from froc.atomic import lock, write_text
from froc.errors import InputError
from froc.formats.table import Table as Format
from froc.loss_table import SCALE, WEIGHTED, check, dataframe
from froc.monitoring import figure
from froc.monitoring.e_process import BETS, CapitalState, follow, initial_capital
from froc.monitoring.state import (
    ALARM_MARGIN,
    DEFAULT_LEVEL,
    DIGEST_BYTES,
    MAX_COURSE_POINTS,
    Course,
    RowDigests,
    State,
    StreamStatus,
)
from froc.reporting.tables import Printed, Table
from froc.risk.weighted_sum import COMBINED


class MonitoredStream(StreamStatus, Printed):
    """The status of a stream; prints as a table, also in notebooks."""

    def tables(self) -> list[Table]:
        """One row per risk."""
        title = f"{self.state.config} in use: alarm level {self.state.level:g} over the whole stream"
        columns = ("risk", "losses", "mean", "at least", "budget", "e-value", "largest", "alarm from", "")
        return [Table(title, columns, tuple(self._row(risk, course) for risk, course in self.state.risks.items()))]

    def sentences(self) -> Sequence[str]:
        """What the numbers mean."""
        return self.summary

    def to_polars(self) -> pl.DataFrame:
        """risk, losses, mean, at_least, budget, log_e (the e-value's logarithm), log_e_largest, alarm: a row per risk."""
        rows = [
            (risk, course.n, course.mean, self.at_least(risk), course.budget, course.e, course.largest, course.alarm)
            for risk, course in self.state.risks.items()
        ]
        columns = ("mean", "at_least", "budget", "log_e", "log_e_largest")
        schema = {"risk": pl.String, "losses": pl.Int64, **dict.fromkeys(columns, pl.Float64), "alarm": pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def __repr__(self) -> str:
        alarms = f"alarm: {', '.join(self.alarms)}" if self.alarms else "no alarm"
        return f"MonitoredStream({self.state.config!r}, {alarms})"

    def plot(self) -> Any:
        """A matplotlib figure: e-values against the threshold, means against the budgets."""
        return figure.drawn(self)

    def save(self, path: Path) -> None:
        """Write the figure as PNG."""
        figure.save(self, path)

    def _row(self, risk: str, course: Course) -> tuple[str, ...]:
        low, mean = self.at_least(risk), course.mean
        shown = ("", "") if mean is None or low is None else (f"{mean:.4f}", f"{low:.4f}")
        alarm = "" if course.alarm is None else str(course.alarm)
        note = "ALARM" if alarm else ""
        return (
            risk,
            str(course.n),
            *shown,
            f"{course.budget:g}",
            _e_value(course.e),
            _e_value(course.largest),
            f"{self.threshold:g}",
            note,
        )


def _e_value(log: float) -> str:
    """An e-value from its logarithm, even where it is too large for a float."""
    return f"{np.exp(log):.3g}" if log < 700 else f"1e{log / np.log(10):.0f}"


def monitor(
    table: IntoFrame | Path | str,
    *,
    certificate: Mapping[str, Any] | Path | str,
    state: Path | str | None = None,
    alarm: float = DEFAULT_LEVEL,
    risk: Sequence[str] | None = None,
    config: str | None = None,
    scale: str | None = None,
) -> MonitoredStream:
    """Count the rows of a loss table, in their order, and return the status of the stream.

    table: losses of the deployed configuration in order of arrival, as a loss table or its file.
    certificate: its document, certificate.json, a run folder, or the output of `froc certify --json`.
    state: file kept between calls, created if missing.
    alarm: probability of any false alarm, shared by the monitored risks.
    risk: the monitored risks, by default all with a budget.
    config: the deployed configuration, by default the chosen one.
    scale: "thousandths" for whole numbers 0..1000.

    Where the certificate's unit is the group, a loss is the mean over a group, whose rows must come in one call.
    InputError for a state of another certificate, configuration, alarm or choice of risks, and for rows that cannot be
    counted.

    >>> from froc import certify
    >>> queries = [f"q{i}" for i in range(200)]
    >>> table = pl.DataFrame({"config": "c0001", "risk": "forgetting", "query": queries, "loss": 198 * [0.0] + 2 * [1.0]})
    >>> certificate = certify(table, budget=0.1, named_beforehand=True)
    >>> later = table.with_columns(query="later " + pl.col("query"), loss=1.0)
    >>> monitor(table, certificate=certificate.document)
    MonitoredStream('c0001', no alarm)
    >>> monitor(later, certificate=certificate.document).alarms
    ('forgetting',)
    """
    document = _document(certificate)
    fresh = _fresh(document, alarm, risk, config)
    frame = dataframe(table)
    losses = check(frame, scale) if frame is not None else Format(scale).read([Path(str(table))], {}).losses
    if state is None:
        return _count(losses, fresh)
    with _locked(Path(state)):
        made = _count(losses, _read(Path(state), fresh))
        write_text(Path(state), made.state.sealed().model_dump_json(indent=1) + "\n")
    return made


def _count(table: pl.DataFrame, state: State) -> MonitoredStream:
    rows = table.filter(pl.col("config") == state.config)
    if rows.is_empty():
        raise InputError(f"the table has no rows of {state.config}, the configuration in use; --config names another")
    if (rows["split"] == "search").any():
        raise InputError("rows of split 'search' were looked at by the search; give losses of the model in use")
    rows = rows.filter(pl.col("risk").is_in(list(state.risks)))
    known = np.frombuffer(base64.b64decode(state.seen), dtype=np.uint64)
    ids = _ids(rows, "query")
    is_new = ~np.isin(ids, known)
    fresh, added = rows.filter(pl.Series(is_new)), [ids[is_new]]
    courses = {}
    for risk, state_of_risk in state.risks.items():
        losses_of_risk = fresh.filter(pl.col("risk") == risk)
        if state_of_risk.unit == "group":
            groups = _ids(losses_of_risk, "unit")
            if np.isin(groups, known).any():
                raise InputError(
                    f"{risk}: a group that was counted before has more rows; the rows of a group come in one call"
                )
            added.append(np.unique(groups))
            means = losses_of_risk.group_by("unit", maintain_order=True).agg(
                pl.col("loss").cast(pl.Int64).sum(), pl.len()
            )
            arrived = -(-means["loss"].to_numpy() // means["len"].to_numpy().astype(np.int64))
        else:
            arrived = losses_of_risk["loss"].to_numpy()
        courses[risk] = _follow(state_of_risk, arrived.astype(np.int16), len(state.risks) / state.level)
    seen = base64.b64encode(np.concatenate([known, *added]).tobytes()).decode()
    return MonitoredStream(
        state.model_copy(update={"risks": courses, "seen": seen}), int(is_new.sum()), int((~is_new).sum())
    )


def _follow(course: Course, losses: NDArray[np.int16], threshold: float) -> Course:
    """The course of a risk after further losses."""
    if not len(losses):
        return course
    logs = np.array([[-np.inf if log is None else log for log in course.logs]])
    path, end = follow(losses[None, :], course.budget, CapitalState(course.n, logs) if course.n else initial_capital())
    e, n = path[0], course.n + np.arange(1, len(losses) + 1)
    passed = np.flatnonzero(e >= np.log(threshold) + ALARM_MARGIN)
    counts = np.bincount(losses, minlength=SCALE + 1)
    for loss, count in course.counts.items():
        counts[int(loss)] += count
    before = sum(int(loss) * count for loss, count in course.counts.items())
    means = (before + losses.astype(np.int64).cumsum()) / (SCALE * n)
    stride = course.stride
    while end.count // stride > MAX_COURSE_POINTS:
        stride *= 2
    points = [point for point in course.course if point[0] % stride == 0]
    points += [(int(n[i]), round(float(means[i]), 4), round(float(e[i]), 3)) for i in np.flatnonzero(n % stride == 0)]
    return course.model_copy(update={
        "n": end.count, "counts": {str(loss): int(counts[loss]) for loss in np.flatnonzero(counts)},
        "logs": [float(log) for log in end.logs[0]], "e": float(e[-1]), "largest": max(course.largest, float(e.max())),
        "alarm": course.alarm if course.alarm is not None else (int(n[passed[0]]) if len(passed) else None),
        "stride": stride, "course": points,
    })  # fmt: skip


def _ids(rows: pl.DataFrame, column: str) -> RowDigests:
    """(n,) digests of (risk, query) or (risk, unit)."""
    pairs = zip(rows["risk"].to_list(), rows[column].to_list(), strict=True)
    whole = b"".join(bytes.fromhex(hashing.sha256_json([column, *pair]))[:DIGEST_BYTES] for pair in pairs)
    return np.frombuffer(whole, dtype=np.uint64)


def _document(certificate: Mapping[str, Any] | Path | str) -> Mapping[str, Any]:
    if isinstance(certificate, Mapping):
        return certificate
    path = Path(certificate)
    path = path / "certificate.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there; give certificate.json, a run folder, or what froc certify --json printed"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is no JSON document; give certificate.json or what froc certify --json printed"
        ) from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is no certificate; give certificate.json or what froc certify --json printed")
    return document


def _fresh(document: Mapping[str, Any], level: float, risks: Sequence[str] | None, config: str | None) -> State:
    """The state of a stream before its first loss."""
    try:
        budget, unit = dict(document["budget"]), dict(document["unit"])
        if WEIGHTED in unit.values():
            raise InputError(
                f"a stream is followed by means of queries or of groups, not yet by {WEIGHTED}; certify these"
            )
        certified, chosen = list(document["certified"]), document["chosen"]
        known = {name: Course(budget=float(budget[name]), unit=unit[name]) for name in budget if name != COMBINED}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "the certificate lacks its budget, unit, certified or chosen; give certificate.json as froc wrote it"
        ) from error
    if not 0 < level < 1:
        raise InputError(f"alarm level {level:g} is outside (0, 1); the chance of any false alarm, such as 0.05")
    if not certified:
        raise InputError(
            "the certificate certifies nothing, so that there is no budget that a model in use was said to keep"
        )
    used = config or chosen
    if used not in certified:
        raise InputError(f"{used} is not certified; there are: {', '.join(certified)}")
    for name in risks or ():
        if name not in known:
            raise InputError(f"the certificate has no budget for a risk {name!r}; there are: {', '.join(known)}")
    named = {name: known[name] for name in (dict.fromkeys(risks) if risks else known)}
    if not named:
        raise InputError("the certificate has a budget for the combined risk alone, which is no mean of single losses")
    return State(certificate=hashing.sha256_json(dict(document)), config=str(used), level=level, risks=named)


def _read(path: Path, fresh: State) -> State:
    """The stored state, checked against this call's settings; a fresh one where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return fresh
    except OSError as error:
        raise InputError(f"cannot read the state {path} ({error.strerror})") from error
    try:
        stored = State.model_validate_json(text)
        _refuse_damage(stored)
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path} is no state of froc monitor, or damaged; a new file starts a new stream") from error
    for name in ("certificate", "config", "level"):
        if getattr(stored, name) != getattr(fresh, name):
            raise InputError(f"{path} belongs to another {name}; give a state file of its own to each stream")
    if {risk: (course.budget, course.unit) for risk, course in stored.risks.items()} != {
        risk: (course.budget, course.unit) for risk, course in fresh.risks.items()
    }:
        raise InputError(
            f"{path} watches other risks ({', '.join(stored.risks)}); the risks share the level from the first call on"
        )
    return stored


def _refuse_damage(state: State) -> None:
    """ValueError where numbers of a state contradict each other or its digest."""
    if state.digest and state.digest != state.content:
        raise ValueError("another digest")
    if len(base64.b64decode(state.seen, validate=True)) % DIGEST_BYTES:
        raise ValueError("torn digests")
    for course in state.risks.values():
        places = all(0 <= int(loss) <= SCALE and count > 0 for loss, count in course.counts.items())
        empty = all(log is None for log in course.logs)
        if (
            not places
            or sum(course.counts.values()) != course.n
            or len(course.logs) != len(BETS)
            or empty != (course.n == 0)
        ):
            raise ValueError("counts do not sum up")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a state file, as rows of a concurrent call would be lost."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path.with_name(f".{path.name}.lock"), wait=False)
    except BlockingIOError as error:
        raise InputError(f"{path} is in use by another froc monitor; wait for it") from error
    except OSError as error:
        raise InputError(f"cannot write the state {path} ({error.strerror}); choose another --state") from error
    with held:
        yield
