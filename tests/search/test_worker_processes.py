"""Worker processes: their threads, one that cannot start, and their end with the driver."""

import os
import pickle
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from froc.errors import InputError
from froc.models.base import Base
from froc.search.executors import processes
from froc.search.executors.processes import Processes
from froc.search.sealed.ranking import Leaderboard
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import TrainPack, Work
from tests.commands import ROOT
from tests.search.small_search import job, recipe


@dataclass(frozen=True)
class Threads(Work):
    """How many threads a worker computes with."""

    def __call__(self, bench: TrialRunner) -> int:
        """torch's own word for it."""
        return torch.get_num_threads()


@pytest.mark.parametrize("device", [None, "cpu"])
def test_cpu_workers_divide_the_processors(base: Base, monkeypatch: pytest.MonkeyPatch, device: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "cores", lambda: 16)
    monkeypatch.setattr(Processes, "_start", lambda *_: None)
    crew = Processes(recipe(job(base)), [device] * 5)
    assert processes._environment(device, crew._threads) == {"OMP_NUM_THREADS": "3"}
    assert processes._environment("cuda:0", crew._threads) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processes._environment(device, crew._threads) == {}


def test_a_cpu_worker_has_the_threads_that_it_is_given(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with closing(Processes(recipe(job(base)), [None], threads=1)) as crew:
        assert crew.each([Threads()]) == [1]


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_cannot_start_says_why(base: Base) -> None:
    made = job(base)
    broken = Processes(replace(recipe(made), digest="0" * 64), ["cpu"])
    broken.submit(0, TrainPack((), (), Leaderboard({}, 1), None))
    with pytest.raises(InputError, match="another than the driver's"):
        broken.wait()
    broken.close()


DRIVER = """
import pickle, sys, time
import torch
from froc.search.executors.processes import Processes
from froc.search.trial.work import Work

class Threads(Work):
    def __call__(self, bench):
        return torch.get_num_threads()

class Rests(Work):
    def __call__(self, bench):
        time.sleep(600)

if __name__ == "__main__":
    crew = Processes(pickle.loads(open(sys.argv[1], "rb").read()), ["cpu"])
    threads = crew.each([Threads()])
    crew.submit(0, Rests())
    print(*threads, *crew.pids, flush=True)
    time.sleep(60)
"""


def test_workers_end_with_their_driver(base: Base, tmp_path: Path) -> None:
    """A driver that is killed leaves nobody behind, however busy; and a user's word on threads outweighs a share of them."""
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "recipe").write_bytes(pickle.dumps(recipe(job(base))))
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "recipe")],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert driver.stdout is not None
    threads, worker = map(int, driver.stdout.readline().split())
    assert threads == 1
    # long enough to have begun its work, where it looks for no driver
    time.sleep(0.5)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    end = time.monotonic() + 120
    while _alive(worker) and time.monotonic() < end:
        time.sleep(0.2)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
