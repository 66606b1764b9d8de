"""Does a search survive `kill -9`? Random moments, then the same command, until it ends; compared with an undisturbed run.

python benchmarks/faults.py [--quick] [--kills 10] [--trials 8]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

DONE = ("complete", "pruned")


def command(out: Path, trials: int) -> list[str]:
    """The search that is disturbed."""
    return [
        sys.executable, "-m", "froc", "search", "--budget", "0.2", "--trials", str(trials), "--methods", "npo,grad_diff,simnpo",
        "--out", str(out), "--quiet",
    ]  # fmt: skip


def started(out: Path) -> list[dict[str, object]]:
    """The run's log of started trials."""
    path = out / "trials.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--trials", type=int)
    said = parser.parse_args()
    kills, trials = said.kills or (3 if said.quick else 10), said.trials or (4 if said.quick else 8)
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        calm, rough = Path(folder) / "calm", Path(folder) / "rough"

        def env(name: str) -> dict[str, str]:
            return os.environ | {"FROC_STATE": str(Path(folder) / f"state-{name}")}

        subprocess.run(command(calm, trials), env=env("warm"), check=False)  # the embedded model may have to be trained
        begin = time.time()
        again = Path(folder) / "again"
        code = subprocess.run(command(again, trials), env=env("calm"), check=False).returncode
        whole = time.time() - begin
        first = datetime.fromisoformat(str(started(again)[0]["started"])).timestamp()
        ready = max(1.0, first - begin)
        print(f"undisturbed: exit {code}, {whole:.1f} s, {ready:.1f} s of them before the first trial")
        print(f"{'kill':>4} {'after':>7} {'trials started':>14} {'finished':>8}")
        done_twice: set[object] = set()
        for kill in range(kills):
            before = {line["config"] for line in started(rough) if line["ended"]}
            process = subprocess.Popen(command(rough, trials), env=env("rough"))
            # every other kill may hit the start-up too; the rest let some trials finish on the way
            wait = moments.uniform(0.3 if kill % 4 == 0 else ready, ready + 4 * (whole - ready) / kills)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            log = started(rough)
            done_twice |= {c for c in before if sum(line["config"] == c and bool(line["ended"]) for line in log) > 1}
            print(
                f"{kill:>4} {wait:>6.1f}s {len(log):>14} {sum(line['status'] in DONE for line in log):>8}", flush=True
            )
        last = subprocess.run(command(rough, trials), env=env("rough"), check=False).returncode
        same = (again / "certificate.json").read_bytes() == (rough / "certificate.json").read_bytes()
        finished = [line["config"] for line in started(rough) if line["status"] != "interrupted"]
        doubled = len(finished) - len(set(finished)) + len(done_twice)
        calm_same = (calm / "certificate.json").read_bytes() == (again / "certificate.json").read_bytes()
    promises = {
        "same certificate after kills": {"value": same, "goal": True, "holds": same and last == code},
        "finished trials run twice": {"value": doubled, "goal": 0, "holds": doubled == 0},
        "trials finished": {"value": len(set(finished)), "goal": trials, "holds": len(set(finished)) == trials},
        "same seed, same bytes": {"value": calm_same, "goal": True, "holds": calm_same},
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
