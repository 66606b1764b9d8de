"""Runs of test files on copies of the tree, with a fault in one file or without, for `benchmarks/mutants.py`.

Each run is forked from a process that has made the slow imports of other packages: starting Python anew would take longer than most tests.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from mutation_operators import Mutant

ROOT = Path(__file__).resolve().parents[1]
SLOW_IMPORTS = (
    "numpy",
    "scipy.stats",
    "polars",
    "torch",
    "transformers",
    "peft",
    "optuna",
    "mapie",
    "hypothesis",
    "pydantic",
    "pytest",
)
"""Imported once, before any run of tests is forked; no module of froc, whose faulty copy each run imports itself."""
MOST_FILES = 6
"""Test files that a mutant is run against."""
TIME_FACTOR, EXTRA_SECONDS = 3.0, 30.0
"""A mutant's tests may take so many times as long as without it, and so many seconds more."""


def import_packages() -> None:
    """Import the packages that every run of tests needs."""
    for name in SLOW_IMPORTS:
        __import__(name)


@dataclass(frozen=True)
class Run:
    """Test files for one mutant, or for none, whose seconds are measured. limit: seconds."""

    tests: tuple[str, ...]
    limit: float
    mutant: Mutant | None = None


@dataclass
class Copy:
    """A copy of the tree, and the process that runs tests in it."""

    place: Path
    run: Run | None = None
    process: BaseProcess | None = None
    began: float = 0.0
    source: str = field(default="", repr=False)

    def start(self, run: Run) -> None:
        """Put the fault in and run the tests."""
        if run.mutant is not None:
            path = self.place / run.mutant.file
            self.source = path.read_text(encoding="utf-8")
            path.write_text(run.mutant.apply(self.source), encoding="utf-8")
        self.run, self.began = run, time.monotonic()
        self.process = get_context("fork").Process(target=_tested, args=(self.place, run.tests))
        self.process.start()

    def finish(self) -> tuple[str, float]:
        """How the run ended and its seconds; the fault is taken out."""
        assert self.process is not None
        assert self.run is not None
        if self.process.is_alive():
            outcome = "timeout"
            assert self.process.pid is not None
            with suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        else:
            outcome = {0: "survived", 5: "no tests"}.get(self.process.exitcode or 0, "killed")
        self.process.join()
        if self.run.mutant is not None:
            (self.place / self.run.mutant.file).write_text(self.source, encoding="utf-8")
        self.process = None
        return outcome, round(time.monotonic() - self.began, 1)

    def ended(self) -> bool:
        """Whether its process has ended or taken too long."""
        assert self.process is not None
        assert self.run is not None
        return not self.process.is_alive() or time.monotonic() - self.began > self.run.limit


def _tested(place: Path, tests: Sequence[str]) -> None:
    """In a process of its own: run pytest in the copy and exit with its code."""
    os.setsid()
    os.chdir(place)
    sys.path[:] = [str(place), *(path for path in sys.path if path not in (str(ROOT), str(ROOT / "benchmarks")))]
    os.environ |= {
        "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "FROC_STATE": str(place.parent / "state"),
        "FROC_TEST_CACHE": str(place.parent.parent / "cache"), "HYPOTHESIS_STORAGE_DIRECTORY": str(place.parent / "hypothesis"),
    }  # fmt: skip
    sys.dont_write_bytecode = True
    out = os.open(place.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import pytest

    # imported before pytest could rewrite their assertions, which nothing here reads
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    base = f"--basetemp={place.parent / 'temporary'}"
    code = pytest.main(["-x", "-n0", "-p", "no:cacheprovider", "--no-header", "--tb=line", *quiet, base, *tests])
    sys.stdout.flush()
    os._exit(int(code))


def copied(folder: Path) -> Copy:
    """A copy of all files that git tracks or would track; compiled, each file checked by its bytes and not by its date."""
    place = folder / "tree"
    place.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if not (ROOT / name).exists():
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (folder / "shared").symlink_to(shared.resolve())
    rooms = [
        path.name
        for path in place.iterdir()
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *rooms]
    subprocess.run([sys.executable, *compiled], cwd=place, check=True)
    return Copy(place)


class Pool:
    """Copies of the tree, each with one run of tests at a time."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.copies = [copied(folder / str(number)) for number in range(workers)]

    def over(self, runs: Iterable[Run]) -> Iterator[tuple[Run, str, float]]:
        """(run, outcome, seconds) as they end."""
        waiting = iter(runs)
        while True:
            for copy in self.copies:
                if copy.process is None and (run := next(waiting, None)) is not None:
                    copy.start(run)
            busy = [copy for copy in self.copies if copy.process is not None]
            if not busy:
                return
            for copy in busy:
                if copy.ended():
                    assert copy.run is not None
                    yield copy.run, *copy.finish()
            time.sleep(0.05)

    def printed(self) -> str:
        """The end of what the latest run of tests printed."""
        outputs = [path for copy in self.copies if (path := copy.place.parent / "output.txt").is_file()]
        latest = max(outputs, key=lambda path: path.stat().st_mtime)
        return latest.read_text(encoding="utf-8", errors="replace")[-1500:]

    def close(self) -> None:
        """End what still runs."""
        for copy in self.copies:
            if copy.process is not None:
                copy.finish()


class Costs:
    """Seconds that each test file takes without a fault, measured once and kept beside the results."""

    def __init__(self, path: Path, pool: Pool, limit: float) -> None:
        self.path, self.pool, self.limit = path, pool, limit
        self.seconds: dict[str, float | None] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def chosen(self, ordered: Sequence[str]) -> tuple[tuple[str, ...], float]:
        """The first of these files that take `limit` seconds together, at least one where one passes at all; and their seconds."""
        files: list[str] = []
        total = 0.0
        for file in ordered:
            taken = self._of(file)
            if taken is not None and (total + taken <= self.limit or not files):
                files.append(file)
                total += taken
            # each one more must be measured, and those that come next are farther from the module
            if total > 0.6 * self.limit or len(files) == MOST_FILES:
                break
        return tuple(files), total

    def measure(self, files: Iterable[str]) -> None:
        """Measure those that are not known, as many at a time as there are copies."""
        runs = [Run((file,), max(60.0, 2 * self.limit)) for file in dict.fromkeys(files) if file not in self.seconds]
        for run, outcome, taken in self.pool.over(runs):
            (file,) = run.tests
            # None where it fails as it stands or takes far too long
            self.seconds[file] = taken if outcome == "survived" else None
            if outcome != "survived":
                print(f"{file} is left out: {outcome} without a fault\n{self.pool.printed()}", file=sys.stderr)
            self.path.write_text(json.dumps(self.seconds, indent=1, sort_keys=True), encoding="utf-8")

    def _of(self, file: str) -> float | None:
        self.measure([file])
        return self.seconds[file]
