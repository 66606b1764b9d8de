"""Work that worker processes import by name."""

from dataclasses import dataclass

from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Work
from tests.pretend_cuda import device


@dataclass(frozen=True)
class Trial(Work):
    """A short trial. Returns where it was computed, bytes on each device, and the mean losses of its end."""

    def __call__(self, runner: TrialRunner) -> tuple[str, list[int], dict[str, float]]:
        """Train and measure."""
        (outcome,) = runner.run([TrialSpec("npo", {"lr": 1e-3, "epochs": 1}, 1)], [lambda *_: False])
        return str(runner.base.device), [device.allocated(number) for number in (0, 1)], outcome.ended[0].means
