"""Where and how trials are computed: this process, worker processes, or a Ray cluster; on which devices, with how many threads."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from froc.errors import InputError
from froc.models.determinism import prepare
from froc.models.training_options import ATTENTIONS, DTYPES, FLASH

if TYPE_CHECKING:
    from froc.models.base import Base
    from froc.search.executors import Executor
    from froc.search.job import Job
    from froc.search.settings import Settings

SMALL_MODEL = 64 * 2**20
"""Bytes of parameters up to which worker processes of one thread each beat one process with all threads, and are cheap in memory."""
MIN_TRIALS = 8
"""Number of trials that repay the start of worker processes, about five seconds of a processor each."""
EXECUTORS = ("auto", "inline", "processes", "sharded", "ray", "ray://HOST:PORT")


@dataclass(frozen=True)
class Machine:
    """Where and how trials are computed; None: by device.

    executor: auto takes a process per GPU where there are several. worker_gpus: of each Ray worker. cpu_workers: whether auto may start worker processes for a small
    model on the CPU, too; these import the main module anew, for which a command is made and a user's script may not be.
    attention, deterministic: see `froc.models.base.load`. gpus_per_trial: devices that a model's blocks are divided among.
    """

    device: str | None = None
    dtype: str | None = None
    checkpointing: bool = False
    compiled: bool = False
    executor: str = "auto"
    workers: int | None = None
    worker_gpus: float | None = None
    cpu_workers: bool = False
    attention: str | None = None
    deterministic: bool = False
    gpus_per_trial: int = 1

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
        if self.attention is not None and self.attention not in ATTENTIONS:
            raise InputError(f"no attention is called {self.attention!r}; there are: {', '.join(ATTENTIONS)}")
        if self.device is not None:
            refuse_flash(self.attention, self.device)
        if self.deterministic:
            if self.compiled:
                raise InputError(
                    "--deterministic and --compile exclude each other: compiled kernels may add in any order"
                )
            prepare()
        self._refuse_split()
        if self.device is not None and not re.fullmatch(r"[a-z]+(:[0-9]+)?", self.device):
            raise InputError(f"--device {self.device} is no device; write cpu, cuda, cuda:1 or mps")

    def _refuse_split(self) -> None:
        """InputError for several GPUs per trial beside options that say something else."""
        if self.gpus_per_trial < 1:
            raise InputError(f"--gpus-per-trial {self.gpus_per_trial} is too few; give at least 1")
        if self.executor == "sharded" and self.gpus_per_trial < 2:
            raise InputError("--executor sharded divides a model among processes; say how many with --gpus-per-trial 2")
        if self.executor == "sharded" and self.deterministic is False and self.device != "cpu":
            raise InputError(
                "the processes of --executor sharded have to come to the same numbers; give --deterministic with it on GPUs"
            )
        if (
            self.gpus_per_trial > 1
            and self.device not in (None, "cuda")
            and (self.executor, self.device) != ("sharded", "cpu")
        ):
            raise InputError(
                f"--gpus-per-trial divides a model among cuda devices from the first on; leave --device {self.device} out"
            )
        if self.gpus_per_trial > 1 and self.executor.startswith("ray"):
            raise InputError("--gpus-per-trial is for the GPUs of one machine; leave --executor ray out")
        if self.gpus_per_trial > 1 and self.compiled:
            raise InputError("--gpus-per-trial and --compile do not go together; leave one of the two out")


def refuse_flash(attention: str | None, device: str) -> None:
    """InputError, before a model is loaded, for flash attention where the models will not lie on a GPU."""
    if attention == FLASH and not device.startswith("cuda"):
        raise InputError(
            f"--attention {FLASH} needs an NVIDIA or AMD GPU, and the device is {device}; leave --attention out, or write sdpa"
        )


def worker_devices(machine: Machine) -> list[str]:
    """The device of each worker process; none where trials run in this process. InputError for what is not there."""
    from froc.search.executors import cores

    machine.check()
    if machine.executor.startswith("ray"):
        return ["ray"] * ray_workers(machine)[0]
    gpus = _gpus(machine)
    count = machine.workers or (len(gpus) if gpus else cores())
    if machine.executor == "sharded":
        return gpus[: machine.workers]
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


def own_device(machine: Machine) -> str | None:
    """The device, or devices joined by a plus sign, of trials in this process; None for the default."""
    return _gpus(machine)[0] if machine.gpus_per_trial > 1 else machine.device


def _gpus(machine: Machine) -> list[str]:
    """A trial's device or devices, for as many trials at once as there are devices."""
    import torch

    from froc.models import base as models
    from froc.models.device_map import SEPARATOR

    device, each = machine.device, machine.gpus_per_trial
    if each > 1 and device == "cpu":
        return [SEPARATOR.join(["cpu"] * each)]
    if each > 1:
        there = torch.cuda.device_count()
        if there < each:
            raise InputError(
                f"--gpus-per-trial {each}: torch {torch.__version__} sees {there} cuda devices here; give at most as many"
            )
        numbers = range(0, there - each + 1, each)
        return [SEPARATOR.join(f"cuda:{first + place}" for place in range(each)) for first in numbers]
    if device is not None:
        models.refuse_absent_device(device)
        return [device] if device.startswith("cuda") else []
    return [f"cuda:{place}" for place in range(torch.cuda.device_count())]


def small_model_workers(machine: Machine, settings: "Settings", base: "Base") -> list[str]:
    """The device of each worker process that trains a small model on the CPU although nobody asked for one; none where that does not pay.

    None either where the user has set the number of threads, and so says how much of the machine to take.
    """
    from froc.search.executors import cores

    size = sum(parameter.numel() * parameter.element_size() for parameter in base.model.parameters())
    unasked = machine.cpu_workers and machine.executor == "auto" and machine.workers is None
    count = min(cores(), settings.parallel)
    pays = base.device.type == "cpu" and count > 1 and settings.trials >= MIN_TRIALS and size <= SMALL_MODEL
    return ["cpu"] * count if unasked and pays and "OMP_NUM_THREADS" not in os.environ else []


def executor_maker(
    job: "Job", machine: Machine, crew: list[str], threads: int | None = None
) -> "Callable[..., Executor]":
    from froc.search.executors import WorkerSpec
    from froc.search.executors.processes import Processes
    from froc.search.settings import measures

    settings, base = job.settings, job.base
    recipe = WorkerSpec(
        model=base.name, digest=base.digest, dtype=base.dtype, train=settings.train, members=settings.pack,
        view=job.view, measures=measures(settings), batch=settings.batch, seed=settings.seed,
        limits=settings.steering, swept=settings.sweep, autocast=settings.autocast, measure_dtype=settings.measure_dtype,
        optimizer=settings.optimizer,
        checkpointing=machine.checkpointing, compiled=machine.compiled, attention=machine.attention,
        deterministic=machine.deterministic,
    )  # fmt: skip
    if machine.executor == "sharded":
        from froc.search.executors.sharded import Sharded, refuse_unfit

        refuse_unfit(settings, machine.compiled)
        return lambda _: Sharded(recipe, crew)
    if crew[0] != "ray":
        return lambda _: Processes(recipe, crew, threads=threads)
    share = ray_workers(machine)[1]

    def actors(_: object) -> "Executor":
        from froc.search.executors.ray import Ray

        return Ray(recipe, _ray_address(machine), len(crew), gpus=share)

    return actors


def device_kind(machine: Machine, crew: list[str]) -> str:
    return crew[0].partition("+")[0] if crew[0] != "ray" else ("cuda" if ray_workers(machine)[1] else "cpu")
