"""What is compared, and on which terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from froc.data.task import RISKS
from froc.errors import InputError
from froc.search.job import Job
from froc.search.run_folder import Folder, Started
from froc.search.sealed import ranking

MOST = 8
"""Points of one method's front that are measured on calibration queries."""


@dataclass(frozen=True)
class Terms:
    """What is asked. levels: of retained performance, in (0, 1]. tries: configurations per method that are trained again.

    methods: to compare; all of the runs' by default.
    """

    levels: tuple[float, ...] = (0.95, 0.9)
    confidence: float = 0.9
    tries: int = 3
    methods: tuple[str, ...] = ()
    openings: int = 1
    reopen: bool = False

    def check(self) -> None:
        """InputError for values out of range."""
        for one in self.levels:
            if not 0 < one <= 1:
                raise InputError(f"retained performance {one:g} is outside (0, 1]; give shares such as 0.95")
        if len(set(self.levels)) < len(self.levels) or not self.levels:
            raise InputError("give each level of retained performance once")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence {self.confidence:g} is outside (0, 1)")
        if self.tries < 1 or self.openings < 1:
            raise InputError("tries and openings are counted from 1")


@dataclass(frozen=True)
class Side:
    """A finished or unfinished run whose trials are compared. job: what they work on, with this run's settings."""

    name: str
    folder: Folder
    plan: Mapping[str, Any]
    job: Job


@dataclass(frozen=True)
class Entry:
    """A training run that takes part. name: of it in the comparison; stop: step at which it ends, None for its end."""

    name: str
    method: str
    side: Side
    line: Started
    stop: int | None


@dataclass(frozen=True)
class Point:
    """An entry at a share. means: risk -> mean search loss; kept: retained performance on search queries."""

    entry: str
    method: str
    share: float
    means: Mapping[str, float]
    kept: float

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.entry}@{self.share:.4f}"


def entries(sides: Sequence[Side], terms: Terms) -> list[Entry]:
    """The configurations that take part: of each method the likeliest on search queries, one per training run."""
    found: dict[str, list[tuple[float, Entry]]] = {}
    for side in sides:
        budget = {risk: alpha for risk, alpha in side.plan["budget"].items() if risk in RISKS}
        for line in side.folder.log():
            known = [one for one in line.configurations() if line.status == "complete" and one.search]
            if not known or (terms.methods and line.method not in terms.methods):
                continue
            best = min(known, key=lambda one: ranking.excess(one.search or {}, budget))
            name = best.config.partition("-m")[0]
            entry = Entry(
                f"{side.name}/{name}" if len(sides) > 1 else name, line.method, side, line, best.params.get("stop")
            )
            found.setdefault(line.method, []).append((ranking.excess(best.search or {}, budget), entry))
    missing = [method for method in terms.methods if method not in found]
    if missing:
        raise InputError(f"no finished trial of {missing[0]} in these runs; there are: {', '.join(sorted(found))}")
    if len(found) < 2:
        raise InputError(f"a comparison needs two methods with finished trials; here there is {len(found)}")
    ranked = {method: sorted(some, key=lambda pair: pair[0])[: terms.tries] for method, some in sorted(found.items())}
    return [entry for some in ranked.values() for _, entry in some]
