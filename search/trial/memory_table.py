"""What a search's methods, looks and attacks need of a device's memory, as asked for, and methods with options that need less."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from froc.data.task import RISKS
from froc.measuring.measurement import Measurement
from froc.measuring.memory_simulation import needs_of_measuring
from froc.models.base import natural_dtype
from froc.models.compute import Engine
from froc.models.device_room import MARGIN
from froc.models.memory_needs import GB, MemoryNeeds, copy_on_host, device_memory
from froc.models.memory_needs import needs as least_needs
from froc.plugins import make
from froc.search.job import Job
from froc.search.settings import measures
from froc.training.base_statistics import TrainingRows
from froc.training.memory_simulation import Simulation
from froc.training.method import Method

LOG = logging.getLogger("froc")
ON_HOST = " (base copy on the host)"
RANK, LAYERS = 16, 4
"""Of the smaller choices of what trains that are counted."""


@dataclass(frozen=True)
class Options:
    """Options that decide how much memory training needs."""

    train: str
    dtype: str
    checkpointing: bool
    optimizer: str = "adamw"

    def beside(self, baseline: "Options") -> str:
        """The options of the command line in which these differ from others."""
        words = [f"--train {self.train}"] * (self.train != baseline.train)
        words += [f"--dtype {self.dtype}"] * (self.dtype != baseline.dtype)
        words += [f"--optimizer {self.optimizer}"] * (self.optimizer != baseline.optimizer)
        words += ["--checkpointing"] * (self.checkpointing and not baseline.checkpointing)
        return " ".join(words)


@dataclass(frozen=True)
class MemoryTable:
    """Needs by options, those of the command first.

    model, method: names; the method is the one that needs most. device_bytes: of the device, if known.
    train: what is trained. rows: options as written on the command line, and what the method needs with them. measuring: risk with
    its measurement, and what that needs, options as asked. unknown: methods and measurements that cannot be counted.
    """

    model: str
    method: str
    device: str
    device_bytes: int | None
    train: str
    rows: tuple[tuple[str, MemoryNeeds], ...]
    unknown: tuple[str, ...] = ()
    measuring: tuple[tuple[str, MemoryNeeds], ...] = ()

    @property
    def sentence(self) -> str:
        """What is needed, what is there, and with which options less is needed."""
        first = self.rows[0][1]
        there = "" if self.device_bytes is None else f", {self.device_bytes / GB:.3g} there"
        less = [
            f"`{options.removesuffix(ON_HOST)}` needs {needs.total / GB:.3g}"
            for options, needs in self.rows[1:]
            if needs.total < first.total
        ]
        words = f"{self.model}, {self.train}, {self.method}: {first.sentence().replace(' (', ' needed (', 1)}{there}"
        words += f"; {', '.join(less)}" if less else ""
        name, most = max(self.measuring, key=lambda row: row[1].total, default=("", first))
        return words + (f"; measuring {name} needs {most.total / GB:.3g}" if most.total > first.total else "")

    def fits(self, needs: MemoryNeeds) -> bool | None:
        """Whether the device has as much; None where its memory is not known."""
        return None if self.device_bytes is None else needs.total <= self.device_bytes

    @property
    def document(self) -> dict[str, Any]:
        """For machines; bytes."""
        rows = [{"options": options, **needs.document} for options, needs in self.rows]
        measuring = [{"risk": name, **needs.document} for name, needs in self.measuring]
        return {
            "method": self.method, "device_bytes": self.device_bytes, "options": rows, "measuring": measuring, "unknown": list(self.unknown),
        }  # fmt: skip


def memory_table(
    job: Job, *, checkpointing: bool, devices: Sequence[torch.device] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> MemoryTable:  # fmt: skip
    """Count what each method of a search needs, and what the one that needs most would need with other options.

    devices: that the model lies on while it trains, the base's by default; what is there is that of all together.
    """
    devices = devices or job.base.devices
    device, here = devices[0], device_memory(devices[0])
    count = _Count(job, device, progress)
    baseline = Options(job.settings.train, job.base.dtype, checkpointing, job.settings.optimizer)
    there = here and here * len(devices)
    training = {name: count(baseline, name) for name in job.space}
    known = {name: needs for name, needs in training.items() if needs is not None}
    method = max(known, key=lambda name: known[name].total, default="")
    room = there if device.type == "cuda" else None
    rows = [_placed("as asked", baseline, known[method] if method else least_needs(job.base), room)]
    for options in _smaller(baseline, device) if method else ():
        needs = count(options, method)
        rows += [_placed(options.beside(baseline), options, needs, room)] if needs is not None else []
    name = job.base.name.rstrip("/").rpartition("/")[2]
    free = math.inf if room is None else (1 - MARGIN) * room - rows[0][1].total
    measuring = {
        f"{risk} ({measurement})": count.measuring(baseline, risk, measurement, rows[0][1], free / len(devices))
        for risk, measurement in measures(job.settings).items()
        if risk in job.view.queries
    }
    unknown = tuple(name for name, needs in {**training, **measuring}.items() if needs is None)
    counted = tuple((name, needs) for name, needs in measuring.items() if needs is not None)
    place = "+".join(map(str, devices))
    return MemoryTable(name, method, place, there, baseline.train, tuple(rows), unknown, counted)


def _placed(written: str, options: Options, needs: MemoryNeeds, there: int | None) -> tuple[str, MemoryNeeds]:
    """A row, with the base copy where a trial would put it."""
    if copy_on_host(needs, getattr(torch, options.dtype).itemsize, options.optimizer, there):
        return written + ON_HOST, replace(needs, base_copy=0)
    return written, needs


class _Count:
    """Counts what methods need with given options; the steps of a method may be more than the meta device can do."""

    def __init__(self, job: Job, device: torch.device, progress: Callable[[str], object]) -> None:
        self._job, self._device, self._progress = job, device, progress
        self._rows = TrainingRows.of(job.view, job.base, job.settings.seed)
        self._simulations: dict[Options, Simulation] = {}

    def __call__(self, options: Options, method: str) -> MemoryNeeds | None:
        self._progress(f"counting the memory of {method}")
        try:
            return self._simulation(options).needs(make(Method, method, {}), self._job.settings.batch)
        except Exception as error:  # the meta device lacks operators, and values that a method may read
            LOG.info("the memory of %s cannot be counted: %s", method, type(error).__name__)
            return None

    def measuring(
        self, options: Options, risk: str, measurement: Measurement, trained: MemoryNeeds, free: float
    ) -> MemoryNeeds | None:
        """What measuring a risk needs after training that needed `trained`, with `free` bytes left; None where it cannot be counted."""
        self._progress(f"counting the memory of {risk}")
        try:
            needs = needs_of_measuring(self._simulation(options).base, self._job.view, risk, measurement, free)
        except Exception as error:  # as above; another model may be the judge
            LOG.info("the memory of measuring %s cannot be counted: %s", risk, type(error).__name__)
            return None
        # a trial is looked at on its way, where the optimiser's moments stay
        moments = trained.moments if risk in RISKS and not measurement.attacks else 0
        on_host = trained.base_copy == 0
        return replace(needs, moments=moments, base_copy=0 if on_host else needs.base_copy)

    def _simulation(self, options: Options) -> Simulation:
        job, engine = self._job, self._job.engine or Engine()
        if options not in self._simulations:
            if options.dtype != job.base.dtype:
                engine = replace(engine, autocast=None)
            engine = replace(engine, optimizer=options.optimizer)
            members = job.settings.pack if options.train.startswith("lora") else 1
            self._simulations[options] = Simulation(
                job.base, self._rows, engine, train=options.train, n_adapters=members, checkpointing=options.checkpointing,
                device=self._device.type, dtype=getattr(torch, options.dtype),
            )  # fmt: skip
        return self._simulations[options]


def _smaller(baseline: Options, device: torch.device) -> list[Options]:
    """Options with which less is needed, roughly in the order of how little they change."""
    adapters = Options(f"lora:rank={RANK}", natural_dtype(device.type, "lora"), False)
    layers = replace(baseline, train=f"layers:last={LAYERS}")
    options = [replace(baseline, checkpointing=True)]
    options += [Options(baseline.train, "bfloat16", True, "adamw8bit")] if not baseline.train.startswith("lora") else []
    options += [layers] if baseline.train == "full" else []
    options += [adapters, replace(adapters, checkpointing=True)] if not baseline.train.startswith("lora") else []
    return [option for option in options if option != baseline]
