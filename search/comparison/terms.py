"""The terms of a comparison, and the runs and configurations that take part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from froc.configuration_id import ConfigurationId
from froc.data.task import RISKS
from froc.errors import InputError
from froc.search.run_folder import Folder, TrialRecord
from froc.search.sealed import ranking

if TYPE_CHECKING:
    from froc.search.job import Job

MAX_FRONT_POINTS = 8
"""Largest number of points of one method's front that are measured on calibration queries."""


@dataclass(frozen=True)
class Terms:
    """The settings of a comparison.

    levels: of retained performance, each in (0, 1].
    confidence: of the reported intervals and differences.
    tries: configurations per method that are trained again.
    methods: to compare; all of the runs' by default.
    openings: planned openings of the calibration queries.
    reopen: accept a further, unplanned opening.
    """

    levels: tuple[float, ...] = (0.95, 0.9)
    confidence: float = 0.9
    tries: int = 3
    methods: tuple[str, ...] = ()
    openings: int = 1
    reopen: bool = False

    def check(self) -> None:
        """InputError for values out of range."""
        for level in self.levels:
            if not 0 < level <= 1:
                raise InputError(f"retained performance {level:g} is outside (0, 1]; give shares such as 0.95")
        if len(set(self.levels)) < len(self.levels) or not self.levels:
            raise InputError("give each level of retained performance once")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence {self.confidence:g} is outside (0, 1)")
        if self.tries < 1 or self.openings < 1:
            raise InputError("tries and openings are counted from 1")


@dataclass(frozen=True)
class ComparedRun:
    """A run, finished or not, whose trials are compared. job: its task and model, with this run's settings."""

    name: str
    folder: Folder
    plan: Mapping[str, Any]
    job: "Job"


@dataclass(frozen=True)
class ComparedConfig:
    """A training run that takes part.

    name: in the comparison.
    stop: step at which it ends; None for the end of training.
    """

    name: str
    method: str
    side: ComparedRun
    record: TrialRecord
    stop: int | None


@dataclass(frozen=True)
class MixPoint:
    """A configuration at a mix. means: risk -> mean search loss. kept: retained performance on search queries."""

    entry: str
    method: str
    mix: float
    means: Mapping[str, float]
    kept: float

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.entry}@{self.mix:.4f}"


def entries(runs: Sequence[ComparedRun], terms: Terms) -> list[ComparedConfig]:
    """The configurations that take part: of each method the best on search queries, one per training run."""
    by_method: dict[str, list[tuple[float, ComparedConfig]]] = {}
    for side in runs:
        budget = {risk: alpha for risk, alpha in side.plan["budget"].items() if risk in RISKS}
        for record in side.folder.log():
            known = [
                configuration
                for configuration in record.configurations()
                if record.status == "complete" and configuration.search
            ]
            if not known or (terms.methods and record.method not in terms.methods):
                continue
            best = min(known, key=lambda configuration: ranking.excess(configuration.search or {}, budget))
            name = str(ConfigurationId.parse(best.config).unmixed)
            entry = ComparedConfig(
                f"{side.name}/{name}" if len(runs) > 1 else name, record.method, side, record, best.params.get("stop")
            )
            by_method.setdefault(record.method, []).append((ranking.excess(best.search or {}, budget), entry))
    missing = [method for method in terms.methods if method not in by_method]
    if missing:
        raise InputError(f"no finished trial of {missing[0]} in these runs; there are: {', '.join(sorted(by_method))}")
    if len(by_method) < 2:
        raise InputError(f"a comparison needs two methods with finished trials; here there is {len(by_method)}")
    ranked = {
        method: sorted(pairs, key=lambda pair: pair[0])[: terms.tries] for method, pairs in sorted(by_method.items())
    }
    return [entry for pairs in ranked.values() for _, entry in pairs]
