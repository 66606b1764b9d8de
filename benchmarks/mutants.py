"""Does a test fail when the code is wrong? Small faults in pure modules, each against the test files of its own module.

    python benchmarks/mutants.py [--count 300] [--seed 0] [--only bounds,risk] [--quick]
    python benchmarks/mutants.py --list

A seeded sample, the same number for each package and each kind of fault equally likely in it; a larger --count only adds to it. Works on a copy of the tree.
Results are appended to --results, a line per mutant, and what is there already is not run again (--again survived does so, after
tests were written); --list shows survivors with their diffs. A mutant is `killed` where a test fails, `timeout` where the tests
take three times as long as they did without it and half a minute more (it counts as killed), and `equivalent` where
equivalent_mutants.toml says why no test can fail. Which tests are run: those that import the module, then those that name the
plug-in, then those that import what imports it; in each of these the smallest first, as long as they take --seconds together.
"""

import argparse
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mutation_operators import Mutant, mutants
from tests_of_modules import Tests

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
PACKAGES: dict[str, tuple[str, ...]] = {
    "risk": ("froc/risk.py", "froc/claim.py", "froc/claim_checks.py", "froc/combined.py", "froc/losses.py", "froc/shift.py",
             "froc/power.py", "froc/exchangeability.py", "froc/rounding.py", "froc/tilting.py", "froc/control.py"),
    "bounds": ("froc/bounds/*.py",),
    "procedures": ("froc/procedures/*.py",),
    "search": ("search/sealing.py", "search/openings.py", "froc/openings.py", "search/calibration.py", "search/sweep.py"),
    "audit": ("audit/**/*.py",),
    "training": ("froc/running.py", "froc/train.py", "froc/step.py", "froc/reference.py", "froc/resuming.py", "froc/kronecker.py"),
    "methods": ("froc/methods/*.py",),
    "metrics": ("froc/metrics/*.py",),
}  # fmt: skip
"""Package -> its modules, as patterns from the root. What moves is changed here and nowhere else."""
QUICK = {"only": "bounds,procedures", "count": 4, "seconds": 1.0}
GOAL = 0.95
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
"""Imported once, before each run of tests is forked; nothing of ours is among them."""
PATIENCE, SPARE = 3.0, 30.0
"""A mutant's tests may take so many times what they take without it, and so many seconds more."""


@dataclass(frozen=True)
class Run:
    """Test files for one mutant, or for none, whose seconds are measured. limit: seconds."""

    tests: tuple[str, ...]
    limit: float
    mutant: Mutant | None = None


@dataclass
class Copy:
    """A tree of its own, and the process that runs tests there."""

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
            os.killpg(self.process.pid, signal.SIGKILL)
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


def sampled(count: int, seed: int, packages: Sequence[str]) -> dict[str, list[Mutant]]:
    """Package -> its mutants, the same number of each package where it has so many."""
    return {
        name: _drawn(PACKAGES[name], -(-count // len(packages)), random.Random(f"{seed} {name}")) for name in packages
    }


def _drawn(patterns: Iterable[str], count: int, draw: random.Random) -> list[Mutant]:
    files = sorted({path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)})
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for file in files}
    every = [mutant for file, source in sources.items() for mutant in mutants(source, file)]
    draw.shuffle(every)
    turns: Counter[str] = Counter()
    order = []
    for mutant in every:
        # the first of every kind, then the second of every kind
        order.append((turns[mutant.kind], len(order), mutant))
        turns[mutant.kind] += 1
    chosen: list[Mutant] = []
    for _, _, mutant in sorted(order, key=lambda entry: entry[:2]):
        if len(chosen) == count:
            break
        if mutant.alters(sources[mutant.file]):
            chosen.append(mutant)
    return chosen


def changed_lines(mutant: Mutant) -> tuple[str, str]:
    """The lines before and after, without blanks around them: what equivalent_mutants.toml knows a mutant by."""
    before = (ROOT / mutant.file).read_text(encoding="utf-8")
    old, new = before.splitlines(), mutant.apply(before).splitlines()
    first, rest = mutant.start[0] - 1, len(old) - mutant.end[0]
    return tuple(" ".join(line.strip() for line in lines[first : len(lines) - rest]) for lines in (old, new))  # type: ignore[return-value]


def diff(mutant: Mutant) -> str:
    """The fault as a patch."""
    before = (ROOT / mutant.file).read_text(encoding="utf-8")
    lines = [text.splitlines(keepends=True) for text in (before, mutant.apply(before))]
    return "".join(difflib.unified_diff(*lines, mutant.file, mutant.file, n=1))


def equivalent() -> dict[tuple[str, str], str]:
    """(line before, line after) -> why no test can tell."""
    rows = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {(row["before"], row["after"]): row["reason"] for row in rows}


