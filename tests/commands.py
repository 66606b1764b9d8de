"""`python -m froc` without its start: each command is forked from one process that has imported what is slow.

The child is a process of its own (environment, folder, streams, exit code); only what it would import is there already.
Commands that are sent signals, and those whose start is the point, take a process from nothing instead.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
SLOW = (
    "torch", "transformers", "transformers.models.llama.modeling_llama", "peft", "optuna", "polars", "scipy.stats", "mapie",
    "matplotlib.figure", "froc.cli.main", "froc.training.embedded", "froc.data.tasks.folder", "froc.measuring.query_losses", "froc.reporting.landscape",
    "froc.search.plan", "froc.search.pipeline", "froc.search.trial.throughput", "froc.audit.bundle", "froc.audit.verification",
)  # fmt: skip
"""Imported before the first fork, never run there: threads of a computation would be missing in the children."""


class Commands:
    """Runs commands one after the other; close it.

    modules: what is imported before the first. program: what each of them runs. env: of the process that imports.
    """

    def __init__(
        self, place: Path, modules: Sequence[str] = SLOW, program: str = "froc", env: Mapping[str, str] | None = None
    ) -> None:
        self._place, self._program = place, program
        self._log = place / "server.log"
        with self._log.open("w", encoding="utf-8") as log:
            # the streams are no terminal, as for a command whose output is captured: its width is chosen at import
            self._server = subprocess.Popen(
                [sys.executable, "-c", f"from tests.commands import serve; serve({modules!r})"],
                cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(env or {})},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def run(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT, limit: int = 120
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run([sys.executable, "-m", "froc", *words])` returns; TimeoutExpired after `limit` seconds."""
        assert self._server.stdin is not None
        place = tempfile.mkdtemp(dir=self._place)
        wanted = {
            "words": words,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd),
            "limit": limit,
            "program": self._program,
        }
        self._server.stdin.write(json.dumps(wanted | {"place": place}) + "\n")
        self._server.stdin.flush()
        code = self._answer(place)
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(["froc", *words], limit)
        out, err = (Path(place, name).read_text(encoding="utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(["froc", *words], code, out, err)

    def close(self) -> None:
        self._server.communicate()

    def _answer(self, place: str) -> int:
        assert self._server.stdout is not None
        for line in iter(self._server.stdout.readline, ""):
            answer = json.loads(line)
            # else it answers a test that stopped waiting
            if answer["place"] == place:
                return int(answer["code"])
        raise RuntimeError(f"the process that runs commands has ended: {self._log.read_text(encoding='utf-8')}")


def unsynced() -> None:
    """Wait for no disk in this process: what a test writes must outlive its processes, however they end, and no power cut."""
    os.fsync = _no_fsync
    event.listen(Engine, "connect", _unsynced)


def _no_fsync(fd: Any) -> None:
    pass


def _unsynced(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def serve(modules: Sequence[str]) -> None:
    """Answer requests on standard input until it ends."""
    unsynced()
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    # children would copy every page that their collector touches
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            _command(**wanted)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"place": wanted["place"], "code": code}), flush=True)


def _command(words: list[str], env: dict[str, str], cwd: str, limit: int, program: str, place: str) -> NoReturn:
    code: Any = 1
    try:
        signal.alarm(limit)
        # beneath the Python objects, which the consoles hold since they were imported
        for number, path in enumerate((os.devnull, f"{place}/out", f"{place}/err")):
            opened = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(opened, number)
            os.close(opened)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        # what an interpreter of its own would look through first
        sys.path[:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
        importlib.invalidate_caches()
        sys.argv[1:] = words
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as left:
        code = left.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # a forked child must end here, whatever it was stopped by
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit((code or 0) & 0xFF)
