"""Reading files of a run, writing those of a bundle, and the form of time in statements."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from froc import bounded_file, timestamp
from froc.atomic import write_bytes
from froc.audit import plain_files
from froc.audit.bundle_files import LIMITS
from froc.errors import InputError, VerificationError
from froc.loss_table import SCHEMA

RUN_ROWS = LIMITS["losses.csv"] // 50
"""Largest number of losses that a bundle has room for."""


def replace_file(place: Path, data: bytes) -> None:
    """Write a file of a bundle atomically; leftovers of a killed process lie beside the bundle, not in it."""
    try:
        write_bytes(place, data, beside=place.parent.absolute().parent)
    except OSError as error:
        raise InputError(f"cannot write {place} ({error.strerror}); make its folder writable") from error


def run_bytes(path: Path, run: Path) -> bytes:
    """A file of a run folder, which another party may have filled. InputError where it is absent, not plain, or too large."""
    try:
        return plain_files.read(path, bounded_file.RUN_BYTES)
    except VerificationError as error:
        raise InputError(
            f"{run} has no readable {path.name} ({error}); give the run folder that froc search --out wrote"
        ) from error


def run_losses(path: Path) -> pl.DataFrame:
    """A loss table of a run folder. InputError where it is absent, damaged, or has other columns."""
    try:
        data = bounded_file.read(path, bounded_file.RUN_BYTES)
        # from the footer: a long column of equal values takes few bytes on disk
        rows = int(pl.scan_parquet(io.BytesIO(data)).select(pl.len()).collect().item())
        if rows > RUN_ROWS:
            raise InputError(
                f"{path} holds {rows} losses, more than the {RUN_ROWS} that a report may have; measure fewer"
            )
        table = pl.read_parquet(io.BytesIO(data), columns=list(SCHEMA))
        return table.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is missing or damaged; run the same froc search again") from error


def stamped(now: datetime | None, days: int = 0) -> str:
    """RFC 3339 time in UTC, to the second, `days` days after `now` (the present by default)."""
    return timestamp.stamp((now or datetime.now(UTC)) + timedelta(days=days))
