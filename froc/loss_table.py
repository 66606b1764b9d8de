"""The loss table: per-query losses in whole thousandths, validated. Torch-free.

Losses are rounded up to thousandths, against the claim, once: certified, stored, signed and verified are the same
integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import narwhals
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from froc import hashing
from froc.errors import InputError

SCALE = 1000
"""Thousandths in a loss of 1."""
SCHEMA: dict[str, type[pl.DataType]] = {
    "config": pl.String,
    "risk": pl.String,
    "metric": pl.String,
    "split": pl.String,
    "unit": pl.String,
    "query": pl.String,
    "loss": pl.Int16,
}
REQUIRED = ("config", "risk", "query", "loss")
SPLITS = ("search", "calibration")
WEIGHTED = "queries-by-group"
"""Unit where groups are drawn and the mean is over queries: a group counts as often as it has queries."""
UNITS = ("query", "group", WEIGHTED)
SCALES = ("thousandths",)
"""Scales that whole numbers may have."""
KEY = ("risk", "metric", "query")
NOISE = 1e-9
"""Floats at most this far above a thousandth are rounded down to it: 0.029 * 1000 is 29.000000000000004."""


@dataclass(frozen=True)
class LossMatrix:
    """values: (m configs, n units) int16 thousandths; units: their ids, in the order of the columns.

    sums: (m, n) sums of thousandths over each unit's queries; sizes: (n,) numbers of its queries.
    Columns are in the order of the ids' digests, which is independent of losses and topics, so that bounds that depend on
    the order of units are valid whatever order a table was written in.
    """

    configs: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.int16]
    sums: NDArray[np.int64]
    sizes: NDArray[np.int64]


def quantise(losses: ArrayLike) -> NDArray[np.int16]:
    """(n,) losses in [0, 1] -> whole thousandths, rounded up. Raises InputError for NaN and values outside.

    >>> quantise([0.0, 0.0291, 1.0]).tolist()
    [0, 30, 1000]
    """
    raw = np.asarray(losses)
    # the resolution of float32
    noise = float(np.finfo(np.float32).eps) if raw.dtype == np.float32 else NOISE
    values = raw.astype(np.float64)
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise InputError("a loss is not a number in [0, 1]; map it there first")
    return np.ceil((values - noise) * SCALE).clip(0, SCALE).astype(np.int16)


def dataframe(table: object) -> pl.DataFrame | None:
    """Any dataframe that narwhals reads (pandas, PyArrow, Polars, lazy ones too) as a Polars one; None for anything else."""
    if isinstance(table, pl.DataFrame):
        return table
    frame = narwhals.from_native(table, pass_through=True)
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    return frame.to_polars() if isinstance(frame, narwhals.DataFrame) else None


def check(frame: pl.DataFrame, scale: str | None = None) -> pl.DataFrame:
    """A loss table with the columns and types of SCHEMA; losses in [0, 1] become thousandths.

    `metric`, `split` and `unit` may be left out: one metric, calibration, the query itself. scale: "thousandths" where
    losses are whole numbers 0..1000; implied only for tables with exactly SCHEMA, which this function returned: whole
    numbers may be on any scale, and taking them for thousandths by mistake would make every loss too small.
    Raises InputError naming the row (from 1) and the fix: missing columns, values out of range, duplicates, a query in
    both splits, configurations without queries that others have.

    >>> frame = pl.DataFrame({"config": ["c0000"], "risk": ["utility"], "query": ["q1"], "loss": [0.25]})
    >>> check(frame).row(0)
    ('c0000', 'utility', 'loss', 'calibration', 'q1', 'q1', 250)
    """
    refuse_unknown_scale(scale)
    own = dict(frame.schema) == SCHEMA and list(frame.schema) == list(SCHEMA)
    table = _columns(frame)
    if table.is_empty():
        raise InputError("the loss table is empty; give at least one row")
    table = _thousandths(table, scale or (SCALES[0] if own else None))
    known = pl.col("split").is_in(list(SPLITS))
    _refuse(table, ~known, "the split is neither 'search' nor 'calibration'", "write one of the two")
    repeated = pl.struct("config", *KEY).is_first_distinct().not_()
    _refuse(table, repeated, "repeats an earlier row's config, risk, metric and query", "keep one of them")
    for column, why in (("split", "is in the other split elsewhere"), ("unit", "has another unit elsewhere")):
        moved = pl.col(column) != pl.col(column).first().over(*KEY)
        _refuse(table, moved, f"its query {why}", f"give a query one {column} in all configurations")
    _refuse_gaps(table)
    return table.select([pl.col(name).cast(kind) for name, kind in SCHEMA.items()])


def matrix(frame: pl.DataFrame, *, risk: str, split: str | None, configs: Sequence[str], unit: str) -> LossMatrix:
    """Losses of one risk as a matrix with a row per config of `configs`, in that order.

    frame: a table that passed `check`. split: None for both. unit: "query", else the mean over each unit's queries, rounded
    up to a whole thousandth. Raises InputError where configurations were not all measured on the same queries.
    """
    if unit not in UNITS:
        raise InputError(f"no unit is called {unit!r}; there are: {', '.join(UNITS)}")
    key = "query" if unit == "query" else "unit"
    rows = frame.filter(pl.col("risk") == risk, pl.col("config").is_in(list(configs)))
    if split is not None:
        rows = rows.filter(pl.col("split") == split)
    if rows.is_empty():
        raise InputError(f"the loss table has no {f'{split} ' if split else ''}rows for risk {risk!r}")
    whole = pl.col("loss").is_between(0, SCALE).all() & pl.col("loss").is_not_null().all()
    if not rows.schema["loss"].is_integer() or not rows.select(whole).item():
        raise InputError(f"losses of risk {risk!r} are not whole thousandths; pass the table through check first")
    totals = (
        rows.group_by("config", key)
        .agg(pl.col("loss").cast(pl.Int64).sum(), pl.len().cast(pl.Int64).alias("count"))
        .sort("config", key)
    )
    names, ids = sorted(set(configs)), totals[key].unique().sort().to_list()
    counts = totals["count"].to_numpy()
    # (config, id) pairs are distinct, so the table is complete exactly if it has all of them
    full = len(totals) == len(names) * len(ids)
    if not full or not (counts.reshape(len(names), -1) == counts[: len(ids)]).all():
        raise InputError(f"risk {risk!r}: configurations were not all measured on the same {split} queries")
    if unit == "query" and counts.max() > 1:
        raise InputError(f"risk {risk!r}: a query is there twice; one metric per risk can be certified")
    # integer ceiling: -(-a // b) is the ceiling of a / b
    sums = totals["loss"].to_numpy()
    means = (-(-sums // counts)).reshape(len(names), -1)
    places = sorted(range(len(ids)), key=lambda i: place(ids[i]))
    row = {config: i for i, config in enumerate(names)}
    cells = np.ix_([row[config] for config in configs], places)
    return LossMatrix(
        tuple(configs), tuple(ids[i] for i in places), means[cells].astype(np.int16),
        sums.reshape(len(names), -1)[cells], counts[: len(ids)][places].astype(np.int64),
    )  # fmt: skip


def joined(parts: Sequence[LossMatrix]) -> LossMatrix:
    """Matrices of the same configurations, one after the other."""
    return LossMatrix(
        parts[0].configs, tuple(unit for part in parts for unit in part.units),
        np.concatenate([part.values for part in parts], axis=1), np.concatenate([part.sums for part in parts], axis=1),
        np.concatenate([part.sizes for part in parts]),
    )  # fmt: skip


def prefixes(
    frame: pl.DataFrame, order: pl.DataFrame, *, risk: str, configs: Sequence[str], unit: str
) -> tuple[list[NDArray[np.int16]], int]:
    """Losses of configurations that were measured on different numbers of units, and how many were planned.

    order: `unit` and `query` of all planned measurements. Returns a (1, t) row per config of `configs`, with columns in
    the order of `matrix`. Raises InputError where the measured units are not the first ones in that order, each with all
    its queries: stopping early is allowed, skipping is not.
    """
    key = "query" if unit == "query" else "unit"
    planned = sorted(set(order[key].to_list()), key=place)
    whole = order.group_by(key).agg(pl.len().alias("whole"))
    ranks = pl.DataFrame({key: planned, "rank": range(len(planned))}).join(whole, on=key)
    rows = frame.filter(pl.col("risk") == risk, pl.col("split") == "calibration", pl.col("config").is_in(list(configs)))
    if not rows.join(order, on=["query", "unit"], how="anti").is_empty():
        raise InputError(f"risk {risk!r}: a query was measured that is not in the sealed order, or of another unit")
    sums = rows.group_by("config", key).agg(pl.col("loss").cast(pl.Int64).sum(), pl.len().alias("count"))
    sums = sums.join(ranks, on=key).sort("rank")
    rows_of_configs = []
    for config in configs:
        measured = sums.filter(pl.col("config") == config)
        is_prefix = measured["rank"].to_list() == list(range(len(measured)))
        if not is_prefix or not (measured["count"] == measured["whole"]).all():
            raise InputError(f"risk {risk!r}: {config} was not measured on the first units of the sealed order")
        losses, counts = measured["loss"].to_numpy(), measured["count"].to_numpy().astype(np.int64)
        rows_of_configs.append((-(-losses // counts)).astype(np.int16).reshape(1, -1))
    return rows_of_configs, len(planned)


def refuse_shared_units(frame: pl.DataFrame, risk: str) -> None:
    """InputError where a unit has rows in both splits: the search has seen part of what would be sampled."""
    splits = frame.filter(pl.col("risk") == risk).group_by("unit").agg(pl.col("split").n_unique().alias("n"))
    shared = splits.filter(pl.col("n") > 1)["unit"].sort()
    if len(shared):
        raise InputError(
            f"risk {risk!r}: unit {shared[0]!r} has rows in both splits ({len(shared)} such units); groups can only be "
            "the sampling unit where each stands in one split as a whole"
        )


def place(unit: str) -> str:
    """Sort key of units: a digest of the id, which is independent of losses and topics."""
    return hashing.sha256_bytes(unit.encode())


def _columns(table: pl.DataFrame) -> pl.DataFrame:
    for column in REQUIRED:
        if column not in table.columns:
            raise InputError(f"the loss table has no column {column!r}; it needs {', '.join(REQUIRED)}")
    unknown = [column for column in table.columns if column not in SCHEMA]
    if unknown:
        raise InputError(f"unknown column {unknown[0]!r}; remove it (known: {', '.join(SCHEMA)})")
    texts = [name for name in SCHEMA if name != "loss"]
    for name in texts:
        if name in table.columns:
            table = _text(table, name)
    defaults = {"metric": pl.lit("loss"), "split": pl.lit("calibration"), "unit": pl.col("query")}
    return table.with_columns(**{name: value for name, value in defaults.items() if name not in table.columns})


def _text(table: pl.DataFrame, name: str) -> pl.DataFrame:
    kind = table.schema[name]
    if not (kind in (pl.String, pl.Null, pl.Categorical, pl.Enum) or kind.is_integer()):
        raise InputError(f"the column {name} holds {kind}; give text")
    # blanks around a name do not count
    table = table.with_columns(pl.col(name).cast(pl.String).str.strip_chars())
    blank = pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")
    _refuse(table, blank, f"{name} is missing", "fill it in")
    return table


def refuse_unknown_scale(scale: str | None) -> None:
    """InputError for an unknown scale."""
    if scale is not None and scale not in SCALES:
        raise InputError(f"no scale is called {scale!r}; there is: {', '.join(SCALES)}, and losses in [0, 1] need none")


def _thousandths(table: pl.DataFrame, scale: str | None) -> pl.DataFrame:
    kind, loss = table.schema["loss"], pl.col("loss")
    _refuse(table, loss.is_null(), "loss is missing", "a query that could not be measured counts as 1")
    if not (kind.is_integer() or kind.is_float()):
        raise InputError(
            f"the column loss holds {kind}; give floats in [0, 1], or --scale thousandths for whole 0..1000"
        )
    if scale is not None:
        if not kind.is_integer():
            raise InputError("losses are no whole numbers, although --scale thousandths says so; leave it out")
        _refuse(table, ~loss.is_between(0, SCALE), f"loss is outside 0..{SCALE} thousandths", "map it there")
        return table
    if kind.is_integer():
        # a larger whole number may be a grade, a percentage or a thousandth
        _refuse(
            table, loss > 1, "loss is a whole number above 1, and whole numbers may be on any scale",
            f"divide by the largest there can be, or say --scale thousandths for 0..{SCALE}",
        )  # fmt: skip
    good = loss.is_between(0, 1) & (loss.is_not_nan() if kind.is_float() else pl.lit(True))
    _refuse(table, ~good, "loss is no number in [0, 1]", "map it there; a query that failed counts as 1")
    return table.with_columns(pl.Series("loss", quantise(table["loss"].to_numpy())))


def _refuse(table: pl.DataFrame, bad: pl.Expr, why: str, mend: str) -> None:
    rows = table.select(bad.alias("bad"))["bad"].arg_true()
    if len(rows):
        more = f" ({len(rows) - 1} more rows like it)" if len(rows) > 1 else ""
        raise InputError(f"row {rows[0] + 1}: {why}; {mend}{more}")


def _refuse_gaps(table: pl.DataFrame) -> None:
    kinds = table.group_by("risk", maintain_order=True).agg(pl.col("metric").n_unique().alias("n"))
    twice = kinds.filter(pl.col("n") > 1)
    if len(twice):
        raise InputError(f"risk {twice['risk'][0]!r} has several metrics; give each a risk name of its own")
    for (split,), rows in table.group_by("split", maintain_order=True):
        queries = rows.select("risk", "query").unique(maintain_order=True)
        counts = rows.group_by("config", maintain_order=True).len()
        short = counts.filter(pl.col("len") < len(queries))
        if short.is_empty():
            continue
        config = short["config"][0]
        lacking = queries.join(rows.filter(pl.col("config") == config), on=["risk", "query"], how="anti")
        first = rows.with_row_index().join(lacking.head(1), on=["risk", "query"], how="semi")["config"][0]
        raise InputError(
            f"configuration {config!r} lacks {len(lacking)} {split} queries of {lacking['risk'][0]} that {first!r} "
            "has; measure all configurations on the same queries, a failed one counts as 1"
        )
