"""Parsing of budgets and ranges, and printing of tables and JSON, for several commands."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO, TypeVar

import typer
from rich.console import Console

from froc.audit import PASSWORD
from froc.errors import InputError
from froc.measuring.named_risks import BASIC, COMBINED
from froc.visible import marked
from froc.visible import name as quoted

T = TypeVar("T")


def _console(stream: TextIO, stderr: bool) -> Console:
    # a pipe or a log file has no width; the default of 80 columns would fold every table
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


messages = _console(sys.stderr, stderr=True)
"""Progress and messages go to standard error, results to standard output."""
results = _console(sys.stdout, stderr=False)


def password() -> bytes | None:
    """Password of an encrypted key, only from the environment: arguments are visible in process lists."""
    secret = os.environ.get(PASSWORD)
    return secret.encode() if secret else None


def visible(text: str) -> str:
    """Text from a user's file as plain characters: no escape reaches the terminal, no bracket is taken for markup."""
    return marked(text)


def name(text: str) -> str:
    """A foreign name for the terminal: in quotes where it could be read as more than a name."""
    return marked(quoted(text))


def emit(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


def budgets(words: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """`0.1` -> the budget of every risk without one of its own; `forgetting=0.05` -> that risk's. InputError outside (0, 1).

    >>> budgets(["0.1", "forgetting=0.05"])
    (0.1, {'forgetting': 0.05})
    """
    every: float | None = None
    named: dict[str, float] = {}
    for word in words:
        risk, equals, value = word.rpartition("=")
        if equals:
            named[risk] = _share(value, "budget")
        else:
            every = _share(word, "budget")
    return every, named


def definitions(words: Sequence[str]) -> dict[str, str]:
    """`NAME=METRIC@ATTACK/POOL` (repeatable) -> name -> measurement as written; InputError for another form."""
    measurements = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text or not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) or name == COMBINED:
            raise InputError(
                f"--risk {word}: write NAME=METRIC, NAME=METRIC@ATTACK+ATTACK or NAME=METRIC/utility, the name in lower case"
            )
        measurements[name] = text
    return measurements


def rules(words: Sequence[str]) -> dict[str, str]:
    """`RISK=NAME`, `RISK=1-NAME`, `RISK=base-NAME` (repeatable) -> risk -> rule; InputError for another form."""
    by_risk: dict[str, str] = {}
    for word in words:
        risk, equals, rule = word.partition("=")
        if not equals or not rule or not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", risk) or risk == COMBINED:
            raise InputError(f"--loss {word}: write RISK=NAME, RISK=1-NAME or RISK=base-NAME, the risk in lower case")
        if risk in by_risk:
            raise InputError(f"--loss {risk} is there twice; a risk has one loss")
        by_risk[risk] = rule
    return by_risk


def per_risk(words: Sequence[str], option: str, kind: Callable[[str], T], risks: Sequence[str] = BASIC) -> dict[str, T]:
    """`RISK=VALUE`, or `VALUE` for every risk that is not named; InputError for an unknown risk or a value of another kind."""
    named: dict[str, T] = {}
    every: dict[str, T] = {}
    for word in words:
        risk, equals, value = word.partition("=")
        if ":" in risk:
            # a value without a risk is for every risk
            risk, equals, value = "", "", word
        if equals and risk not in risks:
            raise InputError(f"--{option} {word}: no risk is called {risk!r}; there are: {', '.join(risks)}")
        try:
            parsed = kind(value or word)
        except ValueError:
            raise InputError(f"--{option} {word}: {value or word!r} is no number that this option takes") from None
        if equals:
            named[risk] = parsed
        else:
            every = dict.fromkeys(risks, parsed)
    return every | named


def spaces(words: Sequence[str]) -> dict[str, tuple[float, float] | list[str]]:
    """`lr=1e-5:1e-3` -> (low, high); `lr=1e-4,3e-4` or `idk.form=dpo` -> the values as written.

    >>> spaces(["lr=1e-5:1e-3", "idk.form=dpo"])
    {'lr': (1e-05, 0.001), 'idk.form': ['dpo']}
    """
    domains: dict[str, tuple[float, float] | list[str]] = {}
    for word in words:
        key, _, span = word.partition("=")
        low, colon, high = span.partition(":")
        listed = [value.strip() for value in span.split(",")]
        if not key or not all(listed):
            raise InputError(f"--space {word} is no range; write NAME=LOW:HIGH or NAME=A,B,C, such as lr=1e-5:1e-3")
        if not colon:
            domains[key] = listed
            continue
        try:
            domains[key] = (float(low), float(high))
        except ValueError:
            raise InputError(f"--space {word} is no range; write NAME=LOW:HIGH, such as lr=1e-5:1e-3") from None
    return domains


def _share(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{option} {text!r} is no number; give an accepted risk in (0, 1), such as 0.1") from None
    if not 0 < value < 1:
        raise InputError(f"{option} {text} is outside (0, 1); give an accepted risk such as 0.1")
    return value


def seconds(text: str | None, name: str) -> float | None:
    """90, 90s, 30m or 2h in seconds; InputError for anything else.

    >>> seconds("2h", "--timeout")
    7200.0
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) == 0:
        raise InputError(f"--{name} {text} is no time; give 30m, 2h, or seconds")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
