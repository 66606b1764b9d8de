"""How files of a run are read and those of a bundle written, and the time as every statement says it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from froc import timestamp
from froc.atomic import write_bytes
from froc.audit import plain_files
from froc.errors import InputError, VerificationError
from froc.loss_table import SCHEMA

RUN_BYTES = 2**29
"""The largest file of a run that is read whole: a log of very many trials."""


def replace_file(place: Path, data: bytes) -> None:
    """Write a file of a bundle, whole or not at all; what a killed process leaves lies beside the bundle, not in it."""
    try:
        write_bytes(place, data, beside=place.parent.absolute().parent)
    except OSError as error:
        raise InputError(f"cannot write {place} ({error.strerror}); make its folder writable") from error


def run_bytes(path: Path, run: Path) -> bytes:
    """A file of a run folder, which somebody else may have filled. InputError for one that is not there, not plain, or too large."""
    try:
        return plain_files.read(path, RUN_BYTES)
    except VerificationError as error:
        raise InputError(
            f"{run} has no readable {path.name} ({error}); give the run folder that froc search --out wrote"
        ) from error


def run_losses(path: Path) -> pl.DataFrame:
    """A loss table of a run folder. InputError for one that is not there, damaged, or of other columns."""
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise FileNotFoundError(path)
        table = pl.read_parquet(path, columns=list(SCHEMA))
        return table.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is missing or damaged; run the same froc search again") from error


def stamped(now: datetime | None, days: int = 0) -> str:
    """RFC 3339 time in UTC, to the second, so many days from `now` (the present by default)."""
    return timestamp.stamp((now or datetime.now(UTC)) + timedelta(days=days))
