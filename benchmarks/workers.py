"""Do two worker processes on two cores do more trials an hour than one? The same search, the same losses.

python benchmarks/workers.py [--quick] [--trials 24]

Two workers have a thread each; one worker has one thread, or both: then the second core is not idle beforehand. Time runs from the start of the first trial to the end of the last, read off
the run's own log, so that loading the model does not count. Start it with nothing else running.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path


def searched(out: Path, trials: int, workers: int, threads: int) -> tuple[float, bytes]:
    """Trials an hour, and the search losses."""
    command = [
        sys.executable, "-m", "froc", "search", "--budget", "0.1", "--trials", str(trials), "--methods", "npo,grad_diff",
        "--no-sweep", "--pruner", "none", "--executor", "processes", "--workers", str(workers), "--parallel", "4",
        "--out", str(out), "--quiet",
    ]  # fmt: skip
    environment = os.environ | {"FROC_STATE": str(out.parent / f"state-{out.name}"), "OMP_NUM_THREADS": str(threads)}
    code = subprocess.run(command, env=environment, check=False, capture_output=True).returncode
    if code not in (0, 3):
        raise SystemExit(f"a search with {workers} worker(s) ended with exit code {code}")
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    begin = min(datetime.fromisoformat(line["started"]) for line in lines)
    end = max(datetime.fromisoformat(line["ended"]) for line in lines)
    return 3600 * len(lines) / (end - begin).total_seconds(), (out / "losses" / "search.parquet").read_bytes()


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trials", type=int)
    arguments = parser.parse_args()
    trials = arguments.trials or (8 if arguments.quick else 24)
    with tempfile.TemporaryDirectory() as folder:
        rates, losses = {}, {}
        for workers, threads in ((1, 1), (1, 2), (2, 1)):
            place = Path(folder) / f"run-{workers}-{threads}"
            rates[workers, threads], losses[workers, threads] = searched(place, trials, workers, threads)
            print(
                f"{workers} worker(s) of {threads} thread(s): {rates[workers, threads]:8.0f} trials an hour", flush=True
            )
    ratio, against_both_threads = rates[2, 1] / rates[1, 1], rates[2, 1] / rates[1, 2]
    same = losses[1, 1] == losses[2, 1]
    promises = {
        "trials an hour, two workers over one, a thread each": {
            "value": round(ratio, 2),
            "goal": ">= 1.8",
            "holds": ratio >= 1.8,
        },
        "two workers over one that has both threads": {"value": round(against_both_threads, 2), "goal": "reported"},
        "the same search losses": {"value": same, "goal": True, "holds": same},
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
