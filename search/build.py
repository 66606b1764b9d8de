"""A user's inputs and settings -> a job: task, split, search space, base model on its device, engine."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from froc.errors import InputError
from froc.models.training_options import DTYPES
from froc.search.continual import predecessor

if TYPE_CHECKING:
    from froc.data.splits import Draw
    from froc.data.task import Task, Unit
    from froc.models.base import Base
    from froc.search.continual.chain import RunChain
    from froc.search.executors import Executor
    from froc.search.job import Job
    from froc.search.settings import Settings

UNSEEDED_AT_DEFAULT = (
    "population", "sample", "weights", "radius", "sequential", "objective", "weighing", "train", "pack", "sweep", "autocast",
    "parallel", "until", "later", "relative", "before",
)  # fmt: skip
"""Settings that came later: where they are not used, the embedded task's questions stay what they were."""


SMALL_MODEL = 64 * 2**20
"""Bytes of parameters up to which worker processes of one thread each beat one process with all threads, and are cheap in memory."""
MIN_TRIALS = 8
"""Number of trials that repay the start of worker processes, about five seconds of a processor each."""
EXECUTORS = ("auto", "inline", "processes", "ray", "ray://HOST:PORT")


@dataclass(frozen=True)
class Machine:
    """Where and how trials are computed; None: by device.

    executor: auto takes a process per GPU where there are several. worker_gpus: of each Ray worker. cpu_workers: whether auto may start worker processes for a small
    model on the CPU, too; these import the main module anew, for which a command is made and a user's script may not be.
    """

    device: str | None = None
    dtype: str | None = None
    checkpointing: bool = False
    compiled: bool = False
    executor: str = "auto"
    workers: int | None = None
    worker_gpus: float | None = None
    cpu_workers: bool = False

    def check(self) -> None:
        """InputError for words that name no executor or type, and for too few workers; torch is not imported."""
        if self.executor not in EXECUTORS and not self.executor.startswith("ray://"):
            raise InputError(f"no executor is called {self.executor!r}; there are: {', '.join(EXECUTORS)}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"{self.workers} workers are too few; give at least 1")
        if self.executor == "inline" and (self.workers or 1) > 1:
            raise InputError("--executor inline has no workers; leave one of the two out")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(f"no dtype is called {self.dtype!r}; there are: {', '.join(DTYPES)}")
        if self.device is not None and not re.fullmatch(r"[a-z]+(:[0-9]+)?", self.device):
            raise InputError(f"--device {self.device} is no device; write cpu, cuda, cuda:1 or mps")


@dataclass(frozen=True)
class Inputs:
    """What a search works on, as a user names it.

    task: task folder, or a benchmark's NAME:PART whose files are in `data`; the embedded task without it. model: path or hub id of
    the base model. unit: risk -> `query`, `group` or `queries-by-group`. split_seed: seed of the split, by default the task's;
    audit_seed: the same, given by an auditor. after: the run whose model is the base; earlier: task folders of what it and
    the runs before it removed. questions: seed of the embedded task's queries; by default it follows from the settings, so that
    every plan has its own. label: what query ids are renamed by, empty for the ids of the draw; by default it follows from the draw and
    the base model (`froc.plan_identity.draw_label`). draw: how the run folder's plan
    divides the queries. loaded: the task that `task` names and its base model, where they were read already.
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
    from froc.search.continual import chain as afters
    from froc.search.executors import cores
    from froc.search.job import Job
    from froc.search.optuna import space as spaces
    from froc.search.settings import measures
    from froc.training import embedded

    crew = worker_devices(machine)
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
    )
    refuse_unfit(view, measured)
    wants_retrained = _asks_for_retrained(settings.methods)
    if request == 1 and after is None and wants_retrained:
        retrained_model = embedded.made(cache=cache_folder(), progress=progress, retrained=True)
        view = replace(view, retrained=str(retrained_model))
    methods, notes = spaces.choose(settings.methods, view)
    space = spaces.build(methods, task.space, settings.space)
    if settings.sampler == "grid":
        settings = replace(settings, trials=min(settings.trials, spaces.size(space)))
    # where others train, this process only writes what they hand over
    device = "cpu" if crew else machine.device
    dtype = machine.dtype or (models.natural_dtype(_kind(machine, crew), settings.train) if crew else None)
    scope: Any = {"train": settings.train, "n_adapters": settings.pack}
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
    refuse_rows(base, task, view, measured)
    if wants_retrained and view.retrained is not None:
        models.refuse_unlike(base, Path(view.retrained))
    if label is None:
        label = draw_label(task.digest, task.split_seed, base.digest)
    if label:
        view, sealed = renamed(view, sealed, task, label)
    engine = Engine.of(
        base.model, autocast=settings.autocast, checkpointing=machine.checkpointing, compiled=machine.compiled
    )
    made = Job(
        base,
        task,
        view,
        sealed,
        space,
        settings,
        (*notes, *base.notes),
        engine,
        after=after,
        original=original,
        progress=progress,
    )
    if not crew and _repays_cpu_workers(machine, settings, base):
        return replace(made, workers=_workers(made, machine, ["cpu"] * min(cores(), settings.parallel), threads=1))
    return replace(made, workers=_workers(made, machine, crew)) if crew else made


def _repays_cpu_workers(machine: Machine, settings: "Settings", base: "Base") -> bool:
    """Whether trials of a small model on the CPU go to worker processes although nobody asked for them.

    Not where the user has set the number of threads, and so says how much of the machine to take.
    """
    from froc.search.executors import cores

    size = sum(parameter.numel() * parameter.element_size() for parameter in base.model.parameters())
    unasked = machine.cpu_workers and machine.executor == "auto" and machine.workers is None
    return (
        unasked and base.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ
        and min(cores(), settings.parallel) > 1 and settings.trials >= MIN_TRIALS and size <= SMALL_MODEL
    )  # fmt: skip


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


def worker_devices(machine: Machine) -> list[str]:
    """The device of each worker process; none where trials run in this process. InputError for what is not there."""
    from froc.search.executors import cores

    machine.check()
    if machine.executor.startswith("ray"):
        return ["ray"] * ray_workers(machine)[0]
    gpus = _gpus(machine.device)
    count = machine.workers or (len(gpus) if gpus else cores())
    if machine.executor == "inline" or (machine.executor == "auto" and (machine.workers or len(gpus)) in (None, 0, 1)):
        return []
    return [gpus[place % len(gpus)] if gpus else "cpu" for place in range(count)]


def ray_workers(machine: Machine) -> tuple[int, float]:
    """Number of Ray workers, and GPUs of each: unless the user says otherwise, a worker for each GPU of the cluster, or for each processor."""
    from froc.search.executors.ray import resources

    if machine.workers is not None and machine.worker_gpus is not None:
        return machine.workers, machine.worker_gpus
    gpus, processors = resources(_ray_address(machine))
    share = float(gpus > 0) if machine.worker_gpus is None else machine.worker_gpus
    return machine.workers or max(1, int(gpus / share) if share else processors), share


def _ray_address(machine: Machine) -> str | None:
    return machine.executor if machine.executor.startswith("ray://") else os.environ.get("RAY_ADDRESS")


def _gpus(device: str | None) -> list[str]:
    import torch

    from froc.models import base as models

    if device is not None:
        models.refuse_absent_device(device)
        return [device] if device.startswith("cuda") else []
    return [f"cuda:{place}" for place in range(torch.cuda.device_count())]


def _workers(job: "Job", machine: Machine, crew: list[str], threads: int | None = None) -> "Callable[..., Executor]":
    from froc.search.executors import WorkerSpec
    from froc.search.executors.processes import Processes
    from froc.search.settings import measures

    settings, base = job.settings, job.base
    recipe = WorkerSpec(
        model=base.name, digest=base.digest, dtype=base.dtype, train=settings.train, members=settings.pack,
        view=job.view, measures=measures(settings), batch=settings.batch, seed=settings.seed,
        limits=settings.steering, swept=settings.sweep, autocast=settings.autocast,
        checkpointing=machine.checkpointing, compiled=machine.compiled,
    )  # fmt: skip
    if crew[0] != "ray":
        return lambda _: Processes(recipe, crew, threads=threads)
    share = ray_workers(machine)[1]

    def actors(_: object) -> "Executor":
        from froc.search.executors.ray import Ray

        return Ray(recipe, _ray_address(machine), len(crew), gpus=share)

    return actors


def _kind(machine: Machine, crew: list[str]) -> str:
    return crew[0] if crew[0] != "ray" else ("cuda" if ray_workers(machine)[1] else "cpu")


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
