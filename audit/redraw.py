"""Which rows of losses.csv a seed draws to be measured again, and what their differences imply.

Rows are drawn from every group, the losses of one configuration under one risk: a false claim changes one group only,
which a draw from all rows together would often miss. Under a risk that is a mean over units of several queries, whole units are
drawn and counted instead of rows. Bounds hold for all groups together (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from froc import hashing
from froc.audit.bundle_files import HEADER
from froc.audit.canonical_json import exact
from froc.bounds.binomial import upper_from_count
from froc.errors import InputError
from froc.risk.rounding import up

CONFIDENCE = 0.95
MOST = 100_000
"""Lines that a statement lists at most."""
KEY = ["config", "split", "risk", "query"]
"""Columns that identify a row."""
Group = tuple[str, str]
"""Configuration and risk."""
Counts = Mapping[Group, tuple[int, int]]
"""Group -> number of its drawn rows that differed, and the largest difference in thousandths."""


@dataclass(frozen=True)
class Scope:
    """The rows to draw from.

    configs: only theirs; None for every configuration's.
    by_unit: risks whose estimand is the mean over units, such as groups of queries: units are drawn, with all their rows.
    """

    configs: tuple[str, ...] | None = None
    by_unit: frozenset[str] = frozenset()


EVERYTHING = Scope()


def draw(losses: bytes, seed: int, rows: int, scope: Scope = EVERYTHING) -> list[int]:
    """Line numbers (the first row is line 2) of losses.csv drawn by a seed, sorted: `rows` rows or units per group, all if fewer.

    A group's rows or units are ordered by an HMAC of what they are about, without their losses.
    """
    return sorted(line for items in _drawn(losses, seed, rows, scope).values() for lines in items for line in lines)


def draw_together(losses: bytes, seed: int, rows: int, config: str | None = None) -> list[int]:
    """Line numbers drawn from all rows together, as in older statements."""
    key = str(seed).encode()
    keyed = []
    for number, line in enumerate(losses.decode("ascii").split("\n")[1:-1], start=2):
        cells = line.split(",")
        if config is None or cells[0] == config:
            keyed.append((hashing.hmac_sha256(key, *cells[:-1]), number))
    return sorted(number for _, number in sorted(keyed)[:rows])


def _groups(losses: bytes, scope: Scope) -> dict[Group, dict[tuple[str, ...], list[int]]]:
    """Group -> what a row or unit is about -> line numbers, in the order of the file."""
    groups: dict[Group, dict[tuple[str, ...], list[int]]] = {}
    for number, line in enumerate(losses.decode("ascii").split("\n")[1:-1], start=2):
        config, split, risk, unit, query, _ = line.split(",")
        if scope.configs is None or config in scope.configs:
            item = (config, split, risk, unit) if risk in scope.by_unit else (config, split, risk, unit, query)
            groups.setdefault((config, risk), {}).setdefault(item, []).append(number)
    return groups


def _drawn(losses: bytes, seed: int, rows: int, scope: Scope) -> dict[Group, list[list[int]]]:
    key = str(seed).encode()
    return {
        group: [lines for _, lines in sorted((hashing.hmac_sha256(key, *item), lines) for item, lines in items.items())[:rows]]
        for group, items in _groups(losses, scope).items()
    }  # fmt: skip


def pool(losses: bytes, config: str | None) -> int:
    """Number of rows to draw from."""
    rows = losses.decode("ascii").split("\n")[1:-1]
    return sum(config is None or row.startswith(f"{config},") for row in rows)


def table(losses: bytes, lines: Sequence[int]) -> pl.DataFrame:
    """The drawn rows: config, split, risk, unit, query and the signed loss."""
    text = losses.decode("ascii").split("\n")
    names = HEADER.split(",")
    rows = [text[line - 1].split(",") for line in lines]
    frame = pl.DataFrame({name: [row[i] for row in rows] for i, name in enumerate(names)}, schema=names)
    return frame.select(*KEY, "unit", pl.col("loss").cast(pl.Int64).alias("signed"))


def compare(
    drawn: pl.DataFrame, measured: pl.DataFrame, scope: Scope = EVERYTHING, within: int = 0
) -> Counts:  # fmt: skip
    """Per group, the number of drawn rows or units that differ and the largest difference in thousandths.

    within: thousandths up to which losses count as the same.

    A row that cannot be measured differs by 1000; a unit differs where one of its rows does.
    """
    apart = (pl.col("signed") - pl.col("loss").cast(pl.Int64)).abs().fill_null(1000)
    apart = pl.when(apart > within).then(apart).otherwise(0)
    item = pl.when(pl.col("risk").is_in(list(scope.by_unit))).then(pl.lit("")).otherwise(pl.col("query")).alias("item")
    joined = drawn.join(measured.select(*KEY, "loss"), on=KEY, how="left").with_columns(item, apart=apart)
    items = joined.group_by("config", "risk", "split", "unit", "item").agg(pl.col("apart").max())
    counted = items.group_by("config", "risk").agg((pl.col("apart") > 0).sum().alias("differed"), pl.col("apart").max())
    return {
        (row["config"], row["risk"]): (int(row["differed"]), int(row["apart"])) for row in counted.iter_rows(named=True)
    }


def bound(differed: int, rows: int, of: int, confidence: float = CONFIDENCE) -> str:
    """Largest share of `of` rows that may differ: exact binomial (Clopper and Pearson), rounded up; exact where all were drawn.

    >>> bound(0, 299, 10_000), bound(3, 100, 100)
    ('0.00997', '0.03')
    """
    if rows == of:
        return str(exact(up(differed / of, exact=True)))
    return str(exact(up(float(upper_from_count(np.array([differed]), rows, 1 - confidence)[0]))))


def counted(losses: bytes, seed: int, rows: int, scope: Scope, counts: Counts) -> dict[str, Any]:
    """A statement's entries about the draw: rows per group, lines, and counts and bounds of each group and of all together.

    counts: see `compare`; groups without an entry did not differ.

    The bounds hold together with probability `CONFIDENCE`.
    """
    groups, drawn = _groups(losses, scope), _drawn(losses, seed, rows, scope)
    sampled = sum(len(drawn[group]) < len(items) for group, items in groups.items())
    confidence = 1 - (1 - CONFIDENCE) / max(1, sampled)
    entries: list[dict[str, Any]] = []
    for group, items in sorted(groups.items()):
        differed, largest = counts.get(group, (0, 0))
        entries.append(
            {
                "config": group[0], "risk": group[1], "rows": len(drawn[group]), "of": len(items), "differed": differed,
                "largest": largest, "bound": bound(differed, len(drawn[group]), len(items), confidence),
            }
        )  # fmt: skip
    return {
        "each": rows, "rows": sum(entry["rows"] for entry in entries), "of": sum(entry["of"] for entry in entries),
        "lines": sorted(line for group in drawn.values() for lines in group for line in lines),
        "differed": sum(entry["differed"] for entry in entries),
        "largest": max((entry["largest"] for entry in entries), default=0),
        "bound": max((entry["bound"] for entry in entries), key=float, default="0.0"), "groups": entries,
    }  # fmt: skip


def counted_together(
    losses: bytes, seed: int, rows: int, config: str | None, differed: int, largest: int
) -> dict[str, Any]:
    """The same for a draw from all rows together, as in older statements."""
    lines, of = draw_together(losses, seed, rows, config), pool(losses, config)
    return {
        "rows": len(lines), "of": of, "lines": lines, "differed": differed, "largest": largest,
        "bound": bound(differed, len(lines), of),
    }  # fmt: skip


def refuse_lines(lines: int, rows: int) -> None:
    """InputError for more lines than a statement lists."""
    if lines > MOST:
        raise InputError(
            f"--rows {rows} draws {lines} losses of all configurations and risks, and a statement lists {MOST}; give fewer"
        )


def refuse_rows(rows: int) -> None:
    """InputError for a number of rows that cannot be drawn."""
    if not 1 <= rows <= MOST:
        raise InputError(f"--rows {rows} is outside 1 .. {MOST}; 299 of each configuration and risk are the default")
