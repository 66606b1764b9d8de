"""Speed of trials on a model and device: a few steps and one measurement are timed, and a whole trial is projected from them."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from froc.errors import InputError
from froc.measuring.query_losses import observe_probe
from froc.models.compute import out_of_memory
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import RUNGS, TrialRunner
from froc.search.trial.sweep import NO_SWEEP, Effort, first_of
from froc.training.loop import train_pack

WARM = 2
"""Steps before the clock starts: first calls allocate, compile and tune."""


@dataclass(frozen=True)
class Speed:
    """Speed of one method's trials.

    step: seconds of one optimiser step of one configuration (a pack's step divided by its size).
    look: seconds to measure one configuration on all search queries.
    trial: projected seconds of a whole trial with default epochs: steps, rungs, sweep.
    outside: share of the trial outside optimiser steps.
    peak: MiB, of the device's allocator on cuda, else of the process.
    rows: rows per role that fit in a pass.
    """

    method: str
    steps: int
    step: float
    look: float
    trial: float
    peak: float
    rows: int

    @property
    def outside(self) -> float:
        """Share of a trial's time outside optimiser steps."""
        return 1.0 - self.steps * self.step / self.trial

    @property
    def document(self) -> dict[str, Any]:
        """Its part of `froc bench --json`."""
        return {
            "method": self.method, "steps_per_trial": self.steps, "steps_per_second": 1 / self.step,
            "seconds_per_step": self.step, "seconds_per_look": self.look, "seconds_per_trial": self.trial,
            "trials_per_hour": 3600 / self.trial, "share_outside_steps": self.outside, "peak_memory_mib": self.peak,
            "rows_per_pass": self.rows,
        }  # fmt: skip


def measure(runner: TrialRunner, method: str, steps: int, params: Mapping[str, Any] | None = None) -> Speed:
    """Time `steps` steps after a warm-up, and one measurement. InputError where memory does not hold one row."""
    spec = TrialSpec(method, params or {}, 0)
    clock = _Clock(runner, WARM, WARM + steps)
    device = runner.base.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    members = range(runner.base.trainable.n_adapters)
    try:
        runs = [
            runner.prepared(spec, clock.rungs() if adapter_index == 0 else {WARM + steps: _stop}, adapter_index)
            for adapter_index in members
        ]
        begin = time.perf_counter()
        train_pack(runner.base, runs, runner.engine)
        _settle(runner)
        whole = time.perf_counter() - begin
        looked = _timed(runner, lambda: [observe_probe(runner.base, probe) for probe in runner.probes])
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"{method}: not enough memory; try --train lora:rank=8, --checkpointing or a smaller --batch"
        ) from error
    first = runs[0]
    # a training shorter than the warm-up is timed as a whole
    step = (clock.seconds / clock.done if clock.done else whole / max(1, first.done)) / len(members)
    rest = _looks(runner, first.rows) * looked
    return Speed(
        method,
        first.steps,
        step,
        looked,
        first.steps * step + rest,
        _peak(device),
        min(runner.engine.rows or first.batch_size, first.batch_size),
    )


def _looks(runner: TrialRunner, rows: int) -> float:
    """A trial's rungs and sweep in units of measurements of all search queries. rows: that it trains on."""
    effort = Effort.of(runner.probes, rows) if runner.swept else NO_SWEEP
    first = sum(len(first_of(p)) for p in runner.probes) / sum(len(p.rows) for p in runner.probes)
    stops = len(RUNGS) + 1
    return stops * effort.looks * first + (1 + effort.kept) * (1 - first)


class _Clock:
    """Reads the time at two steps of a run."""

    def __init__(self, runner: TrialRunner, first: int, last: int) -> None:
        self._runner, self._first, self._last = runner, first, last
        self._begin = self.seconds = 0.0
        self.done = 0

    def rungs(self) -> dict[int, Callable[[], bool]]:
        """Callbacks that start and stop the clock."""
        return {self._first: self._start, self._last: self._end}

    def _start(self) -> bool:
        _settle(self._runner)
        self._begin = time.perf_counter()
        return False

    def _end(self) -> bool:
        _settle(self._runner)
        self.seconds, self.done = time.perf_counter() - self._begin, self._last - self._first
        return True


def _timed(runner: TrialRunner, work: Callable[[], Any]) -> float:
    work()
    _settle(runner)
    begin = time.perf_counter()
    work()
    _settle(runner)
    return time.perf_counter() - begin


def _settle(runner: TrialRunner) -> None:
    if runner.base.device.type == "cuda":
        torch.cuda.synchronize(runner.base.device)


def _stop() -> bool:
    return True


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)
