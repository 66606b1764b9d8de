"""Everything about a search that both doors hand in: `froc search` and `froc.search.run` make the same job of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.search import continuation
from froc.search.continuation import ContinuationOptions, expand_earlier_budget

if TYPE_CHECKING:
    from froc.search.job import Job
    from froc.search.settings import Settings
from froc.search.build import Inputs, Machine, build_job, rebuild_embedded, worker_devices


@dataclass(frozen=True)
class SearchOptions:
    """Everything about a search beside its settings: where its run folder lies, what it works on, where trials are computed.

    continuation: the run that it goes on after. parallel: packs of trials in flight; by default what the run folder's plan says,
    else the number of workers. rebuild_embedded: train the embedded task's model anew.
    """

    out: Path | None = None
    task: Path | None = None
    model: str | None = None
    data: Path | None = None
    unit: Mapping[str, str] = field(default_factory=dict)
    split_seed: int | None = None
    audit_seed: int | None = None
    continuation: ContinuationOptions = field(default_factory=ContinuationOptions)
    machine: Machine = field(default_factory=Machine)
    parallel: int | None = None
    rebuild_embedded: bool = False

    @property
    def run_folder(self) -> Path:
        """Where the run's files go."""
        return self.continuation.out(self.out)


def search_settings(options: SearchOptions, budget: Mapping[str, float], **values: Any) -> "Settings":
    """Validated settings of a search. values: further fields of `froc.search.settings.Settings`. Raises InputError."""
    from froc.search.plan import parallel_of
    from froc.search.run_folder import Folder
    from froc.search.settings import Settings

    folder = Folder(options.run_folder)
    parallel = options.parallel or parallel_of(folder) or max(1, len(worker_devices(options.machine)))
    budget = expand_earlier_budget(budget, options.continuation.read())
    settings = Settings(budget=budget, parallel=parallel, **values)
    settings.check()
    folder.refuse_unwritable()
    return settings


def search_job(options: SearchOptions, settings: "Settings", progress: Callable[[str, int, int], None]) -> "Job":
    """The job of a search, the same for the command and for Python. Raises InputError."""
    from froc.search.plan import draw_of, label_of
    from froc.search.run_folder import Folder

    folder, after = Folder(options.run_folder), options.continuation.read()
    task = continuation.request_after(options.task, after)
    if options.rebuild_embedded:
        rebuild_embedded(task, progress)
    inputs = Inputs(
        task, options.model, options.data, options.unit, options.split_seed, options.audit_seed, after,
        options.continuation.earlier, label=label_of(folder), draw=draw_of(folder.read(folder.plan)),
    )  # fmt: skip
    return build_job(settings, inputs, options.machine, progress)
