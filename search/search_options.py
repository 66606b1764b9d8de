"""Everything about a search that both doors hand in: `froc search` and `froc.search.run` make the same job of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc import extras
from froc.search.continual import predecessor
from froc.search.continual.predecessor import PredecessorOptions, expand_earlier_budget

if TYPE_CHECKING:
    from froc.data.task import Task
    from froc.search.job import Job
    from froc.search.settings import Settings
from froc.errors import InputError
from froc.search.build import Inputs, build_job, read_task, rebuild_embedded
from froc.search.machine import Machine, worker_devices
from froc.search.prior_run import PriorRun, written_options


@dataclass(frozen=True)
class SearchOptions:
    """Everything about a search beside its settings: where its run folder lies, what it works on, where trials are computed.

    predecessor: the run that it goes on after. parallel: packs of trials in flight; by default what the run folder's plan says,
    else the number of workers that were asked for or of GPUs, and at least
    `froc.search.settings.PARALLEL`. rebuild_embedded: train the embedded task's model anew. prior: the run that options and first
    trials are taken from; prior_tasks: folders of tasks that it may have searched, beside the present one.
    """

    out: Path | None = None
    task: Path | None = None
    model: str | None = None
    data: Path | None = None
    unit: Mapping[str, str] = field(default_factory=dict)
    split_seed: int | None = None
    audit_seed: int | None = None
    predecessor: PredecessorOptions = field(default_factory=PredecessorOptions)
    machine: Machine = field(default_factory=Machine)
    parallel: int | None = None
    rebuild_embedded: bool = False
    prior: PriorRun | None = None
    prior_tasks: tuple[Path, ...] = ()

    @property
    def places(self) -> dict[str, Any]:
        """What the search works on, as `options.json` keeps it: folders from wherever a later call may be made."""
        named = {"task": self.task, "data": self.data, "model": self.model}
        return {
            **{name: str(Path(place).resolve() if Path(place).exists() else place) for name, place in named.items() if place},
            "unit": dict(self.unit), "split_seed": self.split_seed,
        }  # fmt: skip

    @property
    def run_folder(self) -> Path:
        """Where the run's files go."""
        return self.predecessor.out(self.out)

    @cached_property
    def loaded(self) -> "tuple[Task, str | None] | None":
        """The task and the base model that it names; None for the embedded task. InputError for files that are no task."""
        from froc.data.tasks import embedded_text

        if self.task is None or embedded_text.request_of(str(self.task)) is not None:
            return None
        return read_task(self.task, self.data)

    def check(self) -> None:
        """InputError for a task or a model that is not there, or cannot be read."""
        from froc.models.model_name import refuse_absent

        self.machine.check()
        if self.prior is not None and self.predecessor.after is not None:
            raise InputError(
                "--like and --after contradict each other: what is gone on after chose the base model; leave one of them out"
            )
        if self.prior is None and self.prior_tasks:
            raise InputError("--like-task says what an earlier run searched; give that run: --like RUN")
        named = None if self.loaded is None else self.loaded[1]
        if self.model or named:
            refuse_absent(str(self.model or named))


def search_settings(
    options: SearchOptions, budget: Mapping[str, float], starting: Callable[[str], None] = lambda _: None, **values: Any
) -> "Settings":
    """Validated settings of a search. values: further fields of `froc.search.settings.Settings`. Raises InputError.

    starting: is called with what takes seconds, before it begins.
    """
    from dataclasses import replace

    from froc.search.earlier_plan import parallel_of
    from froc.search.run_folder import Folder
    from froc.search.settings import PARALLEL, Settings

    folder = Folder(options.run_folder)
    options.check()
    like = {} if options.prior is None else options.prior.document
    parallel = options.parallel or values.pop("parallel", None)
    settings = Settings(budget=budget, parallel=parallel or PARALLEL, like=like, **values)
    if options.predecessor.after is None:
        settings.check()
    # what can be wrong without torch was refused
    extras.require("search")
    starting("loading PyTorch")
    settings = replace(
        settings,
        budget=expand_earlier_budget(budget, options.predecessor.read()),
        parallel=parallel or parallel_of(folder) or max(PARALLEL, len(worker_devices(options.machine))),
    )
    if options.predecessor.after is not None:
        settings.check()
    folder.refuse_unwritable()
    return settings


def search_job(options: SearchOptions, settings: "Settings", progress: Callable[[str, int, int], None]) -> "Job":
    """The job of a search, the same for the command and for Python. Raises InputError."""
    from dataclasses import replace

    import torch

    from froc.models.device_map import named
    from froc.models.memory_needs import refuse_too_large
    from froc.search.earlier_plan import draw_of, label_of, questions_of
    from froc.search.run_folder import Folder

    folder, after = Folder(options.run_folder), options.predecessor.read()
    task = predecessor.request_after(options.task, after)
    if options.rebuild_embedded:
        rebuild_embedded(task, progress)
    inputs = Inputs(
        task, options.model, options.data, options.unit, options.split_seed, options.audit_seed, after,
        options.predecessor.earlier, questions=questions_of(folder), label=label_of(folder), draw=draw_of(folder.read(folder.plan)), loaded=options.loaded,
        prior=options.prior, prior_tasks=options.prior_tasks,
    )  # fmt: skip
    job = build_job(settings, inputs, options.machine, progress)
    job = replace(job, options=written_options(settings, options.places))
    workers = worker_devices(options.machine)
    if "ray" not in workers:
        devices = named(workers[0]) if workers else []
        refuse_too_large(job.base, torch.device(devices[0]) if devices else None, len(devices) or None)
    return job
