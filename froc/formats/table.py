"""froc's own loss table."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from froc.data import records
from froc.errors import InputError
from froc.formats import Format
from froc.losses import SCHEMA, check


@dataclass(frozen=True)
class Table(Format):
    """Parquet, CSV, JSON Lines or a JSON array with config, risk, query, loss (and metric, split, unit)."""

    def read(self, path: Path) -> pl.DataFrame:
        """The checked loss table; losses are whole thousandths or floats in [0, 1]."""
        if not path.is_file():
            raise InputError(f"{path} does not exist; give a loss table (.parquet, .csv, .jsonl or .json)")
        try:
            return check(_csv(path) if path.suffix == ".csv" else _rows(path))
        except InputError as error:
            named = str(error) if str(error).startswith(path.name) else f"{path.name}: {error}"
            raise InputError(named) from error


def _csv(path: Path) -> pl.DataFrame:
    """Text columns stay text, so that a config called 007 keeps its name."""
    try:
        raw = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"no readable CSV ({reason}); write a header and one row per line, in UTF-8") from error
    if "loss" not in raw.columns or raw.is_empty():
        return raw
    whole = raw["loss"].str.contains(r"^\s*\d+\s*$").fill_null(False).all()
    loss = raw["loss"].str.strip_chars().cast(pl.Int64 if whole else pl.Float64, strict=False)
    bad = (loss.is_null() & raw["loss"].is_not_null()).arg_true()
    if len(bad):
        raise InputError(f"row {bad[0] + 1}: loss is no number; mend it")
    return raw.with_columns(loss.alias("loss"))


def _rows(path: Path) -> pl.DataFrame:
    if path.suffix == ".parquet":
        try:
            return pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError("no readable Parquet file; write it again") from error
    found = records(path)
    for number, row in enumerate(found, start=1):
        if not isinstance(row, dict):
            raise InputError(f"row {number} is no object; give config, risk, query and loss")
        loss = row.get("loss")
        if "loss" in row and (isinstance(loss, bool) or not isinstance(loss, int | float)):
            raise InputError(f"row {number}: loss is no number; mend it")
        texts = [key for key in SCHEMA if key != "loss" and key in row and not isinstance(row[key], str | int)]
        if texts:
            raise InputError(f"row {number}: {texts[0]} is no text; mend it")
    if not found:
        return pl.DataFrame(schema=SCHEMA)
    mixed = any(isinstance(row.get("loss"), float) for row in found)
    plain = [{k: str(v) if k != "loss" else (float(v) if mixed else v) for k, v in row.items()} for row in found]
    try:
        return pl.DataFrame(plain, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise InputError("rows do not have the same columns; give config, risk, query and loss in each") from error