class Results:
    """A line per mutant in a file."""

    def __init__(self, path: Path, again: str) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows = {self._key(row["mutant"]): row for row in map(json.loads, lines) if row["outcome"] != again}

    def get(self, mutant: Mutant) -> dict[str, Any] | None:
        """What is known of a mutant; None also where its file has changed."""
        row = self.rows.get(self._key(asdict(mutant)))
        return row if row is not None and (row["before"], row["after"]) == changed_lines(mutant) else None

    def add(self, package: str, run: Run, outcome: str, seconds: float) -> None:
        """Keep an outcome."""
        assert run.mutant is not None
        before, after = changed_lines(run.mutant)
        row = {
            "package": package, "file": run.mutant.file, "line": run.mutant.start[0], "kind": run.mutant.kind, "outcome": outcome,
            "seconds": seconds, "before": before, "after": after, "tests": run.tests, "mutant": asdict(run.mutant),
        }  # fmt: skip
        self.rows[self._key(row["mutant"])] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @staticmethod
    def _key(mutant: dict[str, Any]) -> str:
        return json.dumps(mutant, sort_keys=True)


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

    def said(self) -> str:
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
            # no file of tests is over sooner, and each one more must be measured
            if total + 3.0 > self.limit:
                break
        return tuple(files), total

    def _of(self, file: str) -> float | None:
        """Seconds; None where it fails as it stands or takes far too long."""
        if file not in self.seconds:
            ((_, outcome, taken),) = self.pool.over([Run((file,), max(60.0, 2 * self.limit))])
            self.seconds[file] = taken if outcome == "survived" else None
            if outcome != "survived":
                print(f"{file} is left out: {outcome} without a fault\n{self.pool.said()}", file=sys.stderr)
            self.path.write_text(json.dumps(self.seconds, indent=1, sort_keys=True), encoding="utf-8")
        return self.seconds[file]


def run_all(sample: dict[str, list[Mutant]], results: Results, seconds: float, workers: int) -> None:
    """Run what is not known yet."""
    package_of = {mutant: name for name, chosen in sample.items() for mutant in chosen}
    known = equivalent()
    todo = [m for m in package_of if results.get(m) is None and changed_lines(m) not in known]
    if not todo:
        return
    for name in SLOW_IMPORTS:
        __import__(name)
    tests = Tests(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cache").mkdir()
        pool = Pool(Path(folder), workers)
        try:
            costs = Costs(results.path.with_suffix(".seconds.json"), pool, seconds)
            for file in dict.fromkeys(mutant.file for mutant in todo):
                costs.chosen(tests.of(file))
            runs = []
            for mutant in todo:
                files, taken = costs.chosen(tests.of(mutant.file))
                if files:
                    runs.append(Run(files, PATIENCE * taken + SPARE, mutant))
                else:
                    results.add(package_of[mutant], Run((), 0.0, mutant), "no tests", 0.0)
            for run, outcome, taken in pool.over(runs):
                assert run.mutant is not None
                results.add(package_of[run.mutant], run, outcome, taken)
                print(
                    f"{outcome:<9} {taken:>6.1f} s  {run.mutant.file}:{run.mutant.start[0]} {run.mutant.kind}",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            pool.close()


def outcomes(sample: dict[str, list[Mutant]], results: Results) -> dict[str, Counter[str]]:
    """Package -> how many mutants ended how."""
    known, counts = equivalent(), defaultdict[str, Counter[str]](Counter)
    for name, chosen in sample.items():
        for mutant in chosen:
            row = results.get(mutant)
            if changed_lines(mutant) in known:
                counts[name]["equivalent"] += 1
            elif row is not None:
                counts[name][row["outcome"]] += 1
    return counts


def rate(counts: Counter[str]) -> float:
    """Share of mutants that tests kill, of those that a test could."""
    killed = counts["killed"] + counts["timeout"]
    return killed / max(1, killed + counts["survived"] + counts["no tests"])


def show(sample: dict[str, list[Mutant]], results: Results) -> None:
    """Print survivors with their diffs."""
    known = equivalent()
    for chosen in sample.values():
        for mutant in chosen:
            row = results.get(mutant)
            if row is not None and row["outcome"] in ("survived", "no tests") and changed_lines(mutant) not in known:
                print(
                    f"{mutant.kind}, {row['outcome']}: {' '.join(row['tests']) or 'no test file imports it'}\n{diff(mutant)}"
                )


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few mutants of two packages, under a minute")
    parser.add_argument("--count", type=int, help="mutants in all (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="packages, with commas between them: " + ",".join(PACKAGES))
    parser.add_argument("--results", type=Path, help="results so far (a new file in the temporary folder)")
    parser.add_argument(
        "--again", default="", choices=("", "survived", "timeout", "killed", "no tests"), help="run these again"
    )
    parser.add_argument("--seconds", type=float, help="that the tests of a mutant take without it (60)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="show survivors among the results; run nothing")
    options = parser.parse_args()
    small = QUICK if options.quick else {"only": ",".join(PACKAGES), "count": 300, "seconds": 60.0}
    packages = (options.only or str(small["only"])).split(",")
    if unknown := set(packages) - set(PACKAGES):
        parser.error(f"no package is called {', '.join(sorted(unknown))}; there are: {', '.join(PACKAGES)}")
    count = options.count or int(small["count"])
    results = Results(options.results or Path(tempfile.mkdtemp()) / "mutants.jsonl", options.again)
    sample = sampled(count, options.seed, packages)
    if options.list:
        show(sample, results)
    else:
        run_all(sample, results, options.seconds or float(small["seconds"]), options.workers)
    found = outcomes(sample, results)
    columns = ("killed", "timeout", "survived", "no tests", "equivalent")
    print(f"{'package':<12} {'mutants':>7} " + " ".join(f"{name:>10}" for name in columns) + f" {'kill rate':>10}")
    for name in packages:
        print(
            f"{name:<12} {len(sample[name]):>7} "
            + " ".join(f"{found[name][column]:>10}" for column in columns)
            + f" {rate(found[name]):>10.1%}"
        )
    print(f"results in {results.path}")
    rates = {name: rate(found[name]) for name in packages if found[name]}
    promises = {
        f"mutants of {name} killed": {"value": round(value, 3), "goal": f">= {GOAL}", "holds": value >= GOAL}
        for name, value in rates.items()
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
