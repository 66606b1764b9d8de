"""Runs commands, and pytest files, in processes that have the pretend device."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.commands import ROOT, SLOW, Commands
from tests.pretend_cuda.build import built

HERE = Path(__file__).resolve().parent
MODULES = (*SLOW, "pytest", "froc.models.base", "froc.search.trial.runner")


def environment(folder: Path) -> dict[str, str]:
    """Of a process that has the pretend device as soon as it imports torch."""
    path = os.pathsep.join(filter(None, (str(HERE / "startup"), str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {"PRETEND_CUDA": str(folder), "PYTHONPATH": path}


class PretendCuda:
    """Processes with the pretend device, forked from one that has imported what is slow; close it.

    shared: a folder of several test processes, which fork from the same one.
    """

    def __init__(self, place: Path, shared: Path) -> None:
        self._environment = environment(built())
        own = shared / "pretend-cuda"
        own.mkdir(exist_ok=True)
        self._commands = Commands(place, MODULES, "tests.pretend_cuda.child", self._environment, own)

    def run(
        self, words: Sequence[str], program: str = "froc", *, devices: int = 1, megabytes: float | None = None, races: bool = False,
        env: Mapping[str, str] | None = None, cwd: Path = ROOT, limit: int = 300,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """`python -m PROGRAM WORDS` where torch sees so many devices of so much memory each; TimeoutExpired after `limit` seconds."""
        switches = {
            "PRETEND_CUDA_DEVICES": str(devices),
            "PRETEND_CUDA_MB": str(megabytes or 0),
            "PRETEND_CUDA_RACES": str(int(races)),
        }
        return self._commands.run(
            [program, *words], {**os.environ, **(env or {}), **self._environment, **switches}, cwd, limit
        )

    def check(self, file: Path, *words: str, devices: int = 2) -> None:
        """Run a file's tests on the device; AssertionError with pytest's report unless all pass."""
        plugins = ("-p", "xdist", "-p", "pytest_timeout", "-p", "no:cacheprovider")
        # what is imported before pytest starts would be announced as a plug-in that came too early
        env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = self.run([str(file), "-n0", *plugins, "-rP", *words], "pytest", devices=devices, env=env, limit=580)
        print(done.stdout)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]

    def close(self) -> None:
        """End the process that the others are forked from."""
        self._commands.close()
