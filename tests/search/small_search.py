"""A search on the small task: its job, its listener and what its worker processes are built from."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.models.base import Base
from froc.search.executors import WorkerSpec
from froc.search.job import Job
from froc.search.optuna.space import build, choose
from froc.search.run_folder import TrialRecord
from froc.search.settings import Settings, measures
from tests.small_model import SMALL

BUDGET = {FORGETTING: 0.3, UTILITY: 0.3}


class Watch:
    """A listener that counts, and may stop the run."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.started: list[tuple[int, int]] = []
        self.stop_at = stop_at

    def planned(self, plan: Any) -> None:
        self.plan = plan

    def base_measured(self, base: Any, notes: Sequence[str]) -> None:
        self.base, self.notes = base, list(notes)

    def trial(self, line: TrialRecord, log: Sequence[TrialRecord], total: int) -> None:
        if line.status == "running":
            self.started.append((line.trial, line.attempt))
            if len(self.started) == self.stop_at:
                raise KeyboardInterrupt

    def screening(self, done: int, total: int) -> None:
        self.screened = done

    def calibrating(self, done: int, total: int) -> None:
        self.calibrated = done


_task = cache(partial(embedded_text.task, SMALL))


def job(base: Base, questions: int = 0, epochs: tuple[int, int] = (2, 4), **overrides: Any) -> Job:
    task = _task(questions)
    # of so few trials each is to know the one before
    common: dict[str, Any] = {
        "budget": BUDGET,
        "trials": 5,
        "methods": ("npo", "grad_diff"),
        "batch": 16,
        "parallel": 1,
    }
    settings = Settings(**(common | overrides))
    view, sealed = split(task, settings.share)
    methods, notes = choose(settings.methods, view)
    return Job(
        base,
        task,
        view,
        sealed,
        build(methods, {"lr": (2e-3, 8e-3), "epochs": epochs}, {}),
        settings,
        tuple(notes),
    )


class Killed(BaseException):
    """Stands in for kill -9: nothing after it runs, and the next process finds the files as they are."""


def recipe(made: Job) -> WorkerSpec:
    """How worker processes on this machine build their runner."""
    settings = made.settings
    return WorkerSpec(
        model=made.base.name, digest=made.base.digest, dtype="float32", train=settings.train, members=settings.pack,
        view=made.view, measures=measures(settings), batch=settings.batch, seed=settings.seed,
        limits=settings.steering, swept=settings.sweep,
    )  # fmt: skip
