"""Mutation testing: small faults in the code, each run against the test files of its own module.

    python benchmarks/mutants.py [--count 300] [--seed 0] [--only bounds,risk] [--quick]
    python benchmarks/mutants.py --list

A seeded sample, the same number for each package and each kind of fault equally likely in it; a larger --count only adds to it. Works on a copy of the tree.
Results are appended to --results, a line per mutant, and what is there already is not run again (--again survived does so, after
tests were written); --list shows survivors with their diffs. A mutant is `killed` where a test fails, `timeout` where the tests
take three times as long as they did without it and half a minute more (it counts as killed), and `equivalent` where
equivalent_mutants.toml says why no test can fail. Which tests are run: those that import the module, then those that name the
plug-in, then those that import what imports it; in each of these the smallest first, up to six, as long as they take --seconds together.
"""

import argparse
import difflib
import json
import random
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mutant_runs import EXTRA_SECONDS, ROOT, TIME_FACTOR, Costs, Pool, Run, import_packages
from mutation_operators import Mutant, mutants
from tests_of_modules import Tests

EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
PACKAGES: dict[str, tuple[str, ...]] = {
    "risk": ("froc/risk/*.py", "froc/loss_table.py"),
    "bounds": ("froc/bounds/*.py",),
    "procedures": ("froc/procedures/*.py",),
    "search": ("search/sealed/*.py", "search/trial/sweep.py", "froc/data/opening_ledger.py", "froc/data/ledger_files.py"),
    "audit": ("audit/**/*.py",),
    "training": ("froc/training/*.py",),
    "methods": ("froc/methods/*.py",),
    "metrics": ("froc/metrics/*.py",),
}  # fmt: skip
"""Package -> its modules, as patterns from the root. What moves is changed here and nowhere else."""
WHOLE = (",".join(PACKAGES), 300, 60.0)
"""Packages, mutants and seconds of tests, where nothing else is said."""
QUICK = ("bounds,procedures", 4, 1.0)
GOAL = 0.95


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
    order: list[tuple[int, int, Mutant]] = []
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
    lines_before, lines_after = (
        " ".join(line.strip() for line in lines[first : len(lines) - rest]) for lines in (old, new)
    )
    return lines_before, lines_after


def diff(mutant: Mutant) -> str:
    """The fault as a patch."""
    before = (ROOT / mutant.file).read_text(encoding="utf-8")
    old, new = (text.splitlines(keepends=True) for text in (before, mutant.apply(before)))
    return "".join(difflib.unified_diff(old, new, mutant.file, mutant.file, n=1))


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
        row: dict[str, Any] = {
            "package": package, "file": run.mutant.file, "line": run.mutant.start[0], "kind": run.mutant.kind, "outcome": outcome,
            "seconds": seconds, "before": before, "after": after, "tests": run.tests, "mutant": asdict(run.mutant),
        }  # fmt: skip
        self.rows[self._key(row["mutant"])] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @staticmethod
    def _key(mutant: dict[str, Any]) -> str:
        return json.dumps(mutant, sort_keys=True)


def run_all(sample: dict[str, list[Mutant]], results: Results, seconds: float, workers: int) -> None:
    """Run what is not known yet."""
    package_of = {mutant: name for name, chosen in sample.items() for mutant in chosen}
    known = equivalent()
    todo = [m for m in package_of if results.get(m) is None and changed_lines(m) not in known]
    if not todo:
        return
    import_packages()
    tests = Tests(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cache").mkdir()
        pool = Pool(Path(folder), workers)
        try:
            costs = Costs(results.path.with_suffix(".seconds.json"), pool, seconds)
            # the nearest file of every module, beside each other; the others as they are needed
            costs.measure(file for mutant in todo for file in tests.of(mutant.file, mutant.start[0])[:1])
            runs = []
            for mutant in todo:
                files, taken = costs.chosen(tests.of(mutant.file, mutant.start[0]))
                if files:
                    runs.append(Run(files, TIME_FACTOR * taken + EXTRA_SECONDS, mutant))
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
    only, count, seconds = QUICK if options.quick else WHOLE
    packages = (options.only or only).split(",")
    if unknown := set(packages) - set(PACKAGES):
        parser.error(f"no package is called {', '.join(sorted(unknown))}; there are: {', '.join(PACKAGES)}")
    results = Results(options.results or Path(tempfile.mkdtemp()) / "mutants.jsonl", options.again)
    sample = sampled(options.count or count, options.seed, packages)
    if options.list:
        show(sample, results)
    else:
        run_all(sample, results, options.seconds or seconds, options.workers)
    recorded = outcomes(sample, results)
    columns = ("killed", "timeout", "survived", "no tests", "equivalent")
    print(f"{'package':<12} {'mutants':>7} " + " ".join(f"{name:>10}" for name in columns) + f" {'kill rate':>10}")
    for name in packages:
        print(
            f"{name:<12} {len(sample[name]):>7} "
            + " ".join(f"{recorded[name][column]:>10}" for column in columns)
            + f" {rate(recorded[name]):>10.1%}"
        )
    print(f"results in {results.path}")
    rates = {name: rate(recorded[name]) for name in packages if recorded[name]}
    promises = {
        f"mutants of {name} killed": {"value": round(value, 3), "goal": f">= {GOAL}", "holds": value >= GOAL}
        for name, value in rates.items()
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
