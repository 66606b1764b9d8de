"""How often these calibration queries have been looked at. Looking again spends confidence again.

Counted by the queries' digest in the user's state folder. The same seal twice is one opening: it asks nothing new.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from froc import digest
from froc.errors import InputError
from search.folder import write_json


@dataclass(frozen=True)
class Opening:
    """number: which opening this is, from 1. planned: how many were announced before the first."""

    number: int
    planned: int


def state_folder() -> Path:
    """Where openings are counted; FROC_STATE overrides the platform's folder."""
    return Path(os.environ.get("FROC_STATE") or platformdirs.user_state_dir("froc"))


def check(queries: Mapping[str, str], planned: int, reopen: bool) -> Opening:
    """The opening that a *new* seal would be. Raises InputError where it was neither planned nor asked for."""
    known = _read(queries)
    number = len(known["seals"]) + 1
    if number == 1:
        return Opening(1, planned)
    if number > known["planned"] and not reopen:
        raise InputError(
            f"these calibration queries were opened {number - 1} time(s), {known['planned']} planned; fresh queries, or "
            f"the same run folder, cost nothing; --reopen goes on and says 'opening {number}' in every output"
        )
    return Opening(number, known["planned"])


def record(queries: Mapping[str, str], seal: str, planned: int, reopen: bool) -> Opening:
    """Write the opening down before a calibration loss is computed; the same seal again is no new opening."""
    known = _read(queries)
    if seal in known["seals"]:
        return Opening(known["seals"].index(seal) + 1, known["planned"])
    opening = check(queries, planned, reopen)
    write_json(_path(queries), {"planned": opening.planned, "seals": [*known["seals"], seal]})
    return opening


def _path(queries: Mapping[str, str]) -> Path:
    return state_folder() / "openings" / f"{digest.of_json(dict(queries))}.json"


def _read(queries: Mapping[str, str]) -> dict[str, Any]:
    path = _path(queries)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"planned": int(found["planned"]), "seals": list(found["seals"])}
    except FileNotFoundError:
        return {"planned": 1, "seals": []}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; the number of openings is unknown, so none is granted") from error
