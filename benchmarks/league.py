"""A league of unlearning methods on one task, each with the same number of optimiser steps.

Every method is searched by itself, with the same trials and passes over the forget rows, and its candidates are certified on
sealed queries. A row says, of the method's best candidate:

* utility: smallest utility risk on the search queries among all its configurations (stops and mixes too) whose forgetting risk
  there is at most the budget; nothing where it came to none;
* CUR of forgetting and utility: upper bounds at confidence 0.9, simultaneous over the method's own candidates, of the candidate
  whose larger one is smallest; certified: both within the budget;
* relearned, quantised: CUR of forgetting after training on other facts of the same people, and in 4 and 8 bits;
* depth: CUR of what the layers still carry of the answers (1 less the Unlearning Depth Score, against a retrained model);
* cost: of a step relative to gradient difference, as declared, and CPU seconds of a trial, its search measurements included.

    python benchmarks/league.py [--quick] [--tofu DIR] [--trials N] [--seeds K] [--methods npo,gu(npo),...] [--out FOLDER]

With --seeds each method is searched K times; numbers are means over the searches, and `certified` counts those that came to it.

--tofu takes forget05 of TOFU (budget 0.2, questions as units, forgetting and utility alone) and a small model that is taught its
text as for `benchmarks/compare.py --only tofu`. A method that leaves more utility risk than `none` leaves forgetting risk has not
beaten it: the promise is that every method does, and that no certified one leaves less utility risk than `risk_aware`, which trains
under the bounds. One thread; every row keeps its own count of openings, for each is a statement of its own. With --out, what was
stopped goes on, and rows that are there are printed again.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import polars as pl
import torch
from compare import TAUGHT, cut, teach

import froc
from froc.hyperparameters import spaces
from froc.plugins import canonical_name, find
from froc.search.build import cache_folder
from froc.search.run_folder import Folder
from froc.training import embedded
from froc.training.method import Method

EPOCHS = 5
STEPS = 800
"""Of teaching TOFU's text to a small model."""
METHODS = (
    "none,retrain,grad_ascent,task_vector,grad_diff,kl_min,wga,satimp,npo,simnpo,idk,altpo,flat,undial,ceu,rmu,adaptive_rmu,pdu,"
    "dipo,e2urec,poison,kuda,srmu,u_can,rule,curvature,k_fade,ofmu,ofmu_first,compose,gu(npo),blur(npo),guard(npo),sure(npo),lat(npo),"
    "advunlearn(npo),fit(npo),cure(npo),risk_aware"
)
QUICK = "none,pdu"
ON_TOFU = "none,grad_diff,npo,risk_aware"
COLUMNS = {"relearning": "relearned", "quantized": "quantised", "depth": "depth"}


@dataclass(frozen=True)
class Task:
    """What the methods are let loose on. more: further settings of `froc.search`."""

    limit: float
    risks: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Any] = field(default_factory=dict)


def on_embedded() -> Task:
    """The embedded task, with the attacks that a profile would make."""
    retrained = embedded.made(cache=cache_folder(), retrained=True)
    return Task(
        0.1,
        ("forgetting", "utility", "relearning", "quantized", "depth"),
        {"metric": {"depth": f"unlearning_depth:reference={retrained}"}},
    )


def on_tofu(data: Path, out: Path) -> Task:
    """forget05 with a small model that knows the authors, taught at first need."""
    place, model = out / "tofu", cache_folder() / f"{TAUGHT}-{STEPS}"
    cut(data, place)
    if not (model / "config.json").is_file():
        teach(place, model, STEPS)
    more = {"task": "tofu:forget05", "data": place, "model": str(model), "unit": {"utility": "query"}}
    return Task(0.2, ("forgetting", "utility"), more, {"lr": (1e-4, 2e-3)})


