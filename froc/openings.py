"""How often queries have been looked at, query by query. Looking again spends confidence again. Torch-free.

Counted in the user's state folder (FROC_STATE), for every row apart: by a keyed digest of its normal form (`froc.normal_form`)
and its pool. So the same queries in another file, order, spelling or group, with a row more or less, or asked of another base
model, are further looks. The key is a secret of this machine, made at first use: who reads the ledger without it cannot try
texts against it. Each look is a file of its own, numbered without gaps, that appears whole or not at all; a ledger that is
damaged in any way grants nothing.

The same seal twice is one opening: it asks nothing new. Queries of earlier requests are a pool of their own: the same part of
them may be opened again beside another task. That a part was opened by none of the runs that led to the base model is no
matter of counting, but of which part is taken (`froc.earlier`).

Older versions counted whole pools, in a file each; those openings count as well, where a task's queries are still the same.
"""

import fcntl
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from froc import digest
from froc.errors import InputError
from froc.files import lock_file, write_bytes, write_text
from froc.normal_form import normal_form

Rows = Mapping[str, frozenset[str]]
"""pool -> digests of rows' normal forms (`froc.normal_form.content`)."""
DIGITS = 24
"""Hexadecimal digits of a keyed digest that are written down: a million rows share none by chance."""
MOST = 20_000
"""Rows of a table that are counted: of more, those with the smallest digests, which are the same in every table."""


@dataclass(frozen=True)
class Counted:
    """What an opening is counted by.

    opened: the queries that it opens. searched: those that its search has looked at, which later openings may not take for
    fresh ones. ids: names of opened queries in the run's loss table, by risk. older: digests of whole pools, by which older
    versions counted.
    """

    opened: Rows
    searched: Rows = field(default_factory=dict)
    ids: Rows = field(default_factory=dict)
    older: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Opening:
    """number: which opening this is, from 1. planned: how many were announced before the first. again: how many of the `of`
    queries had been looked at before."""

    number: int
    planned: int
    again: int = 0
    of: int = 0

    @property
    def overlap(self) -> str:
        """The overlap in a sentence; empty where everything is fresh."""
        if not self.again:
            return ""
        return f"{self.again} of {self.of} of these queries were opened before: opening {self.number}, {self.planned} planned"


@dataclass(frozen=True)
class Certified:
    """How often rows were certified by `froc certify`, this time included. times: calls; options: different ways, in what was
    claimed or in the losses; number: which of these the present one is, in the order of their first use: the same again asks
    nothing new. sealed: whether the rows are calibration queries of a search that this machine ran. failure: why nothing could
    be counted; empty where it was."""

    times: int = 1
    options: int = 1
    number: int = 1
    sealed: bool = False
    failure: str = ""

    @property
    def sentences(self) -> list[str]:
        """What a reader must be told; nothing for a first look."""
        told = []
        if self.times > 1:
            told.append(
                f"this table was certified {self.times} times (with {self.options} different sets of options or losses)"
            )
        if self.options > 1:
            told.append(
                "whoever chooses between certificates of the same rows lets their losses choose: only what was fixed before the "
                "first look keeps its confidence"
            )
        if self.sealed:
            told.append(
                "these rows are the calibration queries of a search on this machine, which has opened them: this is a further look"
            )
        return told + ([self.failure] if self.failure else [])


class _File(BaseModel):
    """A file of the ledger. key: fingerprint of the key that it was written with."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    key: str


class _Look(_File):
    """An opening that was made. plan: digest of what the search was told; seal: of what it asked. queries: pool -> keyed
    digests of all queries that it looked at; ids: keyed digests of the names of the opened ones."""

    format: Literal[1] = 1
    plan: str
    seal: str
    number: int = Field(ge=1)
    planned: int = Field(ge=1)
    queries: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(min_length=1)
    ids: list[str] = []


class _Count(_File):
    """How many looks there are: a folder from which all of them were taken is seen to lack them."""

    format: Literal[1] = 1
    looks: int = Field(ge=0)


class _Table(_File):
    """Rows that were certified under one set of options, how often, and when first, in the order of all such files."""

    format: Literal[1] = 1
    options: str
    place: int = Field(ge=1)
    times: int = Field(ge=1)
    queries: list[str]


Kind = TypeVar("Kind", bound=_File)


@dataclass(frozen=True)
class _Ledger:
    """What the state folder says. before: looks that older versions counted of the queries at hand, as (plan, seal, planned)."""

    key: bytes
    looks: tuple[_Look, ...]
    before: tuple[tuple[str, str, int], ...]


def state_folder() -> Path:
    """Where openings are counted; FROC_STATE overrides the platform's folder."""
    return Path(os.environ.get("FROC_STATE") or platformdirs.user_state_dir("froc"))


