"""Workers that are groups of processes, one per device, which hold a part of the model each (`froc.models.sharding`).

The driver hands every piece of work to all of a group, and listens to the first. What they would decide by their clocks (whether to save, whether a
trial takes too long) the first decides (`froc.models.process_group`).
"""

import contextlib
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from froc.errors import InputError
from froc.models import process_group
from froc.models.device_map import named
from froc.models.memory import SHORT, leave_group, out_of_memory
from froc.models.training_options import read_scope
from froc.search.executors import Report, WorkerSpec, attempt
from froc.search.executors.processes import (
    Processes,
    Worker,
    end,
    end_with_driver,
    ended,
    spawn,
    work_until_the_driver_is_gone,
)
from froc.search.settings import Settings
from froc.search.trial.work import Work

BROKEN = 76
"""Exit code of a process that ends because another of its group is gone."""
ENDING = 5.0
"""Seconds that the other processes of a group have to end."""


def refuse_unfit(settings: Settings, compiled: bool) -> None:
    """InputError for what a divided model cannot do, with what to give instead."""
    kind, numbers = read_scope(settings.train, settings.pack)
    refusals = {
        "--train lora without bits, since a base in four bits is packed": kind == "lora" and "bits" in numbers,
        "no --compile": compiled,
    }
    for instead, present in refusals.items():
        if present:
            raise InputError(f"--executor sharded divides a model's weights among processes; give {instead}")


class Sharded(Processes):
    """A group of processes for each of the devices, which are several joined by a plus sign."""

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

    def _receive(self, worker: Worker) -> list[Report]:
        try:
            return super()._receive(worker)
        except InputError:
            # without the other process the first could not start either, whatever it says
            self._await_others(worker)
            if SHORT in self._exit_codes(worker):
                raise InputError(f"a worker could not start: {ended(SHORT)}") from None
            raise

    def _gone(self, worker: Worker) -> str | None:
        codes = self._exit_codes(worker)
        if codes:
            return ended(SHORT if SHORT in codes else codes[0])
        return super()._gone(worker)

    def _why_ended(self, worker: Worker) -> str:
        why = super()._why_ended(worker)
        self._await_others(worker)
        return self._gone(worker) or why

    def _await_others(self, worker: Worker) -> None:
        """Until they have ended, too, for at most `ENDING`: a process closes its connections before its exit code can be read."""
        deadline = time.monotonic() + ENDING
        for process, _ in self._others[worker.place]:
            process.join(max(0.0, deadline - time.monotonic()))

    def _exit_codes(self, worker: Worker) -> list[int]:
        """Of the processes of a group that have ended, but for those that did because another had."""
        processes = (worker.process, *(process for process, _ in self._others[worker.place]))
        return [process.exitcode for process in processes if process.exitcode not in (None, BROKEN)]

    def _end_others(self, place: int) -> None:
        for process, pipe in self._others.pop(place, []):
            end(process, pipe)


def serve(pipe: Connection, rank: int, devices: Sequence[str], meeting: str, recipe: bytes) -> None:
    """Main function of a process of a group; the first of them talks to the driver."""

    def runner(folder: Path) -> Any:
        process_group.join(rank, len(devices), Path(meeting), devices[rank])
        return pickle.loads(recipe).runner(devices[rank], folder)

    if rank == 0:
        work_until_the_driver_is_gone(pipe, runner, _attempt_together)
        return
    threading.Thread(target=end_with_driver, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError), tempfile.TemporaryDirectory() as folder:
        try:
            made = runner(Path(folder))
        except Exception as error:  # the first process says why, but for its memory
            if out_of_memory(error):
                leave_group()
            os._exit(1)
        while True:
            key, work = pickle.loads(pipe.recv_bytes())
            _attempt_together(key, work, made)


def _attempt_together(key: int, work: Work, runner: Any) -> Report:
    """The report of a whole group; where a process is gone, what the others came to is no result, so that they end, too."""
    report = attempt(key, work, runner)
    try:
        process_group.all_agree(True)
    except RuntimeError:  # gloo has no error of its own for it
        os._exit(BROKEN)
    return report
