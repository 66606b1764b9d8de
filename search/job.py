"""What a search works on, the listener to its progress, and the trial runner of this process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from froc.data.splits import Sealed, SearchView
from froc.data.task import Task
from froc.models.base import Base
from froc.models.compute import Engine
from froc.search.continual.chain import RunChain
from froc.search.executors import Executor
from froc.search.executors.inline import Inline
from froc.search.external_model import ExternalModel
from froc.search.optuna.space import Spaces
from froc.search.plan import Plan
from froc.search.run_folder import TrialRecord
from froc.search.settings import Settings, measures
from froc.search.trial.runner import TrialRunner


class Listener(Protocol):
    """Follows a job, for instance to draw progress."""

    def planned(self, plan: Plan) -> None:
        """Before the first trial."""

    def base_measured(self, base: Mapping[str, Any], notes: Sequence[str]) -> None:
        """The base model was measured on search queries, before the first trial. base: `froc.risk.positive_control.document`."""

    def trial(self, line: TrialRecord, log: Sequence[TrialRecord], total: int) -> None:
        """A trial started or ended."""

    def screening(self, done: int, total: int) -> None:
        """A configuration has been measured under the further risks, on search queries."""

    def calibrating(self, done: int, total: int) -> None:
        """A candidate has been measured on the calibration queries."""


@dataclass(frozen=True)
class Job:
    """What a search works on. workers: makes what trials run on; is handed what makes a runner of this process.

    external: an unlearned model from elsewhere, which is measured instead of searching for one. after: the run that made the
    base model; original: loads the model before all removals, for the curve alone (None where there is none). progress: is
    called with (what, done, of) before the first trial and after each step in this process; (message, 0, 0) is said once. options: content of
    the run folder's `options.json`. rates: learning rates that were measured, see `froc.search.optuna.learning_rates`.
    """

    base: Base
    task: Task
    view: SearchView
    sealed: Sealed
    space: Spaces
    settings: Settings
    notes: tuple[str, ...] = ()
    engine: Engine | None = None
    workers: Callable[[Callable[[], TrialRunner]], Executor] = Inline
    external: ExternalModel | None = None
    after: RunChain | None = None
    original: Callable[[], Base | None] | None = None
    progress: Callable[[str, int, int], None] = lambda *_: None
    rates: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def runner_of(job: Job) -> TrialRunner:
    """What this process's trials run on."""
    settings = job.settings
    return TrialRunner(
        job.base, job.view, measures(settings), batch=settings.batch, seed=settings.seed,
        limits=settings.steering, swept=settings.sweep, engine=job.engine, progress=job.progress,
    )  # fmt: skip
