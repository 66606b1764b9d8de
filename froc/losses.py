"""The loss table: per-query losses as whole thousandths, checked at the door. Torch-free.

Thousandths are rounded up, against the claim, and then never touched again: what is certified, stored, signed and
verified is the same integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

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
SPLITS = ("search", "calibration")
KEY = ["config", "risk", "metric", "query"]
NOISE = 1e-9
"""Floats this close to a whole thousandth are that thousandth: 0.029 * 1000 is 28.999..."""


@dataclass(frozen=True)
class LossMatrix:
    """values: (m configs, n units) int64 thousandths; columns in ascending order of the keyed, hence random, unit id.

    The order is fixed by the keys before any loss exists, so bounds that depend on row order stay valid.
    """

    configs: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.int64]


def quantise(losses: ArrayLike) -> NDArray[np.int16]:
    """(n,) losses in [0, 1] -> whole thousandths, rounded up. Raises InputError for NaN and values outside."""
    values = np.asarray(losses, dtype=np.float64)
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise InputError("a loss is not a number in [0, 1]; map it there first")
    return np.ceil(values * SCALE - NOISE * SCALE).clip(0, SCALE).astype(np.int16)


def check(table: pl.DataFrame) -> pl.DataFrame:
    """A loss table with the columns and types of SCHEMA; floats in [0, 1] become thousandths.

    `metric`, `split` and `unit` may be left out: one metric, calibration, the query itself.
    Raises InputError naming the row (from 1) and the mend: missing columns, values out of range, duplicates,
    configurations that lack queries which others have.
    """
    table = _columns(table)
    if table.is_empty():
        raise InputError("the loss table is empty; give at least one row")
    table = _losses(table)
    _refuse(table, ~pl.col("split").is_in(SPLITS), "split is neither 'search' nor 'calibration'")
    _refuse(table, pl.struct(KEY).is_first_distinct().not_(), "repeats an earlier row's config, risk, metric and query")
    _refuse_gaps(table)
    return table.select(SCHEMA).cast(SCHEMA)  # type: ignore[arg-type]  # polars takes any mapping of names to types


def matrix(
    table: pl.DataFrame, *, risk: str, split: str, configs: Sequence[str], unit: Literal["query", "group"]
) -> LossMatrix:
    """Losses of one risk as a matrix; with `group`, the mean over each unit, rounded up to a whole thousandth.

    Raises InputError where a configuration lacks the risk or the rows differ between configurations.
    """
    rows = table.filter((pl.col("risk") == risk) & (pl.col("split") == split) & pl.col("config").is_in(list(configs)))
    if rows.is_empty():
        raise InputError(f"the loss table has no {split} rows for risk {risk!r}")
    key = "query" if unit == "query" else "unit"
    totals = rows.group_by("config", key).agg(pl.col("loss").cast(pl.Int64).sum().alias("sum"), pl.len().alias("count"))
    # upwards in whole numbers: -(-a // b) is the ceiling of a / b
    wide = (
        totals.with_columns((-((-pl.col("sum")) // pl.col("count").cast(pl.Int64))).alias("value"))
        .pivot(on="config", index=key, values="value")
        .sort(key)
    )
    missing = [config for config in configs if config not in wide.columns]
    if missing or wide.select(pl.any_horizontal(pl.all().is_null().any())).item():
        raise InputError(f"risk {risk!r}: configurations were not all measured on the same {split} queries")
    values = wide.select(list(configs)).to_numpy().T.astype(np.int64)
    return LossMatrix(tuple(configs), tuple(wide[key].to_list()), np.ascontiguousarray(values))


def _columns(table: pl.DataFrame) -> pl.DataFrame:
    for column in ("config", "risk", "query", "loss"):
        if column not in table.columns:
            raise InputError(f"the loss table has no column {column!r}; it needs config, risk, query and loss")
    unknown = [column for column in table.columns if column not in SCHEMA]
    if unknown:
        raise InputError(f"the loss table has a column {unknown[0]!r} that is not known; remove it")
    defaults = {"metric": pl.lit("loss"), "split": pl.lit("calibration"), "unit": pl.col("query").cast(pl.String)}
    table = table.with_columns(**{name: value for name, value in defaults.items() if name not in table.columns})
    texts = [name for name in SCHEMA if name != "loss"]
    for name in texts:
        _refuse(table, pl.col(name).is_null(), f"{name} is missing")
    return table.with_columns(pl.col(texts).cast(pl.String))


def _losses(table: pl.DataFrame) -> pl.DataFrame:
    kind = table.schema["loss"]
    _refuse(table, pl.col("loss").is_null(), "loss is missing; a query that could not be measured counts as 1")
    if kind.is_integer():
        _refuse(table, ~pl.col("loss").is_between(0, SCALE), f"loss is outside 0..{SCALE} thousandths")
        return table
    if not kind.is_float():
        raise InputError(f"the column loss is {kind}; give whole thousandths 0..{SCALE} or floats in [0, 1]")
    _refuse(table, ~(pl.col("loss").is_between(0, 1) & pl.col("loss").is_not_nan()), "loss is no number in [0, 1]")
    return table.with_columns(pl.Series("loss", quantise(table["loss"].to_numpy())))


def _refuse(table: pl.DataFrame, bad: pl.Expr, why: str) -> None:
    rows = table.with_row_index("row", offset=1).filter(bad)
    if len(rows):
        raise InputError(f"row {rows['row'][0]}: {why}; mend it" + (f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""))


def _refuse_gaps(table: pl.DataFrame) -> None:
    for (risk, metric, split), some in table.group_by("risk", "metric", "split", maintain_order=True):
        queries = some["query"].n_unique()
        counts = some.group_by("config", maintain_order=True).agg(pl.len().alias("n"))
        short = counts.filter(pl.col("n") < queries)
        if len(short):
            raise InputError(
                f"configuration {short['config'][0]} has {short['n'][0]} of {queries} {split} queries of {risk} ({metric}); "
                "measure every configuration on the same queries, a failed one counts as 1"
            )
    kinds = table.select("risk", "metric").unique()
    twice = kinds.group_by("risk").agg(pl.len().alias("n")).filter(pl.col("n") > 1)
    if len(twice):
        raise InputError(f"risk {twice['risk'][0]!r} has several metrics; certify one metric per risk, name the others apart")
