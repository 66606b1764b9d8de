"""A case, and how bundles are edited: by an outsider, who changes bytes, or by who holds the trusted key and signs again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from froc.audit import canonical_json
from tests.audit.conftest import Made

Attack = Callable[[Made], object]
Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Case:
    """A change of the original `of`; check: the code that refuses it; how: arguments of the verifier, from the mutant."""

    check: str
    attack: Attack
    of: str = "good"
    how: Callable[[Made], Mapping[str, Any]] = field(default=lambda made: {})


def envelope(change: Change) -> Attack:
    """Edit the report's envelope, and sign nothing."""

    def attack(made: Made) -> None:
        path = made.bundle / "report.dsse.json"
        signed = json.loads(path.read_bytes())
        change(signed)
        path.write_bytes(canonical_json.compact(signed))

    return attack


def report(change: Change) -> Attack:
    """Edit the report, list the files as they are, render the page and sign."""
    return lambda made: made.resign(change)


def statement(change: Change) -> Attack:
    """Edit the statement that holds the report, and sign it."""
    return lambda made: made.restate(change)


def edited(name: str, change: Callable[[str], str]) -> Attack:
    """Edit a text file of the bundle and sign it in."""

    def attack(made: Made) -> None:
        made.edit(name, change)
        made.resign()

    return attack


def lines(change: Callable[[list[str]], object], name: str = "losses.csv") -> Attack:
    """Edit the lines of a file, its header the first, and sign it in."""

    def change_text(text: str) -> str:
        rows = text.splitlines()
        change(rows)
        return "".join(f"{line}\n" for line in rows)

    return edited(name, change_text)


def document(name: str, change: Change) -> Attack:
    """Edit a JSON file of the bundle and sign it in."""

    def change_text(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edited(name, change_text)
