"""A league of unlearning methods on the embedded task, each with the same number of optimiser steps.

Every method is searched by itself, with the same trials and passes over the forget rows, and its candidates are certified on
sealed queries. A row says, of the method's best candidate:

* utility: smallest utility risk on the search queries among all its configurations (stops and mixes too) whose forgetting risk
  there is at most 0.1; nothing where it came to none;
* CUR of forgetting and utility: upper bounds at confidence 0.9, simultaneous over the method's own candidates, of the candidate
  whose larger one is smallest; certified: both at most 0.1;
* relearned, quantised: CUR of forgetting after training on other facts of the same people, and in 4 and 8 bits; whether within 0.1;
* cost: of a step relative to gradient difference, as declared, and CPU seconds of a trial, its search measurements included.

    python benchmarks/league.py [--quick] [--trials N] [--methods npo,gu(npo),...] [--out FOLDER]

A method that leaves more utility risk than `none` leaves forgetting risk has not beaten it: the promise is that every method
whose paper holds retain rows does. One thread; every row keeps its own count of openings, for each is a statement of its own.
With --out, what was stopped goes on.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import torch

import froc
from froc.methods import Method
from froc.params import spaces
from froc.plugins import find, spelled
from search.folder import Folder

LIMIT = 0.1
EPOCHS = 5
RISKS = ("forgetting", "utility", "relearning", "quantized")
METHODS = (
    "none,grad_ascent,task_vector,grad_diff,kl_min,wga,satimp,npo,simnpo,idk,altpo,flat,undial,ceu,rmu,adaptive_rmu,pdu,"
    "gu(npo),blur(npo),guard(npo),sure(npo),lat(npo),advunlearn(npo)"
)
QUICK = "none,pdu"


def row(name: str, trials: int, out: Path) -> dict[str, Any]:
    """What a method came to."""
    place = out / name.replace("(", "-").replace(")", "")
    os.environ["FROC_STATE"] = str(place.with_name(f"state-{place.name}"))
    fields = spaces(find(Method, name))
    space: Mapping[str, Any] = {"epochs": [str(EPOCHS)]} if "epochs" in fields else {}
    found = froc.search(
        dict.fromkeys(RISKS, LIMIT), out=place, methods=[name],
        trials=trials if fields else 1, candidates=3 if fields else 1, space=space, pruner="none", progress=False,
        parallel=1,
    )  # fmt: skip
    done = found.trials.filter(pl.col("status") == "complete")
    within = done.filter(pl.col("forgetting") <= LIMIT)
    curs = [
        {risk: one["cur"][risk]["simultaneous"] for risk in RISKS} for one in found.certificate.document["candidates"]
    ]
    best = min(curs, key=lambda cur: max(cur["forgetting"], cur["utility"]))
    return {
        "method": name,
        "utility": None if within.is_empty() else float(within["utility"].min()),  # type: ignore[arg-type]  # of floats
        "lost": best["utility"],
        **{risk: best[risk] for risk in RISKS if risk != "utility"},
        "certified": max(best["forgetting"], best["utility"]) <= LIMIT,
        "cost": find(Method, name).cost(),
        "seconds": median(one.resources["cpu_seconds"] for one in Folder(place).log() if one.status == "complete"),
        "beats_none": max(best["forgetting"], best["utility"]) < 1.0,
    }


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--methods")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    torch.set_num_threads(1)
    trials = said.trials or (2 if said.quick else 12)
    wanted = (said.methods or (QUICK if said.quick else METHODS)).split(",")
    print(f"{trials} trials of {EPOCHS} passes over the forget rows per method\n")
    print(
        "| method | utility at forgetting <= 0.1 | CUR forgetting | CUR utility | certified | relearned | quantised | cost | CPU s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in wanted:
            one = row(spelled(Method, name), trials, said.out or Path(folder))
            rows.append(one)
            utility = "-" if one["utility"] is None else f"{one['utility']:.3f}"
            print(
                f"| {one['method']} | {utility} | {one['forgetting']:.3f} | {one['lost']:.3f} | "
                f"{'yes' if one['certified'] else 'no'} | {one['relearning']:.3f} | {one['quantized']:.3f} | {one['cost']:.2f} | {one['seconds']:.1f} |",
                flush=True,
            )
    holds = [one["method"] for one in rows if not one["beats_none"] and one["method"] != "none"]
    print(json.dumps({"every method beats none": {"value": holds, "goal": [], "holds": not holds}}))


if __name__ == "__main__":
    main()
