"""Workers that are groups of processes, one per device, which hold a part of the model each (`froc.models.sharding`).

The driver hands every piece of work to all of a group, and listens to the first. Whatever could make them decide differently
(saved states, which are written by the clock) is left out: parameters travel to the driver.
"""

import contextlib
import os
import pickle
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from froc.errors import InputError
from froc.measuring.measurement import Measurement
from froc.models.device_map import named
from froc.search.executors import WorkerSpec, attempt
from froc.search.executors.processes import (
    Processes,
    Worker,
    end_with_driver,
    spawn,
    work_until_the_driver_is_gone,
)
from froc.search.settings import Settings

UNSUPPORTED = frozenset(
    {"advunlearn", "agt", "cure", "curvature", "fit", "gu", "guard", "k_fade", "kuda", "ofmu", "ofmu_first", "repselect", "rule", "smooth",
     "tar", "u_can"}
)  # fmt: skip
"""Methods that read or write weights and gradients in ways that divided ones do not allow, or that end elsewhere with them
(`benchmarks/sharded.py`)."""


def refuse_unfit(
    settings: Settings, methods: Iterable[str], measures: Mapping[str, Measurement], compiled: bool
) -> None:
    """InputError for what a divided model cannot do, with what to give instead."""
    unfit = sorted({word for name in methods for word in re.split(r"[()]", name)} & UNSUPPORTED)
    attacked = [risk for risk, measured in measures.items() if any(attack.changes_model for attack in measured.attacks)]
    refusals = {
        f"--methods without {', '.join(unfit)}": unfit,
        f"no --budget for {', '.join(attacked)}, whose attack changes the model": attacked,
        "no --trial-timeout, which is by each process's clock": settings.trial_timeout is not None,
        "--optimizer adamw": settings.optimizer != "adamw",
        "--train full or layers": settings.train.startswith("lora"),
        "no --compile": compiled,
    }
    for instead, present in refusals.items():
        if present:
            raise InputError(f"--executor sharded divides a model's weights among processes; give {instead}")


class Sharded(Processes):
    """A group of processes for each of the devices, which are several joined by a plus sign."""

    remote = True

    def __init__(self, recipe: WorkerSpec, devices: Sequence[str], silence: float | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._others: dict[int, list[tuple[BaseProcess, Connection]]] = {}
        self._started = 0
        super().__init__(recipe, devices, silence, threads=1)

    def close(self) -> None:
        """End the groups."""
        super().close()
        for place in list(self._others):
            self._end_others(place)
        self._folder.cleanup()

    def _start(self, place: int) -> Worker:
        self._end_others(place)
        self._started += 1
        meeting = str(Path(self._folder.name) / f"group-{self._started}")
        devices = named(str(self._devices[place]))
        (process, pipe), *self._others[place] = [
            spawn(f"froc-worker-{place}-{rank}", device, 1, serve, rank, devices, meeting, self._recipe)
            for rank, device in enumerate(devices)
        ]
        return Worker(place, process, pipe, time.monotonic())

    def _send(self, worker: Worker, packed: bytes) -> None:
        for _, pipe in self._others[worker.place]:
            pipe.send_bytes(packed)
        super()._send(worker, packed)

    def _gone(self, worker: Worker) -> str | None:
        alive = all(process.is_alive() for process, _ in self._others[worker.place])
        return super()._gone(worker) if alive else "another process of its group has ended"

    def _end_others(self, place: int) -> None:
        for process, pipe in self._others.pop(place, []):
            process.kill()
            process.join()
            pipe.close()


def serve(pipe: Connection, rank: int, devices: Sequence[str], meeting: str, recipe: bytes) -> None:
    """Main function of a process of a group; the first of them talks to the driver."""
    from froc.models import sharding

    def runner(folder: Path) -> Any:
        sharding.join(rank, len(devices), Path(meeting), devices[rank])
        return pickle.loads(recipe).runner(devices[rank], folder)

    if rank == 0:
        work_until_the_driver_is_gone(pipe, runner, _alike)
        return
    threading.Thread(target=end_with_driver, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError), tempfile.TemporaryDirectory() as folder:
        try:
            made = runner(Path(folder))
        except Exception:  # the first process says why
            os._exit(1)
        while True:
            key, work = pickle.loads(pipe.recv_bytes())
            attempt(key, _alike(work), made)


def _alike(work: Any) -> Any:
    """The work without a folder to write into: every process does the same."""
    return replace(work, folder=None) if getattr(work, "folder", None) is not None else work