def check(counted: Counted, plan: str, planned: int, reopen: bool) -> Opening:
    """The opening that a search under `plan` would be, before it is made.

    plan: digest of what the search was told. The same search again will end in the same seal, which asks nothing new.
    Raises InputError where the opening was neither planned nor asked for.
    """
    with _held():
        ledger = _read(counted)
        return _known(ledger, counted, lambda by, _: by == plan) or _next(ledger, counted, planned, reopen)


def record(counted: Counted, plan: str, seal: str, planned: int, reopen: bool) -> Opening:
    """Write the opening down before a calibration loss is computed; the same seal again is no new opening.

    Two searches that open at the same moment are two openings. The same plan may have led to another seal (another machine):
    then it is a new opening after all. Raises InputError as `check` does.
    """
    with _held():
        ledger = _read(counted)
        made = _known(ledger, counted, lambda _, asked: asked == seal)
        if made is not None:
            return made
        opening = _next(ledger, counted, planned, reopen)
        look = _Look(
            key=_fingerprint(ledger.key), plan=plan, seal=seal, number=opening.number, planned=opening.planned,
            queries={pool: sorted(some) for pool, some in _keyed(ledger.key, counted.opened, counted.searched).items()},
            ids=sorted(_names(ledger.key, counted.ids)),
        )  # fmt: skip
        write_text(_looks() / f"{len(ledger.looks) + 1:06d}.json", look.model_dump_json() + "\n")
        count = _Count(key=_fingerprint(ledger.key), looks=len(ledger.looks) + 1)
        write_text(_place() / "count.json", count.model_dump_json() + "\n")
        return opening


def by_others(counted: Counted, plan: str) -> bool:
    """Whether a search under another plan has looked at any of these queries, as far as this state folder knows."""
    with _held():
        ledger = _read(counted)
    mine = _keyed(ledger.key, counted.opened)
    known = any(by != plan for by, _, _ in ledger.before)
    return known or any(look.plan != plan and _shared(look, mine) for look in ledger.looks)


