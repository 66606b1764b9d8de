"""A user's inputs and settings -> a job: task, split, search space, base model on its device, engine."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from froc.errors import InputError
from froc.models.training_options import FLASH
from froc.search.continual import predecessor
from froc.search.machine import (
    Machine,
    device_kind,
    executor_maker,
    own_device,
    refuse_flash,
    small_model_workers,
    worker_devices,
)

if TYPE_CHECKING:
    from froc.data.splits import Draw
    from froc.data.task import Task, Unit
    from froc.search.continual.chain import RunChain
    from froc.search.job import Job
    from froc.search.prior_run import PriorRun
    from froc.search.settings import Settings

UNSEEDED_AT_DEFAULT = (
    "population", "sample", "weights", "radius", "sequential", "objective", "weighing", "train", "pack", "sweep", "autocast", "measure_dtype", "optimizer",
    "parallel", "until", "later", "relative", "extendable", "series", "before", "like",
)  # fmt: skip
"""Settings that came later: where they are not used, the embedded task's questions stay what they were."""


@dataclass(frozen=True)
class Inputs:
    """What a search works on, as a user names it.

    task: task folder, a benchmark's NAME:PART whose files are in `data`, or the hub's hf:ORG/NAME; the embedded task without it. model: path or hub id of
    the base model. unit: risk -> `query`, `group` or `queries-by-group`. split_seed: seed of the split, by default the task's;
    audit_seed: the same, given by an auditor. after: the run whose model is the base; earlier: task folders of what it and
    the runs before it removed. questions: seed of the embedded task's queries; by default it follows from the settings, so that
    every plan has its own. label: what query ids are renamed by, empty for the ids of the draw; by default it follows from the draw and
    the base model (`froc.plan_identity.draw_label`). draw: how the run folder's plan
    divides the queries. loaded: the task that `task` names and its base model, where they were read already. prior, prior_tasks: see
    `froc.search.search_options.SearchOptions`.
    """

    task: Path | None = None
    model: str | None = None
    data: Path | None = None
    unit: Mapping[str, str] = field(default_factory=dict)
    split_seed: int | None = None
    audit_seed: int | None = None
    after: "RunChain | None" = None
    earlier: Sequence[Path] = ()
    questions: int | None = None
    label: str | None = None
    draw: "Draw" = "by-row"
    loaded: "tuple[Task, str | None] | None" = None
    prior: "PriorRun | None" = None
    prior_tasks: Sequence[Path] = ()


def build_job(
    settings: "Settings", inputs: Inputs, machine: Machine, progress: Callable[[str, int, int], None]
) -> "Job":  # fmt: skip
    """Everything a search works on: task, split, search space, base model on its device, engine.

    progress: is called with (what, done, of) while the embedded model is made. Raises InputError for a task, model or option that does
    not go together.
    """
    from dataclasses import replace

    from froc.data.splits import renamed, split
    from froc.data.tasks import embedded_text
    from froc.data.tasks import folder as folders
    from froc.measuring.query_losses import refuse_unfit
    from froc.measuring.screening import refuse_rows
    from froc.models import base as models
    from froc.models.compute import Engine
    from froc.plan_identity import draw_label
    from froc.search import prior_run
    from froc.search.continual import chain as afters
    from froc.search.job import Job
    from froc.search.optuna import space as spaces
    from froc.search.optuna.trainable_space import fitting
    from froc.search.settings import measures
    from froc.training import embedded

    crew = worker_devices(machine)
    refuse_flash(machine.attention, device_kind(machine, crew) if crew else machine.device or models.default_device())
    units = {risk: _unit(kind) for risk, kind in inputs.unit.items()}
    folder, model, data, after = inputs.task, inputs.model, inputs.data, inputs.after
    split_seed, audit_seed, questions, label = inputs.split_seed, inputs.audit_seed, inputs.questions, inputs.label
    request = embedded_text.request_of("embedded" if folder is None else str(folder))
    if request is not None and model is not None:
        raise InputError("--model needs --task: the embedded task brings its own model")
    if request is not None and data is not None:
        raise InputError("--data needs --task NAME:PART, the benchmark whose files it holds (froc list benchmarks)")
    if questions is None:
        questions = _questions(settings) if after is None else afters.seed(_questions(settings), after)
    if folder is None or request is not None:
        task, named = embedded_text.task(questions=questions, request=request or 1), None
    else:
        task, named = inputs.loaded or read_task(folder, data)
    task = replace(task, units={**task.units, **units})
    if split_seed is not None and audit_seed is not None:
        raise InputError("--audit-seed is the seed of the split; leave --split-seed out")
    seed = split_seed if audit_seed is None else audit_seed
    if seed is not None and abs(seed) >= 10**40:
        raise InputError("the seed of the split has more than 40 digits, which no report can hold; give a shorter one")
    if seed is not None:
        task = replace(task, split_seed=seed, audited=audit_seed is not None)
    original = None
    if after is not None:
        names = (model, named, *(folders.load(path)[1] for path in inputs.earlier))
        original, ours = predecessor.original(after, names, cache_folder(), machine.device, machine.dtype, progress)
        task = predecessor.with_earlier(task, after, inputs.earlier, questions, ours)
    measured = measures(settings)
    sample = {
        risk: settings.sample[measurement.pool]
        for risk, measurement in measured.items()
        if measurement.pool in settings.sample
    }
    view, sealed = split(
        task,
        settings.share,
        sample,
        {risk: measurement.source for risk, measurement in measured.items()},
        settings.later,
        inputs.draw,
        prior_run.splits_of(settings, task),
    )
    if inputs.prior is not None:
        prior_run.refuse_overlap(settings, task, [read_task(path, data)[0] for path in inputs.prior_tasks])
    refuse_unfit(view, measured)
    wants_retrained = _asks_for_retrained(settings.methods)
    if request == 1 and after is None and wants_retrained:
        retrained_model = embedded.made(cache=cache_folder(), progress=progress, retrained=True)
        view = replace(view, retrained=str(retrained_model))
    methods, notes = spaces.choose(settings.methods, view)
    space = spaces.build(methods, task.space, settings.space)
    if inputs.prior is not None:
        settings = prior_run.with_first_trials(inputs.prior, settings, space)
    if settings.sampler == "grid":
        settings = replace(settings, trials=min(settings.trials, spaces.size(space)))
    # where others train, this process only writes what they hand over
    device = "cpu" if crew else own_device(machine)
    dtype = machine.dtype or (models.natural_dtype(device_kind(machine, crew), settings.train) if crew else None)
    scope: Any = {
        "train": settings.train, "n_adapters": settings.pack, "deterministic": machine.deterministic,
        # what needs a GPU is chosen where the workers are
        "attention": None if crew and machine.attention == FLASH else machine.attention,
    }  # fmt: skip
    progress("loading the model", 0, 1)
    if after is not None:
        base = models.load(str(after.model), device=device, dtype=dtype, **scope)
    elif request is not None:
        base = embedded.base(cache=cache_folder(), device=device or models.default_device(), progress=progress, **scope)
    elif model or named:
        base = models.load(str(model or named), device=device, dtype=dtype, **scope)
    else:
        raise InputError("no base model; give --model PATH_OR_HUB_ID, or model = ... in task.toml")
    progress("loading the model", 1, 1)
    base = models.measured_as(base, settings.measure_dtype)
    space, unfit = fitting(space, base, settings.methods, settings.train)
    refuse_rows(base, task, view, measured)
    if wants_retrained and view.retrained is not None:
        models.refuse_unlike(base, Path(view.retrained))
    if label is None:
        label = draw_label(task.digest, task.split_seed, base.digest)
    if label:
        view, sealed = renamed(view, sealed, task, label)
    engine = Engine.of(
        base.model,
        autocast=settings.autocast,
        checkpointing=machine.checkpointing,
        compiled=machine.compiled,
        optimizer=settings.optimizer,
    )
    made = Job(
        base,
        task,
        view,
        sealed,
        space,
        settings,
        (*_groupless(task), *notes, *unfit, *base.notes),
        engine,
        after=after,
        original=original,
        progress=progress,
    )
    if small := [] if crew else small_model_workers(machine, settings, base):
        return replace(made, workers=executor_maker(made, machine, small, threads=1))
    return replace(made, workers=executor_maker(made, machine, crew)) if crew else made


