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
    python benchmarks/league.py --steps 40,80,160 [--quick] [--trials N] [--seeds K] [--methods ...] [--out FOLDER]

With --steps, one tuning rule for all and nothing tuned on this test bed: every method has the same number of trials; its learning rate alone is
searched, in the range that the range finder measures for its family; all other fields have their own defaults, which are their papers'
(`risk_aware`'s too, and the task's ranges are not used). For each number of optimiser steps and each seed the runs are compared by `froc compare`:
who leaves less of the forgotten at 95 % of the retained performance, with intervals, and which are ties. The ranking after each line is that.

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
from froc.comparison.document import BEFORE
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.errors import FrocError
from froc.hyperparameters import spaces
from froc.plugins import canonical_name, find
from froc.search.build import cache_folder
from froc.search.run_folder import Folder
from froc.training import embedded
from froc.training.method import Method

EPOCHS = 5
BATCH = 32
MEASURED = 0.99
"""Budget of an attack's risk, which is measured and not asked for: above the limit, it would keep the calibration queries sealed."""
STEPS = 800
"""Of teaching TOFU's text to a small model."""
METHODS = (
    "none,retrain,grad_ascent,task_vector,grad_diff,kl_min,wga,satimp,npo,simnpo,idk,altpo,flat,undial,ceu,rmu,adaptive_rmu,pdu,"
    "dipo,e2urec,poison,kuda,srmu,u_can,rule,curvature,k_fade,ofmu,ofmu_first,compose,gu(npo),blur(npo),guard(npo),sure(npo),lat(npo),"
    "advunlearn(npo),fit(npo),cure(npo),jensun,tnpo,circuit_breakers,whp,repselect,"
    "tar,smooth(npo),gru(npo),hamu(grad_diff),agt(npo),risk_aware"
)
QUICK = "none,pdu"
RULED = "grad_diff,npo,simnpo,undial,rmu,pdu,risk_aware"
RULED_QUICK = "npo,risk_aware"
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
        {risk: task.limit if risk in (FORGETTING, UTILITY) else MEASURED for risk in task.risks}, out=place, methods=[name], trials=trials if fields else 1,
        candidates=3 if fields else 1, space=space, pruner="none", progress=False, parallel=1, seed=seed,
        **task.more,
    )  # fmt: skip
    done = finished_run.trials.filter(pl.col("status") == "complete")
    within = done.filter(pl.col("forgetting") <= task.limit)
    # empty where nothing was worth opening
    document = finished_run.certificate.document.get("candidates", ())
    curs = [{risk: candidate["cur"][risk]["simultaneous"] for risk in task.risks} for candidate in document]
    best = min(curs, key=worst) if curs else None
    return {
        "method": name,
        "search utility": None if within.is_empty() else float(within["utility"].to_numpy().min()),
        **(best or dict.fromkeys(task.risks)),
        "larger bound": worst(best) if best else None,
        "certified": best is not None and worst(best) <= task.limit,
        # where nothing is certified, nothing is kept
        "certified utility": min((cur["utility"] for cur in curs if worst(cur) <= task.limit), default=1.0),
        "cost": find(Method, name).cost(),
        "seconds": median(
            record.resources["cpu_seconds"] for record in Folder(place).log() if record.status == "complete"
        ),
    }


def plain_task(out: Path) -> Path:
    """The embedded task as a folder, without the ranges that it has for this model: rates are found, fields stay at their papers'."""
    place = out / "embedded-task"
    task = embedded_text.task()
    rows = {
        "forget": task.forget,
        "retain": task.retain,
        "forget_queries": task.queries[FORGETTING],
        "retain_queries": task.queries[UTILITY],
    }
    place.mkdir(parents=True, exist_ok=True)
    for name, of in rows.items():
        lines = [json.dumps({"question": row.question, "answer": row.answer, "group": row.group}) for row in of]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "idk.txt").write_text("\n".join(task.refusals) + "\n", encoding="utf-8")
    (place / "task.toml").write_text(
        f'name = "league"\nmodel = "{embedded.made(cache=cache_folder())}"\ntemplate = "{task.template}"\n[units]\nforgetting = "query"\n'
        'utility = "query"\n',
        encoding="utf-8",
    )
    return place


