"""Work that worker processes import by name."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Work
from tests.pretend_cuda import device

PATIENCE = 240.0
"""Seconds that a worker waits for another."""


@dataclass(frozen=True)
class Trial(Work):
    """A short trial. Returns where it was computed, bytes on each device, and the mean losses of its end.

    meeting: folder where workers meet: none begins before two are there, so that none does the other's work.
    """

    meeting: Path

    def __call__(self, runner: TrialRunner) -> tuple[str, list[int], dict[str, float]]:
        """Train and measure."""
        (self.meeting / str(os.getpid())).touch()
        end = time.monotonic() + PATIENCE
        while len(list(self.meeting.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        (outcome,) = runner.run([TrialSpec("npo", {"lr": 1e-3, "epochs": 1}, 1)], [lambda *_: False])
        return str(runner.base.device), [device.allocated(number) for number in (0, 1)], outcome.ended[0].means
