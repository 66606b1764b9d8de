"""`python -m froc` without its start: each command is forked from one process that has imported what is slow.

The child is a process of its own (environment, folder, streams, exit code); only what it would import is there already.
Commands that are sent signals, and those whose start is the point, take a process from nothing instead.
"""

import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
SLOW = (
    "torch", "transformers", "transformers.models.llama.modeling_llama", "peft", "optuna", "polars", "scipy.stats", "mapie",
    "matplotlib.figure", "froc.cli.main", "froc.training.embedded", "froc.data.tasks.folder", "froc.measuring.query_losses", "froc.reporting.landscape",
    "froc.search.plan", "froc.search.pipeline", "froc.search.trial.throughput", "froc.audit.bundle", "froc.audit.verification",
    "alembic.command", "contourpy", "matplotlib.backends.backend_agg", "optuna.storages._rdb.storage", "PIL.JpegImagePlugin",
    "polars._utils.parquet", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite",
)  # fmt: skip
"""Imported before the first fork, never run there: threads of a computation would be missing in the children."""


class Commands:
    """Runs commands one after the other; close it.

    modules: what is imported before the first. program: what each of them runs. env: of the process that imports. shared: a
    folder of several test processes, whose commands are then forked from one process, which the first of them starts.
    """

    def __init__(
        self, place: Path, modules: Sequence[str] = SLOW, program: str = "froc", env: Mapping[str, str] | None = None,
        shared: Path | None = None,
    ) -> None:  # fmt: skip
        self._place, self._program, self._shared = place, program, shared or place
        self._log = self._shared / "server.log"
        self._server: subprocess.Popen[bytes] | None = None
        with self._alone() as address:
            # who comes second finds the server of the first
            self._socket = _connected(address) or self._started(modules, env or {}, address)
        self._stream = self._socket.makefile("rw", encoding="utf-8")

    def run(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT, limit: int = 120, *,
        figures: bool = False,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """What `subprocess.run([sys.executable, "-m", "froc", *words])` returns; TimeoutExpired after `limit` seconds.

        figures: whether a search draws its figures, which takes longer than a short trial.
        """
        place = tempfile.mkdtemp(dir=self._place)
        wanted = {
            "words": words,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd),
            "limit": limit,
            "program": self._program,
            "figures": figures,
        }
        self._stream.write(json.dumps(wanted | {"place": place}) + "\n")
        self._stream.flush()
        code = self._answer(place)
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(["froc", *words], limit)
        out, err = (Path(place, name).read_text(encoding="utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(["froc", *words], code, out, err)

    def close(self) -> None:
        """What was started here takes no more callers; those that it has stay."""
        self._stream.close()
        self._socket.close()
        if self._server:
            with self._alone() as address:
                address.unlink()
                self._server.communicate()

    @contextmanager
    def _alone(self) -> Iterator[Path]:
        """The file that says where the server listens, which no other test process reads or writes meanwhile."""
        with (self._shared / "server.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield self._shared / "server.address"

    def _started(self, modules: Sequence[str], env: Mapping[str, str], address: Path) -> socket.socket:
        # a path of a socket is short
        listener = Path(tempfile.mkdtemp(prefix="froc-", dir="/tmp")) / "socket"
        with self._log.open("w", encoding="utf-8") as log:
            # the streams are no terminal, as for a command whose output is captured: its width is chosen at import
            self._server = subprocess.Popen(
                [sys.executable, "-c", f"from tests.commands import serve; serve({modules!r}, {str(listener)!r})"],
                cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **env},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._server.stdout is not None
        if self._server.stdout.readline() != b"listening\n":
            raise RuntimeError(f"no process that runs commands: {self._log.read_text(encoding='utf-8')}")
        address.write_text(str(listener), encoding="utf-8")
        connected = _connected(address)
        assert connected is not None
        return connected

    def _answer(self, place: str) -> int:
        for line in iter(self._stream.readline, ""):
            answer = json.loads(line)
            # else it answers a test that stopped waiting
            if answer["place"] == place:
                return int(answer["code"])
        raise RuntimeError(f"the process that runs commands has ended: {self._log.read_text(encoding='utf-8')}")


def _connected(address: Path) -> socket.socket | None:
    """A connection to the process whose socket the file names; None where there is none."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address.read_text(encoding="utf-8"))
    except OSError:
        connection.close()
        return None
    return connection


def unsynced() -> None:
    """Wait for no disk in this process: what a test writes must outlive its processes, however they end, and no power cut."""
    os.fsync = _nothing
    event.listen(Engine, "connect", _unsynced)


def _nothing(fd: Any) -> None:
    pass


def read_migrations_once() -> None:
    """Optuna reads its tables' twelve migrations three times for each new database, which takes as long as a short trial."""
    if "optuna" not in sys.modules:
        return
    from optuna.storages._rdb import storage

    manager = storage._VersionManager
    make = cache(manager._create_alembic_script)
    # of any database: they are Optuna's own files
    any_database = object.__new__(manager)
    any_database.url = "sqlite://"
    manager._create_alembic_script = lambda _: make(any_database)  # type: ignore[method-assign, assignment]  # in this process alone


def _unsynced(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def serve(modules: Sequence[str], path: str) -> None:
    """Take callers at a socket until standard input ends; each is answered by a fork of its own."""
    unsynced()
    for name in modules:
        importlib.import_module(name)
    read_migrations_once()
    if tuple(modules) == SLOW:
        _import_all_of_froc()
    gc.collect()
    # children would copy every page that their collector touches
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("listening", flush=True)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        caller = listener.accept()[0]
        if os.fork() == 0:
            # else who waits for the server's end would wait for its callers'
            os.dup2(2, 1)
            listener.close()
            _answer_all(caller)
        caller.close()
    shutil.rmtree(Path(path).parent)


def _answer_all(caller: socket.socket) -> NoReturn:
    """One command after the other, until the caller has ended."""
    stream = caller.makefile("rw", encoding="utf-8")
    for line in iter(stream.readline, ""):
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            _command(**wanted)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stream.write(json.dumps({"place": wanted["place"], "code": code}) + "\n")
        stream.flush()
    os._exit(0)


def _import_all_of_froc() -> None:
    """A command looks plug-ins up by name and imports whole folders of them."""
    package = importlib.import_module("froc")
    for module in pkgutil.walk_packages(package.__path__, "froc."):
        if not module.name.endswith("__main__"):
            # of an extra that is not installed; who needs it says so
            with suppress(ImportError):
                importlib.import_module(module.name)


def _command(
    words: list[str], env: dict[str, str], cwd: str, limit: int, program: str, place: str, figures: bool
) -> NoReturn:
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
        if not figures and "froc.cli.search" in sys.modules:
            sys.modules["froc.cli.search"].__dict__["_draw"] = _nothing
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
