"""Does any random change of a bundle or its model go unnoticed?

python benchmarks/tamper.py [--quick] [--mutations 20000] [--seed 0]

What is signed: names and contents of all files of the bundle and of the model, but for signatures by others in
report.dsse.json. A mutation that leaves all of these as they were (the same bytes again, an empty folder beside the model's
files, a link to the same bytes there, dates of files, a further signature by someone unknown) must be accepted; every other must be refused, by a check and not by a crash. The last two kinds hold the trusted key. One edits a value of the report that follows
from evidence, renders the page again and signs; that must be refused too. The other edits evidence, computes the report
anew and signs everything: where that is accepted it is another true report, so only a crash counts.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mutations import KINDS, NOW, Files, Scratch
from synthetic_runs import make_run

from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.errors import VerificationError

SIGNED_ANEW = "evidence, signed anew"
"""The kind of mutation after which a report may be accepted: it is another true one."""


def bundles(folder: Path) -> tuple[Files, Files]:
    """Two signed bundles with their models, by the same signer; both say PASS."""
    files = []
    for name, queries in (("one", 240), ("two", 248)):
        run = make_run(folder / name, 3, queries, weights=300 + queries)
        bundle = evidence.build(run, folder, folder / "key", name=name, now=NOW)
        places = {"bundle": bundle, "model": run / "model"}
        files.append(
            {
                f"{kind}/{path.relative_to(place).as_posix()}": path.read_bytes()
                for kind, place in places.items()
                for path in place.rglob("*")
                if path.is_file()
            }
        )
    return files[0], files[1]


@dataclass
class Tally:
    """Outcomes by kind of mutation, the checks that refused, and what should not have been.

    counts: kind -> "tried", "unchanged", "accepted", "refused", "crashed", "accepted unduly" and "refused unduly" -> number.
    checks: kind -> check -> number of refusals.
    wrong: a sentence for each undue outcome.
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    checks: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)

    def total(self, outcome: str) -> int:
        """An outcome over all kinds."""
        return sum(line[outcome] for line in self.counts.values())


def tampered(count: int, seed: int, folder: Path) -> Tally:
    """Outcomes of so many random mutations of a fresh bundle; `folder` is empty."""
    draw, tally = random.Random(seed), Tally()
    keys.keygen(folder / "key", None)
    key = keys.load_signer(folder / "key")
    scratch = Scratch(folder / "scratch", *bundles(folder), key)
    for number in range(count):
        name = draw.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
        scratch.reset()
        KINDS[name][0](scratch, draw)
        _try(scratch, tally, name, number)
    return tally


def _try(scratch: Scratch, tally: Tally, name: str, number: int) -> None:
    same, trusted = scratch.same(), [keys.public_of(scratch.signer)]
    counts = tally.counts[name]
    counts["tried"] += 1
    counts["unchanged"] += same
    try:
        verification.check(scratch.place / "bundle", trusted, model=scratch.place / "model", now=NOW)
        outcome = "accepted"
    except VerificationError as error:
        outcome = "refused"
        tally.checks[name][error.check.partition(":")[0]] += 1
    except Exception as error:  # a crash is what is looked for
        outcome = "crashed"
        tally.wrong.append(f"mutation {number} ({name}): {type(error).__name__} {error}")
    counts[outcome] += 1
    if (outcome == "accepted" and not (same or name == SIGNED_ANEW)) or (outcome == "refused" and same):
        counts[f"{outcome} unduly"] += 1
        tally.wrong.append(f"mutation {number} ({name}): {outcome}, {'un' if same else ''}changed")


def _print(tally: Tally, seconds: float) -> None:
    print(f"{'kind':<21} {'tried':>6} {'unchanged':>9} {'accepted':>8} {'refused':>7} {'crashed':>7}  most refused by")
    for name in KINDS:
        often = ", ".join(f"{code} {count}" for code, count in tally.checks[name].most_common(3))
        numbers = [tally.counts[name][column] for column in ("tried", "unchanged", "accepted", "refused", "crashed")]
        print(f"{name:<21} {numbers[0]:>6} {numbers[1]:>9} {numbers[2]:>8} {numbers[3]:>7} {numbers[4]:>7}  {often}")
    print("\n".join(tally.wrong[:20]))
    different = len(set().union(*tally.checks.values()))
    print(f"{tally.total('tried')} mutations, {seconds:.0f} s, {different} different checks refused")


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mutations", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.process_time()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        count = arguments.mutations or (2000 if arguments.quick else 20_000)
        tally = tampered(count, arguments.seed, Path(place))
    _print(tally, time.process_time() - start)
    lies = sum(line["tried"] - line["unchanged"] for name, line in tally.counts.items() if name != SIGNED_ANEW)
    undue = {
        f"changed bundles accepted, of {lies}": tally.total("accepted unduly"),
        f"unchanged bundles refused, of {tally.total('unchanged')}": tally.total("refused unduly"),
        "mutations answered by a crash": tally.total("crashed"),
    }
    print(json.dumps({name: {"value": value, "goal": 0, "holds": value == 0} for name, value in undue.items()}))
    sys.exit(1 if any(undue.values()) else 0)


if __name__ == "__main__":
    main()
