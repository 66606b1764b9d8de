"""The work of a worker. A piece of work is a value that travels to a worker and runs on its `TrialRunner`, without keeping state.

Workers on the driver's machine write parameters into the run folder; others (`folder` is None) return them.
"""

import math
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import torch

from froc import hashing, timestamp
from froc.configuration_id import ConfigurationId
from froc.data.task import Query
from froc.loss_table import SCHEMA
from froc.measuring.agreement import Disagreement, disagreements
from froc.measuring.query_losses import absences, measured
from froc.models import process_group
from froc.models.base import write_weights
from froc.models.device_room import reset_peak
from froc.models.stored_weights import StoredWeights
from froc.models.trainable import Weights
from froc.risk.positive_control import BASE
from froc.search.optuna.pruning import TrialPruner
from froc.search.run_folder import Folder, TrialRecord
from froc.search.sealed import ranking
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.checkpoint import Saver

KeptWeights = Path | Weights
"""Parameters of a configuration: their file, or themselves."""


class Work(ABC):
    """A piece of work.

    limit: seconds that each of its trials may take; None for no limit.
    activity: what it does, as messages about too little memory say it.
    """

    limit: float | None = None
    activity: ClassVar[str] = "a trial"

    @property
    def trials(self) -> int:
        """Number of trials in it."""
        return 1

    @abstractmethod
    def __call__(self, runner: TrialRunner) -> Any:
        """Do it; the result is sent back."""


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    record: its entry in the log.
    table: its search losses; None unless complete.
    queries: losses over budgets of the queries that each rung measured.
    weights: config -> parameters that would be needed if the search ended now, where the worker has not written them
        itself.
    notes: for the log.
    """

    record: TrialRecord
    table: pl.DataFrame | None
    queries: list[list[float]]
    weights: dict[str, Weights] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainPack(Work):
    """Trials trained in the same passes, each with its pruner.

    leaderboard: what would be sealed if the search ended now.
    limits: steering budgets, where they differ from the runner's (budgets relative to the base model's score).
    """

    records: tuple[TrialRecord, ...]
    pruners: tuple[TrialPruner, ...]
    leaderboard: ranking.Leaderboard
    folder: Path | None
    limit: float | None = None
    limits: Mapping[str, float] | None = None

    @property
    def trials(self) -> int:
        """The number of records."""
        return len(self.records)

    def __call__(self, runner: TrialRunner) -> list[TrialResult]:
        """Train and measure; a trial's failure is its result."""
        runner.steer(self.limits)
        # until now they may have waited for a worker
        records = [replace(record, started=timestamp.stamp()) for record in self.records]
        specs = [TrialSpec(record.method, record.params, record.seed) for record in records]
        meter = _Meter(runner.base.devices)
        saver = None if self.folder is None else saver_of(self.records, self.folder)
        outcomes = runner.run(specs, [pruner.begin() for pruner in self.pruners], self.limit, saver)
        used = meter.read(len(specs))
        leaderboard = self.leaderboard
        done = []
        for record, outcome in zip(records, outcomes, strict=True):
            ended = replace(_ended(record, outcome), resources=used)
            table = _table(runner, ended, outcome)
            weights: dict[str, Weights] = {}
            if table is not None:
                leaderboard = leaderboard.with_trials([ended], ranking.sums(table))
                weights = self._keep(runner, ended, outcome, leaderboard)
            done.append(TrialResult(ended, table, outcome.queries, weights, tuple(saver.notes) if saver else ()))
        return done

    def _keep(
        self, runner: TrialRunner, record: TrialRecord, outcome: Outcome, leaderboard: ranking.Leaderboard
    ) -> dict[str, Weights]:
        """Keep the parameters of current candidates."""
        wanted = {candidate.config for candidate in leaderboard.candidates}
        kept: dict[str, Weights] = {}
        for configuration, point in zip(record.configurations(), outcome.ended, strict=True):
            if configuration.config in wanted:
                runner.put(outcome, point.step, point.mix)
                kept |= _keep(runner, configuration.config, self.folder)
        return kept


@dataclass(frozen=True)
class Retrain(Work):
    """Train a candidate again whose parameters were not kept, with its seed, without measuring it."""

    activity: ClassVar[str] = "training a candidate again"

    config: str
    spec: TrialSpec
    stop: int | None
    mix: float
    folder: Path | None
    limits: Mapping[str, float] | None = None

    def __call__(self, runner: TrialRunner) -> dict[str, Weights]:
        """Train and keep the parameters."""
        runner.steer(self.limits)
        runner.retrain(self.spec, self.stop, self.mix)
        return _keep(runner, self.config, self.folder)


