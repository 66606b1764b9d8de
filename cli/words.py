"""What several commands share: budgets, ranges, and JSON on standard output."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import typer
from rich.console import Console

from froc.errors import InputError

RISKS = ("forgetting", "utility")


def _console(stream: TextIO, stderr: bool) -> Console:
    # a pipe or a log file has no width of its own: 80 columns would fold every table
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 120)


messages = _console(sys.stderr, stderr=True)
"""Progress and messages go to standard error; results to standard output."""
results = _console(sys.stdout, stderr=False)


def emit(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


def budget(words: Sequence[str], risks: Sequence[str] = RISKS) -> dict[str, float]:
    """`0.1` for every risk, or `forgetting=0.05` `utility=0.1`; both may be mixed, the named one wins.

    Raises InputError for what is no number in (0, 1) or names no risk.
    """
    every: float | None = None
    named: dict[str, float] = {}
    for word in words:
        risk, given, value = word.rpartition("=")
        alpha = _share(value or word, "budget")
        if not given:
            every = alpha
        elif risk in risks:
            named[risk] = alpha
        else:
            raise InputError(f"no risk is called {risk!r}; there are: {', '.join(risks)}")
    missing = [risk for risk in risks if risk not in named]
    if every is None and missing:
        raise InputError(f"no budget for {missing[0]}; add --budget {missing[0]}=0.1, or one --budget for every risk")
    return {risk: named.get(risk, every or 0.0) for risk in risks}


def ranges(words: Sequence[str]) -> dict[str, tuple[float, float]]:
    """`lr=1e-5:1e-3` or `npo.beta=0.05:0.5` -> key -> (low, high)."""
    found = {}
    for word in words:
        key, _, span = word.partition("=")
        low, colon, high = span.partition(":")
        try:
            found[key] = (float(low), float(high if colon else low))
        except ValueError:
            raise InputError(f"--space {word} is no range; write NAME=LOW:HIGH, such as lr=1e-5:1e-3") from None
    return found


def pairs(words: Sequence[str], option: str) -> dict[str, str]:
    """`forgetting=rouge_l` or plain `rouge_l` for every risk."""
    found: dict[str, str] = {}
    for word in words:
        risk, given, value = word.rpartition("=")
        if given and risk not in RISKS:
            raise InputError(f"--{option} {word}: no risk is called {risk!r}; there are: {', '.join(RISKS)}")
        found |= {risk: value} if given else dict.fromkeys((r for r in RISKS if r not in found), value)
    return found


def _share(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{what} {text!r} is no number; give an accepted risk in (0, 1), such as 0.1") from None
    if not 0 < value < 1:
        raise InputError(f"{what} {text} is outside (0, 1); give an accepted risk such as 0.1")
    return value
