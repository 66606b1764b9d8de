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
from pathlib import Path

from mutations import KINDS, NOW, Files, Scratch
from verifying import make_run

from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.errors import VerificationError


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


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mutations", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    many = arguments.mutations or (2000 if arguments.quick else 20_000)
    draw = random.Random(arguments.seed)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[str] = []
    start = time.process_time()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        folder = Path(place)
        keys.keygen(folder / "key", None)
        key = keys.load_signer(folder / "key")
        good, second_bundle = bundles(folder)
        scratch = Scratch(folder / "scratch", good, second_bundle, key)
        trusted = [keys.public_of(key)]
        for number in range(many):
            name = draw.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
            scratch.reset()
            KINDS[name][0](scratch, draw)
            same = scratch.same()
            true = same or name == "evidence, signed anew"
            counts[name]["tried"] += 1
            counts[name]["unchanged"] += same
            try:
                verification.check(scratch.place / "bundle", trusted, model=scratch.place / "model", now=NOW)
                outcome = "accepted"
            except VerificationError as error:
                outcome = "refused"
                codes[name][error.check.partition(":")[0]] += 1
            except Exception as error:  # a crash is what is looked for
                outcome = "crashed"
                wrong.append(f"mutation {number} ({name}): {type(error).__name__} {error}")
            counts[name][outcome] += 1
            if (outcome == "accepted" and not true) or (outcome == "refused" and same):
                counts[name][f"{outcome} unduly"] += 1
                wrong.append(f"mutation {number} ({name}): {outcome}, {'un' if same else ''}changed")
    print(f"{'kind':<21} {'tried':>6} {'unchanged':>9} {'accepted':>8} {'refused':>7} {'crashed':>7}  most refused by")
    for name in KINDS:
        line, often = counts[name], ", ".join(f"{code} {count}" for code, count in codes[name].most_common(3))
        print(
            f"{name:<21} {line['tried']:>6} {line['unchanged']:>9} {line['accepted']:>8} {line['refused']:>7} {line['crashed']:>7}  {often}"
        )
    for sentence in wrong[:20]:
        print(sentence)
    whole = {name: sum(line[name] for line in counts.values()) for name in ("tried", "unchanged", "crashed")}
    print(
        f"{whole['tried']} mutations, {time.process_time() - start:.0f} s, {len(set().union(*codes.values()))} different checks refused"
    )
    passed = sum(line["accepted unduly"] for line in counts.values())
    kept = sum(line["refused unduly"] for line in counts.values())
    lies = sum(line["tried"] - line["unchanged"] for name, line in counts.items() if name != "evidence, signed anew")
    promises = {
        f"changed bundles accepted, of {lies}": {"value": passed, "goal": 0, "holds": passed == 0},
        f"unchanged bundles refused, of {whole['unchanged']}": {"value": kept, "goal": 0, "holds": kept == 0},
        "mutations answered by a crash": {"value": whole["crashed"], "goal": 0, "holds": whole["crashed"] == 0},
    }
    print(json.dumps(promises))
    sys.exit(0 if all(promise["holds"] for promise in promises.values()) else 1)


if __name__ == "__main__":
    main()
