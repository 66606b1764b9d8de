"""MovieLens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from froc.data.benchmarks import BenchmarkReader
from froc.data.benchmarks._files import SUFFIXES, field, needed
from froc.data.benchmarks._ratings import LISTED, PARTS, Rating, identifier, number, records, task
from froc.data.task import Task
from froc.errors import InputError

SEPARATED = {"ratings.dat": ("movies.dat", "::", "::"), "u.data": ("u.item", "\t", "|")}
"""Ratings file -> its file of titles, and the separators of the two."""


@dataclass(frozen=True)
class MovieLens(BenchmarkReader):
    """MovieLens: who liked which film; users are forgotten whole (recommendation, as in E2URec 2403.03536).

    Parts: 5, 10 or 20 % of the users by a hash, or those that forget_users.txt lists. A row asks whether a user will like a film after
    the ten rated before it (Yes. from 4 stars on); the latest twenty of a user are rows, with the other answer in `others`. Trained on:
    half of the forgotten users' rows; the rows of three quarters of the other users. Measured: the other half; the other users. The group is the
    user. Units: forgetting by query, utility by user. Metric: --metric recommendation_auc, whose mean is the area under the curve.

    Read in public code that uses the files (of TALLRec): u.data and u.item of 100K (separated by tabs and |), and histories of ten
    there and in E2URec. Our reading, no file was at hand: ratings.dat and movies.dat of 1M (by ::), ratings.csv and movies.csv of
    later releases (userId, movieId, rating, timestamp, title). Ours: the words of the question, the limit of twenty rows, which rows are withheld; gender, age and job are not read.
    """

    parts: ClassVar[tuple[str, ...]] = PARTS
    files: ClassVar[str] = (
        f"u.data and u.item, or ratings.dat and movies.dat, or ratings.csv and movies.csv; for listed {LISTED}"
    )
    origin: ClassVar[str] = "grouplens.org/datasets/movielens"
    paper: ClassVar[str] = "2403.03536"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task."""
        old = next((name for name in SEPARATED if (folder / name).is_file()), None)
        if old is None:
            ratings, titles = list(_ratings(folder)), _titles(folder)
        else:
            titles_file, between, between_titles = SEPARATED[old]
            ratings = [
                Rating(user, item, number(value, "rating", where), number(time, "timestamp", where), where)
                for where, (user, item, value, time) in _separated(folder / old, between, 4)
            ]
            titles = {item: title for _, (item, title) in _separated(folder / titles_file, between_titles, 2)}
        return task("movielens", "Film", ratings, titles, folder, part, split_seed)


def _ratings(folder: Path) -> Iterator[Rating]:
    for record in records(needed(folder, "ratings", suffixes=(".csv", *SUFFIXES))):
        user, item = (identifier(record, key) for key in ("userId", "movieId"))
        value, time = (number(record.value.get(key), key, record.origin) for key in ("rating", "timestamp"))
        yield Rating(user, item, value, time, record.origin)


def _titles(folder: Path) -> dict[str, str]:
    rows = records(needed(folder, "movies", suffixes=(".csv", *SUFFIXES)))
    return {identifier(record, "movieId"): field(record.value, "title", record.origin) for record in rows}


def _separated(path: Path, between: str, count: int) -> Iterator[tuple[str, Sequence[str]]]:
    """(file and line, the first fields of the line)."""
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}; take both files from one release")
    for place, line in enumerate(_text(path.read_bytes()).rstrip("\n").split("\n"), start=1):
        fields = line.rstrip("\r").split(between)
        if len(fields) < count or not all(text.strip() for text in fields[:count]):
            raise InputError(
                f"{path.name} row {place} has not {count} fields separated by {between!r}; take it from the release"
            )
        yield f"{path.name} row {place}", fields[:count]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # as the old releases have titles
        return data.decode("latin-1")
