"""Recommendation: users' ratings in the order of time -> questions whether a user will like an item.

A question shows the last items that the user rated, each as liked or not, and one more; the answer is Yes or No, the other of the
two stands in `others`, and the group is the user. Users are forgotten whole, as in E2URec (2403.03536).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from froc import hashing
from froc.data.benchmarks import assemble
from froc.data.benchmarks._files import field
from froc.data.benchmarks._withholding import MEASURED_FORGET, MEASURED_RETAIN, group_of, withhold
from froc.data.row_files import Record, read
from froc.data.rows import Row
from froc.data.task import FORGETTING, UTILITY, Task
from froc.errors import InputError

HISTORY = 10
"""Items shown before the one that is asked about, as in TALLRec (2305.00447) and E2URec."""
MAX_ROWS = 20
"""Questions about a user, the latest."""
LEAST_LIKED = 4.0
"""Smallest rating that counts as liked."""
PARTS = ("forget05", "forget10", "forget20", "listed")
LISTED = "forget_users.txt"
YES, NO = "Yes.", "No."


@dataclass(frozen=True)
class Rating:
    """A user's rating of an item. time: any number that orders a user's ratings; origin: file and row."""

    user: str
    item: str
    value: float
    time: float
    origin: str


def number(value: object, name: str, where: str) -> float:
    """A finite number of a row; InputError where it is missing or none."""
    parsed = finite(value)
    if parsed is None:
        raise InputError(f"{where}: {name!r} must be a number; mend the row")
    return parsed


def finite(value: object) -> float | None:
    """The finite number that a value is or is written as; None for anything else."""
    try:
        parsed = float(str(value))
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) else None


def records(files: Sequence[Path]) -> list[Record]:
    """All rows of some files of one kind; InputError where there are none."""
    rows = [record for path in files for record in read(path)]
    if not rows:
        raise InputError(f"{files[0].name} is empty; take it from the release")
    return rows


def identifier(record: Record, name: str) -> str:
    """An identifier as text, which may be a number in the file; InputError where it is missing."""
    value = record.value.get(name) if isinstance(record.value, dict) else None
    return field({name: "" if value is None else str(value)}, name, record.origin)


def task(
    name: str, noun: str, ratings: Iterable[Rating], titles: Mapping[str, str], folder: Path, part: str, split_seed: int
) -> Task:
    """The task of one part: a share of the users, or those that a file lists, are forgotten.

    name: of the benchmark. noun: what an item is called in questions. titles: item -> title.
    folder: where the list of users stands.

    Raises InputError for an item without a title, users that are not there, and too few ratings.
    """
    by_user: dict[str, list[Rating]] = {}
    for rating in ratings:
        by_user.setdefault(rating.user, []).append(rating)
    rows = {user: _questions(user, of_user, titles, noun) for user, of_user in sorted(by_user.items())}
    rows = {user: of_user for user, of_user in rows.items() if of_user}
    if len(rows) < 4:
        raise InputError(
            f"{name}: {len(rows)} users have more than {HISTORY} ratings, too few to forget some; give the whole files"
        )
    forgotten = _listed(folder, rows) if part == "listed" else _drawn(rows, int(part.removeprefix("forget")) / 100)
    forget, asked = withhold(
        [row for user in forgotten for row in rows[user]], MEASURED_FORGET, "questions about users to forget"
    )
    kept = [row for user, of_user in rows.items() if user not in forgotten for row in of_user]
    retain, near = withhold(kept, MEASURED_RETAIN, "users to keep", group_of)
    return assemble(
        f"{name}-{part}",
        forget,
        retain,
        {FORGETTING: asked, UTILITY: near},
        utility="group",
        split_seed=split_seed,
        notes=[
            f"{len(forgotten)} of {len(rows)} users are forgotten; {len(by_user) - len(rows)} with at most {HISTORY} ratings are left out",
            f"{len({row.group for row in near})} users to keep are not trained on: they are measured",
        ],
    )


def _questions(user: str, ratings: Sequence[Rating], titles: Mapping[str, str], noun: str) -> tuple[Row, ...]:
    """The latest questions about a user, in the order of time."""
    ordered = sorted(ratings, key=lambda rating: (rating.time, rating.item))
    shown = [(_title(rating, titles), rating.value >= LEAST_LIKED) for rating in ordered]
    first = max(HISTORY, len(shown) - MAX_ROWS)
    return tuple(
        _question(shown[place - HISTORY : place], *shown[place], noun, f"user {user}", ordered[place].origin)
        for place in range(first, len(shown))
    )


def _question(history: Sequence[tuple[str, bool]], title: str, liked: bool, noun: str, group: str, origin: str) -> Row:
    good = "; ".join(before for before, was_liked in history if was_liked) or "none"
    bad = "; ".join(before for before, was_liked in history if not was_liked) or "none"
    text = f"{noun}s that a user liked: {good}\n{noun}s that the user did not like: {bad}\nWill the user like this {noun.lower()}: {title}?"
    answer, other = (YES, NO) if liked else (NO, YES)
    return Row(text, answer, group, others=(other,), origin=origin)


def _title(rating: Rating, titles: Mapping[str, str]) -> str:
    if rating.item not in titles:
        raise InputError(f"{rating.origin}: no title is given for item {rating.item}; take both files from one release")
    return titles[rating.item]


def _drawn(users: Iterable[str], fraction: float) -> list[str]:
    """A share of the users by a hash, so that everybody forgets the same."""
    ordered = sorted(users, key=lambda user: hashing.hmac_sha256(b"froc forgotten users", user))
    return ordered[: max(1, round(fraction * len(ordered)))]


def _listed(folder: Path, users: Mapping[str, object]) -> list[str]:
    path = folder / LISTED
    if not path.is_file():
        raise InputError(f"{folder} has no {LISTED}; write the users to forget there, one a line, or take {PARTS[1]}")
    wanted = list(dict.fromkeys(path.read_text(encoding="utf-8").split()))
    unknown = [user for user in wanted if user not in users]
    if unknown or not wanted:
        raise InputError(
            f"{LISTED}: {len(unknown)} of {len(wanted)} users have no more than {HISTORY} ratings here; list users of the ratings file"
        )
    return wanted