def under_the_rule(name: str, place: Path, steps: int, trials: int, seed: int, out: Path) -> dict[str, Any]:
    """One search of a method under the rule; its run folder and what it came to."""
    fields, made = spaces(find(Method, name)), find(Method, name)()
    fixed: dict[str, Any] = {
        f"{name}.{key}": [str(getattr(made, key))] for key in fields if key not in ("lr", "epochs") and "(" not in name
    }
    rows = len((place / "forget.jsonl").read_text(encoding="utf-8").splitlines())
    run = out / f"{name.replace('(', '-').replace(')', '')}-{steps}-{seed}"
    # each search is a statement of its own, and so is the comparison
    os.environ["FROC_STATE"] = str(out / f"state-{run.name}")
    done = froc.search.run(
        0.1, out=run, task=place, methods=[name], trials=trials, candidates=3, pruner="none", progress=False, parallel=1, seed=seed,
        space={**fixed, "epochs": [f"{steps * BATCH / rows:g}"]}, batch=BATCH, split_seed=seed,
    )  # fmt: skip
    document = done.certificate.document
    bounds = [
        {risk: c["cur"][risk]["simultaneous"] for risk in (FORGETTING, UTILITY)} for c in document.get("candidates", ())
    ]
    best = min(bounds, key=worst, default={FORGETTING: 1.0, UTILITY: 1.0})
    return {"run": run, "certified": document["chosen"] is not None, **best}


def ruled(names: Sequence[str], budgets: Sequence[int], trials: int, seeds: int, out: Path) -> dict[str, Any]:
    """Every budget of steps and seed: a line per method, then the ranking with its ties; the ranks as one JSON document."""
    place, ranks = plain_task(out), {}
    print(
        f"{trials} trials of each method, {seeds} seeds, budget 0.1, learning rates found, all else as in the papers\n"
    )
    print("| steps | seed | method | CUR forgetting | CUR utility | certified |\n| --- | --- | --- | --- | --- | --- |")
    for steps in budgets:
        for seed in range(seeds):
            entries = {name: under_the_rule(name, place, steps, trials, seed, out) for name in names}
            for name, entry in entries.items():
                certified = "yes" if entry["certified"] else "no"
                print(
                    f"| {steps} | {seed} | {name} | {entry[FORGETTING]:.3f} | {entry[UTILITY]:.3f} | {certified} |",
                    flush=True,
                )
            ranks[f"{steps} steps, seed {seed}"] = ranking(
                [entry["run"] for entry in entries.values()], place, out / f"compare-{steps}-{seed}"
            )
            print(f"\n{ranks[f'{steps} steps, seed {seed}']}\n", flush=True)
    return ranks


def ranking(runs: Sequence[Path], task: Path, out: Path) -> str:
    """Best first at 95 % of the retained performance, and which are not told apart from the best; why not, where they cannot be compared."""
    os.environ["FROC_STATE"] = str(out.with_name(f"state-{out.name}"))
    try:
        document = froc.compare(runs, task=task, retain=(0.95,), tries=1, out=out, progress=False).document
    except FrocError as error:
        return f"not compared: {error}"
    stage = next(stage for stage in document["ranking"] if stage != BEFORE)
    order = document["ranking"][stage]
    tied = f" (not told apart from the first: {', '.join(order['tied'])})" if order["tied"] else ""
    return " > ".join(order["methods"]) + tied


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
    number = {key: "-" if average[key] is None else f"{average[key]:.3f}" for key in ("search utility", *risks)}
    further = [number[risk] for risk in COLUMNS if risk in risks]
    count = average["searches"]
    certified = f"{average['certified']} of {count}" if count > 1 else "yes" if average["certified"] else "no"
    cells = [average["method"], number["search utility"], number["forgetting"], number["utility"], certified]
    return "| " + " | ".join([*cells, *further, f"{average['cost']:.2f}", f"{average['seconds']:.1f}"]) + " |"


def promises(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every method beats doing nothing; the risk-aware one's certified utility risk is the least."""
    bounds = {row["method"]: row["larger bound"] for row in rows if row["method"] != "none"}
    # where nothing was worth opening there is no bound
    idle = [method for method, bound in bounds.items() if bound is not None and bound >= 1.0]
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
    parser.add_argument("--steps", help="numbers of optimiser steps such as 40,80,160: one tuning rule for all")
    parser.add_argument("--methods")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trials = arguments.trials or (2 if arguments.quick else 12)
    wanted = arguments.methods or (QUICK if arguments.quick else ON_TOFU if arguments.tofu else METHODS)
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        if arguments.steps:
            names = [
                canonical_name(Method, name)
                for name in (arguments.methods or (RULED_QUICK if arguments.quick else RULED)).split(",")
            ]
            steps = [int(count) for count in arguments.steps.split(",")]
            print(json.dumps(ruled(names, steps, trials, arguments.seeds, out)))
            return
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
