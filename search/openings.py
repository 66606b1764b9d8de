"""How often these calibration queries have been looked at. Looking again spends confidence again.

Counted by the queries' digest in the user's state folder. The same seal twice is one opening: it asks nothing new.

Queries of earlier requests are counted apart from those of the task itself (`froc.data.Sealed.counted`): the same part of
them may be opened again beside another task. That a part was opened by none of the runs that led to the base model is no
matter of counting, but of which part is taken (`froc.earlier`).
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from froc import digest
from froc.errors import InputError
from search.folder import write_json


@dataclass(frozen=True)
class Opening:
    """number: which opening this is, from 1. planned: how many were announced before the first."""

    number: int
    planned: int


@dataclass(frozen=True)
class _Known:
    """What the state folder says: openings planned, and (plan, seal) of each that was made."""

    planned: int
    seals: list[tuple[str, str]]


def state_folder() -> Path:
    """Where openings are counted; FROC_STATE overrides the platform's folder."""
    return Path(os.environ.get("FROC_STATE") or platformdirs.user_state_dir("froc"))


def check(queries: Mapping[str, str], plan: str, planned: int, reopen: bool) -> Opening:
    """The opening that a search under `plan` would be, before it is made.

    plan: digest of what the search was told. The same search again will end in the same seal, which asks nothing new.
    Raises InputError where the opening was neither planned nor asked for.
    """
    known = _read(queries)
    for number, (earlier, _) in enumerate(known.seals, start=1):
        if earlier == plan:
            return Opening(number, known.planned)
    number = len(known.seals) + 1
    if number == 1:
        return Opening(1, planned)
    if number > known.planned and not reopen:
        raise InputError(
            f"these calibration queries were opened {number - 1} time(s), {known.planned} planned; fresh queries, or "
            f"the same run folder, cost nothing; --reopen goes on and says 'opening {number}' in every output"
        )
    return Opening(number, known.planned)


def record(queries: Mapping[str, str], plan: str, seal: str, planned: int, reopen: bool) -> Opening:
    """Write the opening down before a calibration loss is computed; the same seal again is no new opening."""
    place = _path(queries)
    place.parent.mkdir(parents=True, exist_ok=True)
    # two searches that open at the same moment are two openings
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _record(queries, plan, seal, planned, reopen)


def open_all(counted: Sequence[Mapping[str, str]], plan: str, seal: str | None, planned: int, reopen: bool) -> Opening:
    """`check` (no seal yet) or `record` for several sets of queries; the opening of that which was looked at most often."""
    if seal is None:
        found = [check(one, plan, planned, reopen) for one in counted]
    else:
        found = [record(one, plan, seal, planned, reopen) for one in counted]
    if len({one.planned for one in found}) > 1:
        raise InputError(
            "the task's queries and those of earlier requests were planned for different --openings; say 1"
        )
    return max(found, key=lambda one: one.number)


def by_others(queries: Mapping[str, str], plan: str) -> bool:
    """Whether a search under another plan has opened these queries, as far as this state folder knows."""
    return any(earlier != plan for earlier, _ in _read(queries).seals)


def _record(queries: Mapping[str, str], plan: str, seal: str, planned: int, reopen: bool) -> Opening:
    known = _read(queries)
    for number, (_, earlier) in enumerate(known.seals, start=1):
        if earlier == seal:
            return Opening(number, known.planned)
    # the same plan may have led to another seal (another machine): then it is a new opening after all
    opening = check(queries, f"{plan} {seal}", planned, reopen)
    seals = [*known.seals, (plan, seal)]
    write_json(_path(queries), {"planned": opening.planned, "seals": [list(pair) for pair in seals]})
    return opening


def _path(queries: Mapping[str, str]) -> Path:
    return state_folder() / "openings" / f"{digest.of_json(dict(queries))}.json"


def _read(queries: Mapping[str, str]) -> _Known:
    path = _path(queries)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _Known(int(found["planned"]), [(str(plan), str(seal)) for plan, seal in found["seals"]])
    except FileNotFoundError:
        return _Known(1, [])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; the number of openings is unknown, so none is granted") from error
