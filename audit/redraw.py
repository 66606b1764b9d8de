"""Which rows of losses.csv a seed draws to be measured again, and what follows from how many of them differed.

Rows are drawn from every group, the losses of one configuration under one risk: a false claim takes the losses of one group alone,
which a draw from all rows together would often miss. Bounds hold for all groups together (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from froc import hashing
from froc.audit.bundle_files import HEADER
from froc.audit.canonical_json import exact
from froc.bounds.binomial import upper_from_count
from froc.risk.rounding import up

CONFIDENCE = 0.95
KEY = ["config", "split", "risk", "query"]
"""What names a row."""
Group = tuple[str, str]
"""Configuration and risk."""
Counts = Mapping[Group, tuple[int, int]]
"""Group -> how many of its drawn rows differed, and by how many thousandths at most."""


def draw(losses: bytes, seed: int, rows: int, config: str | None = None) -> list[int]:
    """Line numbers (the first row is line 2) of losses.csv that a seed draws, sorted: `rows` of each group, all where there are fewer.

    config: draw from its groups alone. The lines of a group are ordered by an HMAC of what they are about, their losses left out.
    """
    return sorted(line for lines in _drawn(losses, seed, rows, config).values() for line in lines)


def draw_together(losses: bytes, seed: int, rows: int, config: str | None = None) -> list[int]:
    """The same from all rows together, as statements of older versions drew them."""
    key = str(seed).encode()
    keyed = []
    for number, line in enumerate(losses.decode("ascii").split("\n")[1:-1], start=2):
        cells = line.split(",")
        if config is None or cells[0] == config:
            keyed.append((hashing.hmac_sha256(key, *cells[:-1]), number))
    return sorted(number for _, number in sorted(keyed)[:rows])


def _groups(losses: bytes, config: str | None) -> dict[Group, list[tuple[int, list[str]]]]:
    """Group -> (line number, cells) of its rows, in the order of the file."""
    config_place, risk_place = (HEADER.split(",").index(name) for name in ("config", "risk"))
    groups: dict[Group, list[tuple[int, list[str]]]] = {}
    for number, line in enumerate(losses.decode("ascii").split("\n")[1:-1], start=2):
        cells = line.split(",")
        if config is None or cells[config_place] == config:
            groups.setdefault((cells[config_place], cells[risk_place]), []).append((number, cells))
    return groups


def _drawn(losses: bytes, seed: int, rows: int, config: str | None) -> dict[Group, list[int]]:
    key = str(seed).encode()
    return {
        group: [number for _, number in sorted((hashing.hmac_sha256(key, *cells[:-1]), number) for number, cells in lines)[:rows]]
        for group, lines in _groups(losses, config).items()
    }  # fmt: skip


def pool(losses: bytes, config: str | None) -> int:
    """How many rows there are to draw from."""
    rows = losses.decode("ascii").split("\n")[1:-1]
    return sum(config is None or row.startswith(f"{config},") for row in rows)


def table(losses: bytes, lines: Sequence[int]) -> pl.DataFrame:
    """The drawn rows: config, split, risk, query and the loss that was signed."""
    text = losses.decode("ascii").split("\n")
    names = HEADER.split(",")
    rows = [text[line - 1].split(",") for line in lines]
    frame = pl.DataFrame({name: [row[i] for row in rows] for i, name in enumerate(names)}, schema=names)
    return frame.select(*KEY, pl.col("loss").cast(pl.Int64).alias("signed"))


def compare(drawn: pl.DataFrame, measured: pl.DataFrame) -> Counts:
    """Per group, how many drawn rows differ and by how many thousandths at most; a row that could not be measured again differs by 1000."""
    apart = (pl.col("signed") - pl.col("loss").cast(pl.Int64)).abs().fill_null(1000)
    joined = drawn.join(measured, on=KEY, how="left").with_columns(apart=apart)
    counted = joined.group_by("config", "risk").agg(
        (pl.col("apart") > 0).sum().alias("differed"), pl.col("apart").max()
    )
    return {
        (row["config"], row["risk"]): (int(row["differed"]), int(row["apart"])) for row in counted.iter_rows(named=True)
    }


def bound(differed: int, rows: int, of: int, confidence: float = CONFIDENCE) -> str:
    """Largest share of `of` rows that may differ: exact binomial (Clopper and Pearson), rounded up; exact where all were drawn."""
    if rows == of:
        return str(exact(up(differed / of, exact=True)))
    return str(exact(up(float(upper_from_count(np.array([differed]), rows, 1 - confidence)[0]))))


def counted(losses: bytes, seed: int, rows: int, config: str | None, counts: Counts) -> dict[str, Any]:
    """What a statement says of the draw: the number for each group, the lines, and the counts and bounds of groups and of all together.

    counts: see `compare`; groups without an entry did not differ. The bounds hold together with `CONFIDENCE`.
    """
    groups, drawn = _groups(losses, config), _drawn(losses, seed, rows, config)
    sampled = sum(len(drawn[group]) < len(lines) for group, lines in groups.items())
    confidence = 1 - (1 - CONFIDENCE) / max(1, sampled)
    entries: list[dict[str, Any]] = []
    for group, lines in sorted(groups.items()):
        differed, largest = counts.get(group, (0, 0))
        entries.append(
            {
                "config": group[0], "risk": group[1], "rows": len(drawn[group]), "of": len(lines), "differed": differed,
                "largest": largest, "bound": bound(differed, len(drawn[group]), len(lines), confidence),
            }
        )  # fmt: skip
    return {
        "each": rows, "rows": sum(entry["rows"] for entry in entries), "of": sum(entry["of"] for entry in entries),
        "lines": sorted(line for lines in drawn.values() for line in lines),
        "differed": sum(entry["differed"] for entry in entries),
        "largest": max((entry["largest"] for entry in entries), default=0),
        "bound": max((entry["bound"] for entry in entries), key=float, default="0.0"), "groups": entries,
    }  # fmt: skip


def counted_together(
    losses: bytes, seed: int, rows: int, config: str | None, differed: int, largest: int
) -> dict[str, Any]:
    """The same for a draw from all rows together, of statements of older versions."""
    lines, of = draw_together(losses, seed, rows, config), pool(losses, config)
    return {
        "rows": len(lines), "of": of, "lines": lines, "differed": differed, "largest": largest,
        "bound": bound(differed, len(lines), of),
    }  # fmt: skip
