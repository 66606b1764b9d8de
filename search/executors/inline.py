"""Work in this process, one piece after the other."""

from collections import deque
from collections.abc import Callable, Collection
from functools import cached_property

from froc.errors import InputError
from froc.models.memory import advice, out_of_memory
from froc.search.executors import START, Executor, Report, attempt, take_back
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Work


class Inline(Executor):
    """The calling process as the only worker. make: builds its runner, called on the first piece of work."""

    def __init__(self, make: Callable[[], TrialRunner]) -> None:
        self._make = make
        self._queue: deque[tuple[int, Work]] = deque()

    @cached_property
    def _runner(self) -> TrialRunner:
        try:
            return self._make()
        except Exception as error:  # each backend has its own error for too little memory; others are re-raised
            if out_of_memory(error):
                raise InputError(advice(START)) from error
            raise

    def submit(self, key: int, work: Work) -> None:
        """Queue it."""
        self._queue.append((key, work))

    def wait(self, timeout: float | None = None) -> list[Report]:
        """Do the piece queued first, however long it takes."""
        if not self._queue:
            return []
        key, work = self._queue.popleft()
        return [attempt(key, work, self._runner)]

    def withdraw(self, keep: Collection[int] = ()) -> list[int]:
        """Of the queue."""
        return take_back(self._queue, keep)

    def close(self) -> None:
        """Drop queued work."""
        self._queue.clear()
