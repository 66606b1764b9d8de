"""Rows that are measured and not trained on, where a benchmark publishes no questions of its own for that."""

from collections.abc import Callable, Sequence

from froc import hashing
from froc.data.rows import Row
from froc.errors import InputError

Rows = tuple[Row, ...]
MEASURED_FORGET, MEASURED_RETAIN = 0.5, 0.25
"""Shares of what is to be forgotten and of what is to be kept that are measured and not trained on; ours, for all these benchmarks."""


def row_itself(row: Row) -> tuple[str, ...]:
    """Question and answer: rows are withheld one by one."""
    return row.key


def group_of(row: Row) -> tuple[str, ...]:
    """The group: all rows about a person or document are withheld together."""
    return (row.group,)


def withhold(
    rows: Sequence[Row], fraction: float, name: str, unit: Callable[[Row], tuple[str, ...]] = row_itself
) -> tuple[Rows, Rows]:
    """(rows to train on, rows to measure), divided by a hash of each row's unit, so that everybody withholds the same.

    fraction: of the units that are measured, in (0, 1); at least one is, and at least one is left.
    name: what the rows are, for the error.
    unit: rows of one unit stay together.

    Raises InputError for rows of a single unit.
    """
    units = sorted({unit(row) for row in rows}, key=lambda parts: hashing.hmac_sha256(b"froc withhold", *parts))
    if len(units) < 2:
        raise InputError(f"{name}: {len(units)} is too few to train on some and to measure others; give whole files")
    measured = set(units[: min(max(1, round(fraction * len(units))), len(units) - 1)])
    return tuple(row for row in rows if unit(row) not in measured), tuple(row for row in rows if unit(row) in measured)


def note(forget_queries: Sequence[Row], retain_queries: Sequence[Row]) -> str:
    """How many rows are withheld, for a task's notes."""
    return (
        f"{len(forget_queries)} forget rows and {len(retain_queries)} retain rows are not trained on: they are measured"
    )