@dataclass(frozen=True)
class Measure(Work):
    """Measure a candidate on queries of a split. places: risk -> indices of the measured queries."""

    activity: ClassVar[str] = "measuring a candidate"

    split: str
    config: str
    kept: KeptWeights = field(repr=False)
    queries: Mapping[str, tuple[Query, ...]] = field(repr=False)
    places: Mapping[str, Sequence[int]]

    def __call__(self, runner: TrialRunner) -> pl.DataFrame:
        """The candidate's loss table."""
        opened = runner.opened(self.queries)
        runner.base.trainable.activate([0])
        runner.base.trainable.load(StoredWeights(self.kept) if isinstance(self.kept, Path) else self.kept)
        present = [probe for probe in opened if len(self.places[probe.risk])]
        losses = measured(runner.base, present, self.places)
        chosen = {p.risk: tuple(p.queries[i] for i in self.places[p.risk]) for p in present}
        return runner.table(self.config, self.split, chosen, losses) if present else pl.DataFrame(schema=SCHEMA)


@dataclass(frozen=True)
class MeasureBase(Work):
    """Measure the base model on queries of a split: the positive control (`froc.risk.positive_control`)."""

    activity: ClassVar[str] = "measuring the base model"

    split: str
    queries: Mapping[str, tuple[Query, ...]] = field(repr=False)

    def __call__(self, runner: TrialRunner) -> pl.DataFrame:
        """Its absences, as a loss table."""
        opened = runner.opened(self.queries)
        return runner.table(BASE, self.split, self.queries, absences(runner.base, opened))


@dataclass(frozen=True)
class Agreement:
    """Whether generation and measurement agree on the base model.

    prompt: the prompt format in words, without any row's text.
    likelihood: risk -> geometric mean over answer tokens.
    disagreements: queries on which generated text and measurement differ (`froc.measuring.agreement`).
    n_queries: number of queries checked.
    environment: how whoever checked computes, as plans say it; workers may have other devices than the driver.
    """

    prompt: str
    likelihood: Mapping[str, float]
    disagreements: tuple[Disagreement, ...]
    n_queries: int
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckPrompt(Work):
    """Check a few search queries on the base model by plain generation, beside the measurement."""

    activity: ClassVar[str] = "checking the prompt on the base model"

    def __call__(self, runner: TrialRunner) -> Agreement:
        """The result of the check."""
        base, form = runner.base, runner.view.template
        base.restore()
        differing: list[Disagreement] = []
        n_queries = 0
        with base.measuring():
            for probe in runner.probes:
                more, count = disagreements(base.model, base.tokenizer, probe.plain.queries, probe.rows, form)
                differing, n_queries = [*differing, *more], n_queries + count
        likelihood = {risk: math.exp(-average.loss) for risk, average in runner.start.items()}
        return Agreement(form.describe(base.tokenizer), likelihood, tuple(differing), n_queries, base.environment)


class _Meter:
    """A trial's use of the machine."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._cuda = [device for device in devices if device.type == "cuda"]
        for device in self._cuda:
            reset_peak(device)
        self._cpu = time.process_time()

    def read(self, trials: int) -> dict[str, float]:
        """cpu_seconds: of all threads, per trial; peak_mb: of the fullest device, or of the worker's process since it began."""
        if self._cuda:
            peak = float(max(map(torch.cuda.max_memory_allocated, self._cuda)))
        else:
            # Linux counts in KiB, macOS in bytes
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
        return {"cpu_seconds": round((time.process_time() - self._cpu) / trials, 3), "peak_mb": round(peak / 2**20, 1)}


def _keep(runner: TrialRunner, config: str, folder: Path | None) -> dict[str, Weights]:
    weights = runner.base.trainable.changed()
    if folder is None:
        return {config: weights}
    # of processes that divide a model, the first has what they know together
    if process_group.rank() == 0:
        write_weights(weights, Folder(folder).weights(config))
    return {}


def _table(runner: TrialRunner, record: TrialRecord, outcome: Outcome) -> pl.DataFrame | None:
    if not outcome.ended:
        return None
    return pl.concat(
        runner.table(configuration.config, "search", {p.risk: p.queries for p in runner.probes}, point.tables)
        for configuration, point in zip(record.configurations(), outcome.ended, strict=True)
    )


def _ended(record: TrialRecord, outcome: Outcome) -> TrialRecord:
    plain = outcome.ended[0] if outcome.ended else None
    variants = [
        {
            "config": str(ConfigurationId(record.trial).variant(point.step, point.mix)), "stop": point.step, "mix": point.mix,
            "search": point.means, "averages": point.averages,
        }
        for point in outcome.ended[1:]
    ]  # fmt: skip
    return replace(
        record, status=outcome.status, reason=outcome.reason, ended=timestamp.stamp(), steps=outcome.steps, seconds=outcome.seconds, resumed=outcome.resumed,
        search=plain.means if plain else None, rungs=outcome.rungs, averages=plain.averages if plain else None, variants=variants,
    )  # fmt: skip


def saver_of(records: Sequence[TrialRecord], folder: Path) -> Saver:
    """Saver of trials that train together, the same for all their attempts."""
    started_with = [[record.plan, record.config, record.method, record.params, record.seed] for record in records]
    return Saver(Folder(folder).training(records[0].config), hashing.sha256_json(started_with))
