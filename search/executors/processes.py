"""Worker processes of this machine: one per GPU, or CPU workers that divide the threads.

A worker that is killed, falls silent or exceeds its time is lost: another takes its place, and the driver handles its
work. Workers end with the driver, however it ends.
"""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from froc.errors import InputError
from froc.models.memory import SHORT, advice, out_of_memory
from froc.search.executors import START, TRIES, Report, WorkerPool, WorkerSpec, attempt, cores
from froc.search.trial.work import Work
from froc.search.worker_start import call

LOG = logging.getLogger("froc")
BEAT = 2.0
"""Seconds between a worker's heartbeats."""
SILENCE = 60.0
"""Seconds without a heartbeat after which a worker counts as lost; FROC_SILENCE overrides it."""
OVERTIME = 60.0
"""Seconds beyond twice a time limit after which a worker is killed."""


@dataclass
class Worker:
    """A process and its current work. heard: time of its last heartbeat."""

    place: int
    process: BaseProcess
    pipe: Connection
    heard: float
    ready: bool = False
    key: int | None = None
    until: float | None = None


class Processes(WorkerPool):
    """`len(devices)` workers; device None is the CPU. threads: of each CPU worker; by default an even share of the processors."""

    def __init__(
        self, recipe: WorkerSpec, devices: Sequence[str | None], silence: float | None = None, threads: int | None = None
    ) -> None:  # fmt: skip
        super().__init__(len(devices))
        self._devices = devices
        self._threads = threads or max(1, cores() // self.workers)
        self._silence = silence or float(os.environ.get("FROC_SILENCE", SILENCE))
        self._recipe = pickle.dumps(recipe)
        self._stillborn = 0
        self._pool = [self._start(place) for place in range(self.workers)]

    def close(self) -> None:
        """End the workers."""
        for worker in self._pool:
            end(worker.process, worker.pipe)
        self._pool = []
        self._queue.clear()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid or 0 for worker in self._pool]

    def _start(self, place: int) -> Worker:
        device = self._devices[place]
        process, pipe = spawn(f"froc-worker-{place}", device, self._threads, serve, device, self._recipe)
        LOG.info("worker %d started as process %d on %s", place, process.pid, device or "cpu")
        return Worker(place, process, pipe, time.monotonic())

    def _hand_out(self) -> None:
        for worker in self._pool:
            if self._queue and worker.ready and worker.key is None:
                key, work = self._queue[0]
                try:
                    self._send(worker, pickle.dumps((key, work)))
                except OSError:  # it has just died, which the next check detects
                    continue
                self._queue.popleft()
                worker.key = key
                worker.until = work.limit and time.monotonic() + 2 * work.limit * work.trials + OVERTIME

    def _send(self, worker: Worker, packed: bytes) -> None:
        worker.pipe.send_bytes(packed)

    def _listen(self) -> list[Report]:
        reports = []
        readable = wait([worker.pipe for worker in self._pool], 1.0)
        for worker in list(self._pool):
            if worker.pipe in readable:
                reports += self._receive(worker)
            elif why := self._gone(worker):
                reports += self._replace(worker, why)
        return reports

    def _idle(self) -> bool:
        return all(worker.key is None for worker in self._pool)

    def _receive(self, worker: Worker) -> list[Report]:
        try:
            message = pickle.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            return self._replace(worker, self._why_ended(worker))
        worker.heard = time.monotonic()
        if isinstance(message, Report):
            worker.key = worker.until = None
            return [message]
        if message == "ready":
            worker.ready, self._stillborn = True, 0
        elif message != "alive":
            raise InputError(f"a worker could not start: {message}")
        return []

    def _why_ended(self, worker: Worker) -> str:
        worker.process.join(5.0)
        return ended(worker.process.exitcode)

    def _gone(self, worker: Worker) -> str | None:
        now = time.monotonic()
        if worker.until is not None and now > worker.until:
            return "it overran the time limit of a trial"
        # loading libraries from a cold disk may take long
        silence = self._silence if worker.ready else 10 * self._silence
        if now - worker.heard > silence:
            return f"no sign of life for {silence:g} s"
        return None

    def _replace(self, worker: Worker, why: str) -> list[Report]:
        LOG.warning("worker %d (process %s) is lost: %s", worker.place, worker.process.pid, why)
        end(worker.process, worker.pipe)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= TRIES * self.workers:
                raise InputError(
                    f"workers end before they are ready ({why}); with too little memory, take fewer --workers"
                )
        self._pool[self._pool.index(worker)] = self._start(worker.place)
        return [] if worker.key is None else [Report(worker.key, lost=why)]


def spawn(
    name: str, device: str | None, threads: int, function: Callable[..., None], *arguments: Any
) -> tuple[BaseProcess, Connection]:
    """Start a process that calls a module's function with its end of a pipe and the arguments; returns it and this end.

    threads: of a worker on the CPU.
    """
    here, there = multiprocessing.Pipe()
    environment = _environment(device, threads)
    process = multiprocessing.get_context("spawn").Process(
        target=call, args=(environment, function.__module__, function.__name__, there, *arguments), daemon=True, name=name
    )  # fmt: skip
    # inherited until the worker ignores it: while its interpreter starts, Ctrl-C would end it with a traceback
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    there.close()
    return process, here


def end(process: BaseProcess, pipe: Connection) -> None:
    """Kill a process of `spawn`, and close the pipe to it."""
    process.kill()
    process.join()
    pipe.close()


def ended(code: int | None) -> str:
    """Why a worker ended, by its exit code."""
    if code == SHORT:
        return "a process of its group had too little memory; give more --gpus-per-trial, a smaller --batch or --checkpointing"
    if code == -signal.SIGKILL:
        return "it was killed (by somebody, or by the system where memory ran out)"
    return f"it ended with code {code}"


def serve(pipe: Connection, device: str | None, recipe: bytes) -> None:
    """A worker's main function: build the runner, then do work until the driver is gone."""
    work_until_the_driver_is_gone(pipe, lambda folder: pickle.loads(recipe).runner(device or "cpu", folder))


def work_until_the_driver_is_gone(
    pipe: Connection, make: Callable[[Path], Any], do: Callable[[int, Work, Any], Report] = attempt
) -> None:
    """Build a runner, then do the work that comes through a pipe."""
    lock = threading.Lock()

    def say(message: Any) -> None:
        packed = pickle.dumps(message)
        with lock:
            pipe.send_bytes(packed)

    threading.Thread(target=_beat, args=(say,), daemon=True).start()
    threading.Thread(target=end_with_driver, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError), tempfile.TemporaryDirectory() as folder:
        try:
            runner = make(Path(folder))
        except Exception as error:  # the driver reports why a worker cannot start
            if out_of_memory(error):
                error = InputError(advice(START))
            say(f"{type(error).__name__}: {error}" if not isinstance(error, InputError) else str(error))
            return
        say("ready")
        while True:
            key, work = pickle.loads(pipe.recv_bytes())
            say(do(key, work, runner))


def _beat(say: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            say("alive")
            time.sleep(BEAT)


def end_with_driver() -> None:
    """End this process when the one that started it ends, however it ends."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
    os._exit(1)


def _environment(device: str | None, threads: int) -> dict[str, str]:
    """Environment of a worker: its number of threads on a CPU, unless the user has set it.

    More threads than processors wait for each other, which makes trials many times slower.
    """
    if device not in (None, "cpu") or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(threads)}