def row(name: str, task: Task, trials: int, out: Path, seed: int) -> dict[str, Any]:
    """What a method came to in one search."""
    place = out / (name.replace("(", "-").replace(")", "") + (f"-seed{seed}" if seed else ""))
    os.environ["FROC_STATE"] = str(place.with_name(f"state-{place.name}"))
    fields = spaces(find(Method, name))
    space = {key: value for key, value in task.space.items() if key in fields}
    space |= {"epochs": [str(EPOCHS)]} if "epochs" in fields else {}
    finished_run = froc.search.run(
        dict.fromkeys(task.risks, task.limit), out=place, methods=[name], trials=trials if fields else 1,
        candidates=3 if fields else 1, space=space, pruner="none", progress=False, parallel=1, seed=seed,
        **task.more,
    )  # fmt: skip
    done = finished_run.trials.filter(pl.col("status") == "complete")
    within = done.filter(pl.col("forgetting") <= task.limit)
    document = finished_run.certificate.document["candidates"]
    curs = [{risk: candidate["cur"][risk]["simultaneous"] for risk in task.risks} for candidate in document]
    best = min(curs, key=worst)
    return {
        "method": name,
        "search utility": None if within.is_empty() else float(within["utility"].to_numpy().min()),
        **best,
        "larger bound": worst(best),
        "certified": worst(best) <= task.limit,
        # where nothing is certified, nothing is kept
        "certified utility": min((cur["utility"] for cur in curs if worst(cur) <= task.limit), default=1.0),
        "cost": find(Method, name).cost(),
        "seconds": median(
            record.resources["cpu_seconds"] for record in Folder(place).log() if record.status == "complete"
        ),
    }


def averaged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A method's searches as one row: means, and how many were certified; no search utility where one search came to none."""
    average: dict[str, Any] = {"method": rows[0]["method"], "searches": len(rows)}
    for key in rows[0].keys() - {"method", "certified"}:
        values = [row[key] for row in rows]
        average[key] = None if None in values else mean(values)
    return average | {"certified": sum(row["certified"] for row in rows)}


def worst(cur: Mapping[str, float]) -> float:
    """The larger bound of the two that a method is certified by."""
    return max(cur["forgetting"], cur["utility"])


def line(average: Mapping[str, Any], risks: Sequence[str]) -> str:
    """A row of the table."""
    utility = "-" if average["search utility"] is None else f"{average['search utility']:.3f}"
    further = [f"{average[risk]:.3f}" for risk in COLUMNS if risk in risks]
    count = average["searches"]
    certified = f"{average['certified']} of {count}" if count > 1 else "yes" if average["certified"] else "no"
    cells = [average["method"], utility, f"{average['forgetting']:.3f}", f"{average['utility']:.3f}", certified]
    return "| " + " | ".join([*cells, *further, f"{average['cost']:.2f}", f"{average['seconds']:.1f}"]) + " |"


def promises(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every method beats doing nothing; the risk-aware one's certified utility risk is the least."""
    idle = [row["method"] for row in rows if row["method"] != "none" and row["larger bound"] >= 1.0]
    judged = {"every method beats none": {"value": idle, "goal": [], "holds": not idle}}
    lost = {row["method"]: row["certified utility"] for row in rows if row["certified"]}
    # a control is no method: it was never told what is to be forgotten
    others = [value for name, value in lost.items() if name not in ("risk_aware", "retrain")]
    if "risk_aware" in {row["method"] for row in rows} and others:
        mine = lost.get("risk_aware", 1.0)
        judged["certified utility risk of risk_aware"] = {
            "value": mine,
            "goal": min(others),
            "holds": mine <= min(others),
        }
    return judged


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tofu", type=Path)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trials = arguments.trials or (2 if arguments.quick else 12)
    wanted = arguments.methods or (QUICK if arguments.quick else ON_TOFU if arguments.tofu else METHODS)
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        task = on_tofu(arguments.tofu, out) if arguments.tofu else on_embedded()
        print(
            f"{arguments.seeds} x {trials} trials of {EPOCHS} passes over the forget rows per method, budget {task.limit}\n"
        )
        further = [name for risk, name in COLUMNS.items() if risk in task.risks]
        heads = [
            "method",
            f"utility at forgetting <= {task.limit}",
            "CUR forgetting",
            "CUR utility",
            "certified",
            *further,
        ]
        print("| " + " | ".join([*heads, "cost", "CPU s"]) + " |")
        print("| " + " | ".join(["---"] * (len(heads) + 2)) + " |")
        rows = []
        for name in wanted.split(","):
            rows.append(
                averaged(
                    [row(canonical_name(Method, name), task, trials, out, seed) for seed in range(arguments.seeds)]
                )
            )
            print(line(rows[-1], task.risks), flush=True)
    print(json.dumps(promises(rows)))


if __name__ == "__main__":
    main()
