"""Executors: where work is done, one file each.

    inline     in this process, one piece after the other
    processes  worker processes of this machine: one per GPU, or CPU workers that divide the threads
    sharded    groups of worker processes that divide a model's weights
    ray        actors on a Ray cluster (froc[ray]), for many machines

The driver submits work under a key and receives one report per key: a result, an error that the work raised, or the
loss of its worker. Only the driver writes the study, the log, the seal and the certificate; a worker holds the base
model and forgets each piece of work with its result. Drawn configurations and their order never depend on the executor,
so results do not either.
"""

import logging
import os
import pickle
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from froc.atomic import write_bytes
from froc.data.splits import SearchView
from froc.errors import FrocError, InputError
from froc.measuring.measurement import Measurement
from froc.models.base import load, measured_as
from froc.models.compute import Engine
from froc.models.determinism import enable, prepare
from froc.models.memory import advice, leave_group, out_of_memory
from froc.models.weights_digest import FILE_SUFFIXES
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Work

LOG = logging.getLogger("froc")
TRIES = 3
"""Number of workers that one piece of work may lose."""
START = "measuring the base model on the search queries"
"""What a worker does before its first piece of work, as messages about too little memory say it."""


@dataclass(frozen=True)
class Report:
    """The end of a piece of work: its result, the error it raised, or why its worker was lost."""

    key: int
    result: Any = None
    error: Exception | None = None
    lost: str | None = None


@dataclass(frozen=True)
class WorkerSpec:
    """How a worker builds its runner.

    model: a folder or hub id, or the files of such a folder.
    digest: of the base model.
    """

    model: str | Mapping[str, bytes] = field(repr=False)
    digest: str
    dtype: str
    train: str
    members: int
    view: SearchView = field(repr=False)
    measures: Mapping[str, Measurement]
    batch: int
    seed: int
    limits: Mapping[str, float]
    swept: bool
    autocast: str | None = None
    measure_dtype: str | None = None
    attention: str | None = None
    deterministic: bool = False
    optimizer: str = "adamw"
    checkpointing: bool = False
    compiled: bool = False

    def runner(self, device: str | None, folder: Path) -> TrialRunner:
        """Load the base model on a device. folder: empty, for the model's files if they are included."""
        name = self.model if isinstance(self.model, str) else str(folder)
        for file, content in {} if isinstance(self.model, str) else self.model.items():
            write_bytes(folder / file, content)
        if self.deterministic:
            prepare()
            enable()
        base = load(
            name, device=device, dtype=self.dtype, train=self.train, n_adapters=self.members, attention=self.attention,
            deterministic=self.deterministic,
        )  # fmt: skip
        if base.digest != self.digest:
            raise InputError("a worker's base model is another than the driver's; give all machines the same files")
        base = measured_as(base, self.measure_dtype)
        engine = Engine.of(
            base.model,
            autocast=self.autocast,
            checkpointing=self.checkpointing,
            compiled=self.compiled,
            optimizer=self.optimizer,
        )
        return TrialRunner(
            base, self.view, self.measures, batch=self.batch, seed=self.seed, limits=self.limits, swept=self.swept,
            engine=engine,
        )  # fmt: skip

    def shipped(self) -> "WorkerSpec":
        """The specification with the model's files included, for machines that do not see this one's disk."""
        if not isinstance(self.model, str) or not Path(self.model).is_dir():
            return self
        files = [path for path in sorted(Path(self.model).iterdir()) if path.suffix in FILE_SUFFIXES]
        return replace(self, model={path.name: path.read_bytes() for path in files})


class Executor(ABC):
    """Does work on `workers` workers at once."""

    workers: int = 1
    remote: bool = False
    """Whether workers may not see the run folder, so that parameters travel."""

    @abstractmethod
    def submit(self, key: int, work: Work) -> None:
        """Queue a piece of work; first come, first served."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> list[Report]:
        """Work that has ended since the last call; waits for at least one, or for `timeout` seconds."""

    @abstractmethod
    def withdraw(self, keep: Collection[int] = ()) -> list[int]:
        """Take back the work that no worker has begun, but for the keys to keep; returns the others."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources; running work is dropped."""

    def each(self, works: Sequence[Work], done: Callable[[int], None] = lambda _: None) -> list[Any]:
        """The results of these pieces of work, in order; lost workers are replaced. Raises what the work raised."""
        for key, work in enumerate(works):
            self.submit(key, work)
        results: dict[int, Any] = {}
        losses = dict.fromkeys(range(len(works)), 0)
        while len(results) < len(works):
            for report in self.wait():
                if report.error is not None:
                    raise report.error
                if report.lost is not None:
                    losses[report.key] += 1
                    LOG.warning("a worker was lost (%s), time %d for this work", report.lost, losses[report.key])
                    if losses[report.key] == TRIES:
                        raise FrocError(f"workers were lost {TRIES} times at the same work ({report.lost})")
                    self.submit(report.key, works[report.key])
                    continue
                results[report.key] = report.result
                done(len(results))
        return [results[key] for key in range(len(works))]


class WorkerPool(Executor):
    """Workers of its own; work waits until one is free."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._queue: deque[tuple[int, Work]] = deque()

    def submit(self, key: int, work: Work) -> None:
        """Queue it, or send it to a free worker."""
        self._queue.append((key, work))
        self._hand_out()

    def withdraw(self, keep: Collection[int] = ()) -> list[int]:
        """Of the queue."""
        return take_back(self._queue, keep)

    def wait(self, timeout: float | None = None) -> list[Report]:
        """Wait for the workers' reports."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            reports = self._listen()
            self._hand_out()
            if reports or (end is not None and time.monotonic() >= end):
                return reports
            if not self._queue and self._idle():
                return reports

    @abstractmethod
    def _hand_out(self) -> None:
        """Send queued work to free workers."""

    @abstractmethod
    def _listen(self) -> list[Report]:
        """The workers' reports within about a second; replaces lost workers."""

    @abstractmethod
    def _idle(self) -> bool:
        """Whether no worker is busy."""


def take_back(queue: deque[tuple[int, Work]], keep: Collection[int]) -> list[int]:
    """Remove work from a queue, but for the keys to keep; returns the keys of what was removed."""
    keys = [key for key, _ in queue if key not in keep]
    kept = [item for item in queue if item[0] in keep]
    queue.clear()
    queue.extend(kept)
    return keys


def attempt(key: int, work: Work, runner: TrialRunner) -> Report:
    """Do work on a runner; an error becomes a report that can be sent."""
    try:
        return Report(key, result=work(runner))
    except Exception as error:  # the driver handles it
        if out_of_memory(error):
            leave_group()
            return Report(key, error=InputError(advice(work.activity)))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some libraries' errors cannot be pickled
            return Report(key, error=FrocError(f"a worker failed with {type(error).__name__}"))
        return Report(key, error=error)


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
