"""Time stamps of documents: RFC 3339 in UTC, to the second."""

from datetime import UTC, datetime

FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def stamp(moment: datetime | None = None) -> str:
    """A moment, which must know its time zone, as documents write it; now by default.

    >>> from datetime import UTC, datetime
    >>> stamp(datetime(2026, 1, 31, 12, 0, tzinfo=UTC))
    '2026-01-31T12:00:00Z'
    """
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime(FORMAT)


def moment(text: str) -> datetime:
    """The moment of a time stamp; ValueError for another form or a date that does not exist."""
    return datetime.strptime(text, FORMAT).replace(tzinfo=UTC)
