"""GoodReads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader
from froc.data.benchmarks._files import SUFFIXES, field, needed
from froc.data.benchmarks._ratings import LISTED, PARTS, Rating, finite, identifier, number, records, task
from froc.data.row_files import Record
from froc.data.task import Task
from froc.errors import InputError

RATINGS = ("goodreads_interactions", "ratings")
BOOKS = ("goodreads_books", "books")
MAPPED, MAP = "goodreads_interactions.csv", "book_id_map.csv"
"""Ratings whose books are counted anew, and which book each number is."""


@dataclass(frozen=True)
class GoodReads(BenchmarkReader):
    """GoodReads: who liked which book; users are forgotten whole (recommendation).

    Parts, rows, what is trained on and measured, units and metric: as `movielens`, books in place of films. A rating of 0 (on the
    shelf, not rated) is left out. The order is that of the rows, unless all of them have a column `timestamp` or `date_added` that is a number.

    Read in public code and notes that use UCSD's files: interactions with user_id, book_id and rating, books with book_id and title, and that
    goodreads_interactions.csv counts books anew, by book_id_map.csv (book_id_csv, book_id). goodbooks-10k's names (ratings, books) are
    our reading. No file was at hand.
    """

    parts: ClassVar[tuple[str, ...]] = PARTS
    files: ClassVar[str] = f"goodreads_interactions and goodreads_books, or ratings and books; for listed {LISTED}"
    origin: ClassVar[str] = "the GoodReads data sets of UCSD, or goodbooks-10k"
    paper: ClassVar[str] = ""

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        suffixes = (".csv", *SUFFIXES)
        ratings = _ratings(records(needed(folder, *RATINGS, suffixes=suffixes)))
        if (folder / MAPPED).is_file():
            anew = _map(folder)
            ratings = [replace(rating, item=anew.get(rating.item, "")) for rating in ratings]
        books = records(needed(folder, *BOOKS, suffixes=suffixes))
        titles = {identifier(record, "book_id"): field(record.value, "title", record.origin) for record in books}
        rated = [rating for rating in ratings if rating.value > 0]
        return task("goodreads", "Book", rated, titles, folder, part, split_seed)


def _map(folder: Path) -> dict[str, str]:
    """Number of a book in `MAPPED` -> its identifier in goodreads_books."""
    if not (folder / MAP).is_file():
        raise InputError(f"{folder} has {MAPPED}, which counts books anew, and no {MAP}; take both from one release")
    rows = records([folder / MAP])
    return {identifier(record, "book_id_csv"): identifier(record, "book_id") for record in rows}


def _ratings(rows: Sequence[Record]) -> list[Rating]:
    """A rating a row. Times are taken from all rows or from none: a number of seconds and a row's place order nothing together."""
    users, books = ([identifier(record, name) for record in rows] for name in ("user_id", "book_id"))
    values = [number(record.value.get("rating"), "rating", record.origin) for record in rows]
    written = [finite(record.value.get("timestamp", record.value.get("date_added"))) for record in rows]
    times = [time for time in written if time is not None]
    if len(times) < len(rows):
        times = [float(place) for place in range(len(rows))]
    origins = [record.origin for record in rows]
    return [Rating(*fields) for fields in zip(users, books, values, times, origins, strict=True)]
