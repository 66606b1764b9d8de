"""Scores of a log, and the rules that turn them into losses. All raw numbers pass through here.

Raw scores are checked before anything is computed from them. A score that is no finite number (null, NaN, an infinity) is
missing: it is never sorted, ranked, averaged or clipped, and gives a loss of 1 under every rule.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from froc import hashing
from froc.errors import InputError

MEAN_TOLERANCE = 1e-6
"""How far a reported mean may be from the mean of its rows; logs keep single precision."""
AUTHOR_ROWS = 20
"""Rows about one author in TOFU's forget and retain sets, in order."""
MEASURE = re.compile(r"(1-|base-)?(.+)")
Columns = Callable[[Any], Sequence[Any]]
"""Row -> the raw scores that its value is made of; a list among them stands for its mean."""


@dataclass(frozen=True)
class Scores:
    """One measure of a log. query, unit: ids. value: in [0, 1], None for a query that could not be measured.

    query_digests: digest of what was asked, or "" where the log does not say it. reported: the tool's own mean of `value`, over the
    queries that have one. lacking: share of a query's repetitions that have no score; 1 where value is None. note: what a
    reader should know. Raises InputError for a value that is no number in [0, 1].
    """

    query: tuple[str, ...]
    unit: tuple[str, ...]
    value: tuple[float | None, ...]
    query_digests: tuple[str, ...]
    reported: float | None = None
    lacking: tuple[float, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if any(value is not None and not 0.0 <= value <= 1.0 for value in self.value):
            raise InputError("a format gave a score that is no number in [0, 1]; pass raw scores through `score`")
        shares = self.lacking or (0.0,) * len(self.value)
        missing = tuple(1.0 if v is None else share for v, share in zip(self.value, shares, strict=True))
        object.__setattr__(self, "lacking", missing)

    @property
    def mean(self) -> float | None:
        """Mean over the queries that have a score."""
        values = [value for value in self.value if value is not None]
        return float(np.mean(values)) if values else None

    @property
    def missing(self) -> int:
        """Queries that lack a score, wholly or in part."""
        return sum(share > 0 for share in self.lacking)

    @property
    def strays(self) -> bool:
        """Whether the log reports another mean than its rows have."""
        return self.reported is not None and self.mean is not None and abs(self.reported - self.mean) > MEAN_TOLERANCE


@dataclass(frozen=True)
class Unfit:
    """A measure that no loss can be made of, and why."""

    reason: str


Log = Mapping[str, Scores | Unfit]


@dataclass(frozen=True)
class Rule:
    """How a risk's losses follow from a measure."""

    kind: Literal["", "1-", "base-"]
    measure: str

    @classmethod
    def of(cls, text: str) -> "Rule":
        """`NAME`, `1-NAME` or `base-NAME`."""
        match = MEASURE.fullmatch(text.strip())
        if match is None:
            raise InputError("a loss needs a measure; write RISK=NAME, RISK=1-NAME or RISK=base-NAME")
        kind: Any = match[1] or ""
        return cls(kind, match[2])

    def losses(self, scores: Scores, base: Scores | None) -> NDArray[np.float64]:
        """(n,) losses in [0, 1]; 1 for what could not be measured. base: the same queries in the same order."""
        value, lacking = _filled(scores)
        if self.kind == "":
            return lacking + (1.0 - lacking) * value
        if self.kind == "1-":
            return lacking + (1.0 - lacking) * (1.0 - value)
        assert base is not None
        before, unknown = _filled(base)
        lacking = np.minimum(1.0, lacking + unknown)
        return lacking + (1.0 - lacking) * np.maximum(0.0, before - value)


def _filled(scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) values, 0 where there is none, and (n,) lacking shares, which are 1 there."""
    return np.array([0.0 if v is None else v for v in scores.value]), np.array(scores.lacking)


def fit(make: Callable[[], Scores]) -> Scores | Unfit:
    """A measure, or why no loss can be made of it: a measure that no rule asks for blocks nothing."""
    try:
        return make()
    except InputError as error:
        return Unfit(str(error))


def finite(raw: Any, where: str) -> float | None:
    """The number that a log holds, None where it holds none: the gate. A list stands for its mean, and is whole or nothing.

    Raises InputError for text and other things that are no number.
    """
    if raw is None:
        return None
    if isinstance(raw, list):
        parts = [finite(part, where) for part in raw]
        return None if not parts or None in parts else float(np.mean(np.array(parts, dtype=np.float64)))
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise InputError(f"{where}: the score is {type(raw).__name__}, not a number; was the log edited?")
    try:
        number = float(raw)
    except OverflowError as error:
        raise _outside(where, "") from error
    return number if math.isfinite(number) else None


def score(raws: Sequence[Any], where: str, turn: Callable[..., float] = float) -> float | None:
    """Raw scores of a row -> its value in [0, 1], None where any of them is missing. turn: finite numbers -> the value."""
    numbers = [finite(raw, where) for raw in raws]
    if None in numbers:
        return None
    try:
        value = turn(*numbers)
    except OverflowError as error:
        raise _outside(where, "") from error
    # single precision can say 1.0000001
    if not -MEAN_TOLERANCE <= value <= 1 + MEAN_TOLERANCE:
        raise _outside(where, f" {value:g}")
    return min(1.0, max(0.0, value))


def _outside(where: str, value: str) -> InputError:
    return InputError(f"{where}: the score{value} is outside [0, 1]; no loss can be made of it, take another measure")


def scores_of(
    rows: Mapping[str, Any],
    columns: Columns,
    turn: Callable[..., float] = float,
    *,
    name: str,
    prefix: str,
    block: int = 1,
    reference: Any = None,
    reported: Any = None,
    note: str = "",
) -> Scores:
    """Scores of rows under their numbers. rows: "0", "1", ... -> row; columns and turn: as in `score`.

    block: rows that are about one unit. reference(row) -> the text that tells queries apart (such as the true answer), where the log holds one.
    Raises InputError where rows are missing, or a value is no number in [0, 1].
    """
    numbers = _numbers(rows, name)
    reference_texts = [reference(rows[str(i)]) if reference else None for i in numbers]
    return Scores(
        query=tuple(f"{prefix}-{i}" for i in numbers),
        unit=tuple(f"{prefix}-{i // block}" if block == 1 else f"{prefix}-unit-{i // block}" for i in numbers),
        value=tuple(score(columns(rows[str(i)]), f"{name}, row {i}", turn) for i in numbers),
        query_digests=tuple(
            "" if text is None else hashing.sha256_bytes(str(text).encode()) for text in reference_texts
        ),
        reported=mean_reported(reported),
        note=note,
    )


def mean_reported(raw: Any) -> float | None:
    """The mean that a log reports, None where it reports none."""
    return None if isinstance(raw, list | str | bool | dict) else finite(raw, "the reported mean")


def need(document: Any, key: str, kind: type, where: str = "") -> Any:
    """document[key], of a kind; InputError naming the key."""
    place = f"{where}.{key}" if where else key
    if not isinstance(document, dict) or key not in document:
        raise InputError(f"the key {place} is missing; is the file whole, and of this format?")
    if not isinstance(document[key], kind):
        raise InputError(f"the key {place} holds {type(document[key]).__name__}, not {kind.__name__}; was it edited?")
    return document[key]


def _numbers(rows: Mapping[str, Any], name: str) -> range:
    if set(rows) != {str(i) for i in range(len(rows))}:
        missing = next(str(i) for i in range(len(rows) + 1) if str(i) not in rows)
        raise InputError(f"{name} has {len(rows)} rows, and none of number {missing}; was the log cut?")
    return range(len(rows))


def forget_ratio(ratio: float) -> float:
    """TOFU's truth ratio on forget rows, min(s, 1/s), for s = p(wrong) / p(correct); 0 stays 0."""
    return min(ratio, 1 / ratio) if ratio else ratio


def retain_ratio(ratio: float) -> float:
    """TOFU's truth ratio on other rows, max(0, 1 - s)."""
    return max(0.0, 1.0 - ratio)
