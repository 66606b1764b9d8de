"""Speed of trials on a model and device: a few steps and one measurement are timed, and a whole trial is projected from them.

Timing costs little more than the timed steps: one measurement serves all methods, and slow models get fewer steps and queries.
"""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from froc.errors import InputError
from froc.measuring.query_losses import observe_probe
from froc.models.device_room import reset_peak
from froc.models.memory import out_of_memory
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import RUNGS, TrialRunner
from froc.search.trial.sweep import NO_SWEEP, Effort, first_of
from froc.training.loop import train_pack

WARM = 2
"""Steps before the clock starts: first calls allocate, compile and tune."""
SLOW = 1.0
"""Seconds of a step or a measurement above which less is timed and more is extrapolated."""
LONGEST = 10.0
"""Seconds of timed steps of one method that are enough."""
FEWEST = 2
"""Fewest timed steps, however long they take."""


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


def measure(
    runner: TrialRunner, method: str, steps: int, look: float, params: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Speed:  # fmt: skip
    """Time at most `steps` steps after a warm-up. InputError where memory does not hold one row.

    look: seconds of one measurement, from `look_seconds`. progress: called with a line about each step.
    """
    spec = TrialSpec(method, params or {}, 0)
    device = runner.base.device
    reset_peak(device)
    members = range(runner.base.trainable.n_adapters)
    runner.engine.rows = None
    clock = _Clock(runner, steps, lambda text: progress(f"timing {method}, {text}"))
    try:
        runs = [runner.prepared(spec, clock.callbacks(adapter_index), adapter_index) for adapter_index in members]
        clock.start()
        train_pack(runner.base, runs, runner.engine)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"{method}: not enough memory; try --train lora:rank=8, --checkpointing or a smaller --batch"
        ) from error
    first = runs[0]
    step = clock.per_step / len(members)
    rest = _looks(runner, first.rows) * look
    return Speed(
        method,
        first.steps,
        step,
        look,
        first.steps * step + rest,
        _peak(device),
        min(runner.engine.rows or first.batch_size, first.batch_size),
    )


def look_seconds(runner: TrialRunner) -> float:
    """Seconds to measure a configuration on all search queries.

    Of a slow model only the first queries are measured, since the others take as long each. `runner` has measured its base model,
    so nothing is compiled or allocated for the first time.
    """
    first = {probe.risk: first_of(probe) for probe in runner.probes}
    part = _timed(runner, lambda: [observe_probe(runner.base, probe, first[probe.risk]) for probe in runner.probes])
    whole = part * sum(len(probe.rows) for probe in runner.probes) / sum(map(len, first.values()))
    if whole > SLOW:
        return whole
    return _timed(runner, lambda: [observe_probe(runner.base, probe) for probe in runner.probes])


def _looks(runner: TrialRunner, rows: int) -> float:
    """A trial's rungs and sweep in units of measurements of all search queries. rows: that it trains on."""
    effort = Effort.of(runner.probes, rows) if runner.swept else NO_SWEEP
    first = sum(len(first_of(p)) for p in runner.probes) / sum(len(p.rows) for p in runner.probes)
    stops = len(RUNGS) + 1
    return stops * effort.looks * first + (1 + effort.kept) * (1 - first)


class _Clock:
    """Times the steps of a pack of runs, and ends them."""

    def __init__(self, runner: TrialRunner, steps: int, progress: Callable[[str], None]) -> None:
        self._runner, self._steps, self._progress = runner, steps, progress
        self._times: list[float] = []

    def callbacks(self, adapter_index: int) -> dict[int, Callable[[], bool]]:
        """Step -> what a run calls after it. The first run's are called first and read the time; the others end with it."""
        after = self._after if adapter_index == 0 else self._ended
        return dict.fromkeys(range(1, WARM + self._steps + 1), after)

    def start(self) -> None:
        """Read the time before the first step."""
        _settle(self._runner)
        self._times = [time.perf_counter()]

    @property
    def per_step(self) -> float:
        """Seconds of one step, or of an edit without steps; those of the warm-up count where there are no others."""
        if len(self._times) == 1:
            _settle(self._runner)
            return time.perf_counter() - self._times[0]
        warm = min(self._warm, len(self._times) - 2)
        return (self._times[-1] - self._times[warm]) / (len(self._times) - 1 - warm)

    @property
    def _warm(self) -> int:
        """Steps before the clock starts: one where a step is slow, for its first calls weigh little."""
        return 1 if len(self._times) > 1 and self._times[1] - self._times[0] > SLOW else WARM

    def _after(self) -> bool:
        _settle(self._runner)
        self._times.append(time.perf_counter())
        done = len(self._times) - 1
        self._progress(f"step {done}: {self._times[-1] - self._times[-2]:.3g} s")
        return self._ended()

    def _ended(self) -> bool:
        timed = len(self._times) - 1 - self._warm
        return timed >= self._steps or (timed >= FEWEST and self._times[-1] - self._times[self._warm] > LONGEST)


def _timed(runner: TrialRunner, work: Callable[[], Any]) -> float:
    _settle(runner)
    begin = time.perf_counter()
    work()
    _settle(runner)
    return time.perf_counter() - begin


def _settle(runner: TrialRunner) -> None:
    if runner.base.device.type == "cuda":
        torch.cuda.synchronize(runner.base.device)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)
