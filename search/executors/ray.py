"""Actors on a Ray cluster (pip install 'froc[ray]'), for many machines.

`ray` starts Ray on this machine or joins the cluster that RAY_ADDRESS names; `ray://host:port` connects to a cluster's
head. The other machines need only froc: base model, queries, results and parameters travel through the object store.
The work of a lost machine or worker is lost, and another actor takes its place once there is room.
"""

import logging
import os
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froc.errors import InputError
from froc.search.executors import TRIES, Report, WorkerPool, WorkerSpec, attempt
from froc.search.trial.work import Work

LOG = logging.getLogger("froc")
START = 600.0
"""Seconds that the cluster has to make room for the first worker."""


class _Bench:
    """An actor with its runner, built once; no piece of work leaves anything behind."""

    def __init__(self, recipe: WorkerSpec, gpu: bool) -> None:
        # kept as long as the actor
        self._files = tempfile.TemporaryDirectory()
        self._broken = ""
        try:
            self._runner = recipe.runner("cuda" if gpu else "cpu", Path(self._files.name))
        except Exception as error:  # whatever keeps a worker from starting is for the driver to tell
            self._broken = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"

    def ready(self) -> str:
        """Answers once the runner is built: an error message, or ""."""
        return self._broken

    def do(self, key: int, work: Work) -> Report:
        """Do it."""
        return attempt(key, work, self._runner)


@dataclass
class _Actor:
    """An actor's handle, the reference that ends its current work (at first its start), and that work's key."""

    handle: Any
    running: Any
    key: int | None = None
    ready: bool = False
    until: float | None = None


class Ray(WorkerPool):
    """`workers` actors. gpus, cpus: share of a GPU (0 for the CPU) and number of CPUs per actor."""

    remote = True

    def __init__(
        self, recipe: WorkerSpec, address: str | None, workers: int, *, gpus: float = 0.0, cpus: float = 1.0
    ) -> None:
        super().__init__(workers)
        self._ray = _connected(address)
        self._gpu = gpus > 0
        made = self._ray.remote(_Bench)
        self._kind = made.options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._recipe = self._ray.put(recipe.shipped())
        self._stillborn = 0
        self._begun = time.monotonic()
        self._pool = [self._start() for _ in range(workers)]

    def close(self) -> None:
        """End the actors; a cluster that was started here ends with this process."""
        for actor in self._pool:
            self._ray.kill(actor.handle)
        self._pool = []
        self._queue.clear()

    def _start(self) -> _Actor:
        handle = self._kind.remote(self._recipe, self._gpu)
        return _Actor(handle, handle.ready.remote())

    def _hand_out(self) -> None:
        for actor in self._pool:
            if self._queue and actor.ready and actor.key is None:
                actor.key, work = self._queue.popleft()
                actor.running = actor.handle.do.remote(actor.key, work)
                actor.until = work.limit and time.monotonic() + 2 * work.limit * work.trials + 60.0

    def _listen(self) -> list[Report]:
        self._refuse_endless_start()
        reports = []
        running = [actor.running for actor in self._pool if actor.running is not None]
        finished, _ = self._ray.wait(running, num_returns=1, timeout=1.0) if running else ([], [])
        for actor in list(self._pool):
            if actor.running in finished:
                reports += self._receive(actor)
            elif actor.until is not None and time.monotonic() > actor.until:
                reports += self._replace(actor, "it overran the time limit of a trial")
        return reports

    def _idle(self) -> bool:
        return all(actor.key is None for actor in self._pool)

    def _receive(self, actor: _Actor) -> list[Report]:
        try:
            message = self._ray.get(actor.running)
        except self._ray.exceptions.RayError as error:
            return self._replace(actor, f"its process or machine is gone ({type(error).__name__})")
        if not actor.ready and message:
            raise InputError(f"a worker could not start: {message}")
        actor.running = None
        if not actor.ready:
            actor.ready, self._stillborn = True, 0
            return []
        actor.key = actor.until = None
        return [message]

    def _replace(self, actor: _Actor, why: str) -> list[Report]:
        LOG.warning("a Ray worker is lost: %s", why)
        self._ray.kill(actor.handle)
        if not actor.ready:
            self._stillborn += 1
            if self._stillborn >= TRIES * self.workers:
                raise InputError(f"Ray workers end before they are ready ({why}); is froc installed on every machine?")
        self._pool[self._pool.index(actor)] = self._start()
        return [] if actor.key is None else [Report(actor.key, lost=why)]

    def _refuse_endless_start(self) -> None:
        if not any(actor.ready for actor in self._pool) and time.monotonic() - self._begun > START:
            raise InputError(
                f"the Ray cluster gave no worker room for {START:g} s; take fewer --workers, or smaller ones (--worker-gpus)"
            )


def resources(address: str | None) -> tuple[int, int]:
    """(GPUs, processors) of the cluster at an address, or of one that is started on this machine."""
    known = _connected(address).cluster_resources()
    return int(known.get("GPU", 0)), int(known.get("CPU", 1))


def _connected(address: str | None) -> Any:
    """The ray module, connected to the cluster."""
    # froc sends no usage statistics, and neither may Ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed; pip install 'froc[ray]'") from error
    if not ray.is_initialized():
        options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
        options |= {"log_to_driver": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ray.init(logging_level=logging.ERROR, **options)
            except ConnectionError as error:
                raise InputError(f"no Ray cluster answers at {address}; start one with ray start --head") from error
    return ray