def _groupless(task: "Task") -> list[str]:
    """A note for each pool whose unit is the group and some of whose rows name none."""
    without = {
        pool: sum(not row.group for row in rows) for pool, rows in task.queries.items() if task.units[pool] != "query"
    }
    return [
        f"{count} of {len(task.queries[pool])} {pool} queries name no group: together they count as one group; give each its own"
        for pool, count in without.items()
        if count
    ]


def _asks_for_retrained(methods: Sequence[str]) -> bool:
    """Whether a search shall try the control that takes a minute to be made."""
    from froc.plugins import canonical_name, find
    from froc.search.optuna.space import group
    from froc.training.method import Method

    return any(
        find(Method, name).loads_retrained for word in methods for name in group(word) or [canonical_name(Method, word)]
    )


def read_task(folder: Path, data: Path | None) -> "tuple[Task, str | None]":
    """The task and the base model that it names; InputError for files that are no task. folder, data: as `Inputs` has them."""
    from froc.data import benchmarks
    from froc.data.tasks import folder as folders
    from froc.data.tasks import hub

    if str(folder).startswith(hub.SCHEME):
        if data is not None:
            raise InputError(f"--data goes with a benchmark's --task NAME:PART; {folder} is a data set of the hub")
        return hub.load(str(folder)), None
    if benchmarks.named(str(folder)):
        return benchmarks.read(str(folder), data), None
    if data is not None:
        raise InputError(f"--data goes with --task NAME:PART; {folder} is a task folder of its own, leave --data out")
    return folders.load(folder)


def _unit(text: str) -> "Unit":
    if text == "query":
        return "query"
    if text == "group":
        return "group"
    if text == "queries-by-group":
        return "queries-by-group"
    raise InputError(f"--unit {text}: no unit is called {text!r}; there are: query, group, queries-by-group")


def _questions(settings: "Settings") -> int:
    from dataclasses import asdict

    from froc import hashing
    from froc.search.settings import Settings

    plain = asdict(Settings(settings.budget))
    values = {
        key: value
        for key, value in asdict(settings).items()
        if key not in ("reopen", "openings", "timeout", "trial_timeout", "storage", "allow_vacuous")
        and not (key in UNSEEDED_AT_DEFAULT and value == plain[key])
    }
    # what is tried unasked was called all when there was no more
    older = {"standard": "all", "all": "every"}
    values["methods"] = tuple(older.get(word, word) for word in settings.methods)
    return int(hashing.sha256_json(values)[:8], 16)


def rebuild_embedded(task: Path | None, progress: Callable[[str, int, int], None]) -> None:
    """Train the embedded task's model anew into the cache. InputError where the task is another."""
    from froc.data.tasks import embedded_text
    from froc.training import embedded

    if embedded_text.request_of("embedded" if task is None else str(task)) is None:
        raise InputError("--rebuild-embedded is for the embedded task; leave it away, or --task")
    embedded.rebuilt(cache=cache_folder(), progress=progress)


def cache_folder() -> Path:
    """Where the embedded model is kept; FROC_CACHE overrides the platform's folder."""
    return Path(os.environ.get("FROC_CACHE") or platformdirs.user_cache_dir("froc"))
