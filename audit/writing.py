"""How files of a bundle are written, and the time as every statement says it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from froc import timestamp
from froc.atomic import write_bytes
from froc.errors import InputError


def replace_file(place: Path, data: bytes) -> None:
    """Write a file of a bundle, whole or not at all; what a killed process leaves lies beside the bundle, not in it."""
    try:
        write_bytes(place, data, beside=place.parent.absolute().parent)
    except OSError as error:
        raise InputError(f"cannot write {place} ({error.strerror}); make its folder writable") from error


def run_bytes(path: Path, run: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{run} has no readable {path.name}; give the run folder that froc search --out wrote"
        ) from error


def stamped(now: datetime | None, days: int = 0) -> str:
    """RFC 3339 time in UTC, to the second, so many days from `now` (the present by default)."""
    return timestamp.stamp((now or datetime.now(UTC)) + timedelta(days=days))
