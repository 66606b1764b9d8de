"""Fixtures that several tests of searches share."""

import multiprocessing
import os

import pytest

from tests.commands import SLOW


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `fork_workers`, for one test."""
    fork_workers(monkeypatch)


def fork_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forked from one that has made the slow imports; tests of how workers start do without."""
    from froc.search.executors import processes

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["froc.search.executors", "froc.search.trial.work", *SLOW])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: server)
    # the server keeps the environment of its own start
    monkeypatch.setattr(processes, "_environment", lambda *_: dict(os.environ))
