"""Files of the opening ledger: a key and one file per opening, in the user's state folder."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from froc import hashing
from froc.atomic import lock, write_bytes
from froc.errors import InputError

Rows = Mapping[str, frozenset[str]]
"""pool -> digests of rows' normal forms (`froc.data.normal_form.content`)."""


DIGITS = 24
"""Hexadecimal digits of a keyed digest that are stored: enough that a million rows do not collide."""


@dataclass(frozen=True)
class Counted:
    """What identifies the queries of an opening.

    opened: the queries that it opens. searched: those that its search has measured, which are not fresh for later openings.
    ids: names of opened queries in the run's loss table, by risk. older: digests of whole pools, as older versions counted.
    """

    opened: Rows
    searched: Rows = field(default_factory=dict)
    ids: Rows = field(default_factory=dict)
    older: tuple[Mapping[str, str], ...] = ()


class _File(BaseModel):
    """A file of the ledger. key: fingerprint of the key that its digests use."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    key: str


class _Look(_File):
    """An opening. plan: digest of the search's settings; seal: of its seal. queries: pool -> keyed digests of all queries that it
    measured; ids: keyed digests of the names of the opened ones."""

    format: Literal[1] = 1
    plan: str
    seal: str
    number: int = Field(ge=1)
    planned: int = Field(ge=1)
    queries: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(min_length=1)
    ids: list[str] = []


class _Count(_File):
    """The number of openings, so that deleted files are noticed."""

    format: Literal[1] = 1
    looks: int = Field(ge=0)


class _Table(_File):
    """Rows that were certified under one set of options: how often, and the place of the first time among all such files."""

    format: Literal[1] = 1
    options: str
    place: int = Field(ge=1)
    times: int = Field(ge=1)
    queries: list[str]


Kind = TypeVar("Kind", bound=_File)


@dataclass(frozen=True)
class _Ledger:
    """Content of the state folder. before: openings of these queries that older versions counted, as (plan, seal, planned)."""

    key: bytes
    looks: tuple[_Look, ...]
    before: tuple[tuple[str, str, int], ...]


def state_folder() -> Path:
    """The folder of the ledger; FROC_STATE overrides the platform's folder."""
    return Path(os.environ.get("FROC_STATE") or platformdirs.user_state_dir("froc"))


def _place() -> Path:
    return state_folder() / "openings"


def _looks() -> Path:
    return _place() / "looks"


@contextmanager
def _locked() -> Iterator[None]:
    """Exclusive access to the ledger."""
    try:
        _place().mkdir(parents=True, exist_ok=True, mode=0o700)
        held = lock(_place() / "lock")
    except OSError as error:
        raise InputError(
            f"openings are counted in {state_folder()}, which cannot be written ({error.strerror}); set FROC_STATE to a folder "
            "that can, and keep it"
        ) from error
    with held:
        yield


def _read(counted: Counted) -> _Ledger:
    """The ledger, checked; InputError where it is damaged."""
    paths = sorted(_looks().glob("*.json")) if _looks().is_dir() else []
    if [path.name for path in paths] != [f"{number:06d}.json" for number in range(1, len(paths) + 1)]:
        raise _damaged(_looks())
    key = _key(bool(paths))
    looks = tuple(_parsed(path, _Look, key) for path in paths)
    count = _place() / "count.json"
    # a process that was killed between the two writes leaves one opening more than counted
    if count.exists() and not 0 <= len(paths) - _parsed(count, _Count, key).looks <= 1:
        raise _damaged(_looks())
    known = [_older(queries) for queries in counted.older]
    # openings cover all pools of a search, so the largest count includes the others
    return _Ledger(key, looks, max(known, key=len, default=()))


def _key(needed: bool) -> bytes:
    """The machine's secret key; created where there is none. needed: whether openings exist, so that it must be there."""
    path = _place() / "key"
    try:
        text = path.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{64}\n", text):
            return bytes.fromhex(text.strip())
    except FileNotFoundError:
        if not needed:
            key = secrets.token_bytes(32)
            write_bytes(path, f"{key.hex()}\n".encode("ascii"), mode=0o600)
            return key
    except ValueError:
        pass
    raise _damaged(path)


def _parsed(path: Path, kind: type[Kind], key: bytes) -> Kind:
    try:
        document = kind.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise _damaged(path) from error
    if document.key != _fingerprint(key):
        raise _damaged(path)
    return document


def _fingerprint(key: bytes) -> str:
    return hashing.hmac_sha256(key, "fingerprint")[:16]


def _older(queries: Mapping[str, str]) -> tuple[tuple[str, str, int], ...]:
    """Openings of the same queries that an older version counted, by the digest of whole pools."""
    path = _place() / f"{hashing.sha256_json(dict(queries))}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return tuple((str(plan), str(seal), int(document["planned"])) for plan, seal in document["seals"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged; the number of openings is unknown, so none is granted")
