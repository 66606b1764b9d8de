"""Do removals add up? Three requests one after the other on the embedded task, each from the model that the last one chose.

Runs the real command (`froc search --after RUN`) and prints the curve that the runs keep (search queries), the bounds that
each run certified, and beside them the truth: every query of each request's population, asked of each chosen model.
`--quick` makes two requests with fewer trials.

    python benchmarks/continual.py [--quick] [--requests 3] [--trials 16]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from froc.data.continual import risks
from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY, Query
from froc.data.tasks import embedded_text
from froc.loss_table import SCALE
from froc.measuring.query_losses import measured, probes
from froc.models.base import load
from froc.search.build import cache_folder
from froc.search.settings import Settings, measures
from froc.training import embedded

BUDGET = 0.1
ROOT = Path(__file__).resolve().parents[1]


def search(out: Path, trials: int, after: Path | None, state: Path) -> float:
    """Run the command; seconds. Raises SystemExit where nothing was certified: there is no model to go on from."""
    begin = time.monotonic()
    words = ["search", "--budget", str(BUDGET), "--trials", str(trials), "--methods", "npo,grad_diff", "--quiet"]
    words += ["--executor", "inline", "--out", str(out), *(["--after", str(after)] if after else [])]
    env = os.environ | {"FROC_STATE": str(state), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "froc", *words], env=env, check=False)
    if done.returncode:
        raise SystemExit(f"froc search ended with {done.returncode}; more --trials may help")
    return time.monotonic() - begin


def truth(model: Path, requests: int) -> dict[str, float]:
    """Number of the request -> its risk over all of its population, on the model as it was saved."""
    base = load(str(model), device="cpu", dtype="float32")
    known = {
        str(k): tuple(
            Query(f"{i:016x}", f"{i:016x}", row)
            for i, row in enumerate(embedded_text.population(request=k)[FORGETTING])
        )
        for k in range(1, requests + 1)
    }
    measurement = measures(Settings(dict.fromkeys((FORGETTING, UTILITY), BUDGET)))[FORGETTING]
    view, _ = split(embedded_text.task(), 0.2)
    losses_by_request = measured(base, probes(base, known, dict.fromkeys(known, measurement), view))
    return {k: int(losses.sum(dtype="int64")) / (SCALE * len(losses)) for k, losses in losses_by_request.items()}


def bounds(row: dict[str, Any]) -> dict[str, float]:
    """Number of the request -> the bound that a run certified of its chosen model."""
    certified_risks, number = row["certificate"]["risks"], row["removals"]
    names = {str(k): risk for k, risk in enumerate(risks(number - 1), start=1)} if number > 1 else {}
    return {k: certified_risks[risk]["at_most"] for k, risk in (names | {str(number): FORGETTING}).items()}


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--trials", type=int)
    arguments = parser.parse_args()
    requests, trials = arguments.requests or (2 if arguments.quick else 3), arguments.trials or 16
    embedded.made(cache=cache_folder())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        runs = [place / f"run-{k}" for k in range(1, requests + 1)]
        seconds = [search(run, trials, runs[k - 1] if k else None, place / "state") for k, run in enumerate(runs)]
        rows = json.loads((runs[-1] / "sustainability.json").read_text(encoding="utf-8"))["removals"]
        true = [truth(run / "model", k) for k, run in enumerate(runs, start=1)]
    print(f"budget {BUDGET} for every risk, {trials} trials a run; search losses / certified at most / true risk")
    numbers = [str(k) for k in range(1, requests + 1)]
    columns = [*(f"request {k}" for k in numbers), "utility", "seconds"]
    print(f"{'removals':>8} " + " ".join(f"{name:>24}" for name in columns))
    for row, known, took in zip(rows, true, seconds, strict=True):
        most = bounds(row)
        cells = [
            f"{row['forgetting'][k]:.3f} / {most[k]:.3f} / {known[k]:.3f}"
            if k in most
            else f"{row['forgetting'][k]:.3f} before"
            if k in row["forgetting"]
            else ""
            for k in numbers
        ]
        own = row["certificate"]["risks"][UTILITY]["at_most"]
        cells += [f"{row['utility']:.3f} / {own:.3f} (own base)", f"{took:.0f}"]
        print(f"{row['removals']:>8} " + " ".join(f"{cell:>24}" for cell in cells))
    worst = max(risk for known in true for risk in known.values())
    missed = sum(known[k] > most for row, known in zip(rows, true, strict=True) for k, most in bounds(row).items())
    promises = {
        "largest true risk of a removed request after any later removal": {
            "value": round(worst, 4), "goal": f"<= {BUDGET}", "holds": worst <= BUDGET,
        },
        "certified bounds below the truth": {"value": missed, "goal": "<= 0", "holds": missed == 0},
        "removals certified one after the other": {
            "value": len(rows), "goal": f">= {requests}", "holds": len(rows) >= requests,
        },
    }  # fmt: skip
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