def certified(rows: Rows, options: str) -> Certified:
    """Count that `froc certify` certifies these rows now: risk -> names of its queries, whatever the configuration.

    options: digest of what was asked of them. Names are compared in their normal form; those that are mere numbers say nothing
    of their rows, so that as many of them must be there as well. Where the state folder cannot be
    written or is damaged, the answer says so, and nothing fails: a table's certificate is the caller's own affair.
    """
    try:
        with _held():
            return _certified(rows, options)
    except (OSError, InputError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Certified(failure=f"how often this table was certified could not be counted ({why})")


def _certified(rows: Rows, options: str) -> Certified:
    ledger = _read(Counted({}))
    mine = set(sorted(_names(ledger.key, {risk: _told(some) for risk, some in rows.items()}))[:MOST])
    folder = _place() / "certified"
    files = {path: _parsed(path, _Table, ledger.key) for path in sorted(folder.glob("*.json"))}
    own = digest.of_json([sorted(mine), options])[:32]
    before = files.get(folder / f"{own}.json")
    kept = _Table(
        key=_fingerprint(ledger.key), options=options, place=before.place if before else len(files) + 1,
        times=1 + (before.times if before else 0), queries=sorted(mine),
    )  # fmt: skip
    write_text(folder / f"{own}.json", kept.model_dump_json() + "\n")
    alike = [table for path, table in files.items() if path.stem != own and not mine.isdisjoint(table.queries)] + [kept]
    first: dict[str, int] = {}
    for table in alike:
        first[table.options] = min(first.get(table.options, table.place), table.place)
    # the largest count over the rows that are certified now
    counts: Counter[str] = Counter()
    for table in alike:
        counts.update(dict.fromkeys(mine.intersection(table.queries), table.times))
    return Certified(
        times=max(counts.values(), default=1),
        options=len(first),
        number=sorted(first, key=first.__getitem__).index(options) + 1,
        sealed=any(not mine.isdisjoint(look.ids) for look in ledger.looks),
    )


def _known(ledger: _Ledger, counted: Counted, same: Callable[[str, str], bool]) -> Opening | None:
    """The opening of these very queries that was made under the same plan or seal; None where there is none."""
    mine = _keyed(ledger.key, counted.opened)
    of = sum(map(len, mine.values()))
    for number, (plan, seal, planned) in enumerate(ledger.before, start=1):
        if same(plan, seal):
            return Opening(number, planned)
    for look in ledger.looks:
        if same(look.plan, look.seal) and len(_shared(look, mine)) == of:
            return Opening(look.number, look.planned)
    return None


def _next(ledger: _Ledger, counted: Counted, planned: int, reopen: bool) -> Opening:
    """A further opening: one more than the queries at hand have had, at the plan of the looks that they had.

    Where these had different plans the smallest counts: the level of each look was at most what it says.
    """
    mine = _keyed(ledger.key, counted.opened)
    shared = [(look, _shared(look, mine)) for look in ledger.looks]
    counts = Counter(name for _, names in shared for name in names)
    of = sum(map(len, mine.values()))
    number = len(ledger.before) + max(counts.values(), default=0) + 1
    plans = [look.planned for look, names in shared if names] + [one for _, _, one in ledger.before]
    opening = Opening(number, min(plans, default=planned), of if ledger.before else len(counts), of)
    if number > 1 and number > opening.planned and not reopen:
        raise InputError(
            f"{opening.again} of {of} of these queries were opened before ({number - 1} time(s), {opening.planned} planned), in "
            "whatever file, spelling or order, and whichever model was asked: an earlier result may have led to this search. "
            "Fresh queries, or the same run folder, cost nothing; several models or searches are planned beforehand with "
            f"--openings K; --reopen goes on and says 'opening {number}' in every output"
        )
    return opening


def _shared(look: _Look, mine: Mapping[str, set[str]]) -> set[str]:
    return {f"{pool} {name}" for pool, names in mine.items() for name in names.intersection(look.queries.get(pool, ()))}


def _keyed(key: bytes, *parts: Rows) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part in parts:
        for pool, rows in part.items():
            found.setdefault(pool, set()).update(digest.keyed(key, "row", pool, row)[:DIGITS] for row in rows)
    return found


def _names(key: bytes, names: Rows) -> set[str]:
    return {digest.keyed(key, "id", risk, normal_form(name))[:DIGITS] for risk, some in names.items() for name in some}


def _told(names: frozenset[str]) -> frozenset[str]:
    """Names of a risk's queries; mere numbers with how many they are."""
    return frozenset(f"{name} of {len(names)}" for name in names) if all(map(str.isdecimal, names)) else names


def _place() -> Path:
    return state_folder() / "openings"


def _looks() -> Path:
    return _place() / "looks"


@contextmanager
def _held() -> Iterator[None]:
    """Nobody else reads or writes meanwhile."""
    try:
        _place().mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_file(_place() / "lock")
    except OSError as error:
        raise InputError(
            f"openings are counted in {state_folder()}, which cannot be written ({error.strerror}); set FROC_STATE to a folder "
            "that can, and keep it"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(counted: Counted) -> _Ledger:
    """The ledger, checked; InputError where it is damaged."""
    paths = sorted(_looks().glob("*.json")) if _looks().is_dir() else []
    if [path.name for path in paths] != [f"{number:06d}.json" for number in range(1, len(paths) + 1)]:
        raise _damaged(_looks())
    key = _key(bool(paths))
    looks = tuple(_parsed(path, _Look, key) for path in paths)
    count = _place() / "count.json"
    # a process that was killed between the two leaves one look more than were counted
    if count.exists() and not 0 <= len(paths) - _parsed(count, _Count, key).looks <= 1:
        raise _damaged(_looks())
    known = [_older(queries) for queries in counted.older]
    # a search is about all its pools at once, so that the larger count is of looks that cover the smaller
    return _Ledger(key, looks, max(known, key=len, default=()))


def _key(needed: bool) -> bytes:
    """The machine's secret; made where there is none, unless looks were written with one."""
    path = _place() / "key"
    try:
        text = path.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{64}\n", text):
            return bytes.fromhex(text.strip())
    except FileNotFoundError:
        if not needed:
            made = secrets.token_bytes(32)
            write_bytes(path, f"{made.hex()}\n".encode("ascii"), mode=0o600)
            return made
    except ValueError:
        pass
    raise _damaged(path)


def _parsed(path: Path, kind: type[Kind], key: bytes) -> Kind:
    try:
        found = kind.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise _damaged(path) from error
    if found.key != _fingerprint(key):
        raise _damaged(path)
    return found


def _fingerprint(key: bytes) -> str:
    return digest.keyed(key, "fingerprint")[:16]


def _older(queries: Mapping[str, str]) -> tuple[tuple[str, str, int], ...]:
    """Looks that an older version counted of the same queries, by the digest of whole pools."""
    path = _place() / f"{digest.of_json(dict(queries))}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return tuple((str(plan), str(seal), int(found["planned"])) for plan, seal in found["seals"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged; the number of openings is unknown, so none is granted")
