"""Is a search cheaper than one process per trial? Against `benchmarks/conventional.py`, one thread, at equal work.

* process: trials per hour and memory;
* grid: time until the best certified configuration of a 27-point grid is known.

    python benchmarks/processes.py [--quick] [--only process,grid]

Start it with nothing else running. `--quick` measures fewer conventional processes.
"""

import argparse
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_loop import BATCH
from engine import NPO, SHARE, Promises, bench_of, brief, goal, reported, show, trials, view_of
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from froc.data.splits import SearchView, split
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.data.tasks import embedded_text
from froc.data.tasks import folder as folders
from froc.models import base
from froc.search.build import cache_folder
from froc.search.run_folder import Folder, TrialRecord
from froc.search.trial.outcome import TrialSpec, trial_seed
from froc.training import embedded

ROOT = Path(__file__).resolve().parent.parent
AMORTISED = 30
"""Trials that share one start of the process."""
GRID = {"lr": (5e-4, 1e-3, 2e-3), "beta": (0.05, 0.1, 0.5), "retain_weight": (1.0, 3.0, 10.0), "epochs": (7,)}
BUDGET = 0.1


@dataclass(frozen=True)
class Place:
    """A folder with the embedded task and model as files, for processes of their own."""

    folder: Path
    model: str

    @classmethod
    def make(cls, folder: Path) -> "Place":
        """Write the task: as froc reads it, and its search queries as the conventional script does."""
        task, view = embedded_text.task(), view_of()
        _write_task(task, folder / "task")
        (folder / "data.json").write_text(json.dumps(_conventional_data(view)), encoding="utf-8")
        return cls(folder, embedded.base(cache=cache_folder()).name)

    def wide(self) -> "Place":
        """The same with random weights, a wider model and a vocabulary of the usual size, where memory is tensors."""
        config = AutoConfig.from_pretrained(
            self.model, vocab_size=32_000, hidden_size=256, intermediate_size=1024, head_dim=64
        )
        torch.manual_seed(0)
        model, target = AutoModelForCausalLM.from_config(config, dtype=torch.float32), self.folder / "wide"
        model.save_pretrained(target, safe_serialization=True)
        AutoTokenizer.from_pretrained(self.model).save_pretrained(target)
        return replace(self, model=str(target))

    def view(self) -> SearchView:
        """What a search of the task folder sees."""
        return split(folders.load(self.folder / "task")[0], SHARE)[0]

    def call(self, *words: str) -> tuple[float, str]:
        """(seconds, standard output) of a Python process; RuntimeError with its last words where it fails."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path,
            "FROC_STATE": str(self.folder / "state"),
        }  # fmt: skip
        # Linux hands the peak memory of a process on to what it starts, so a small shell stands between
        shell = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable]
        begin = time.perf_counter()
        done = subprocess.run(
            [*shell, *words], env=os.environ | environment, capture_output=True, text=True, check=False
        )
        taken = time.perf_counter() - begin
        if done.returncode:
            raise RuntimeError(f"{' '.join(words[:3])} failed: {done.stderr[-2000:]}{done.stdout[-500:]}")
        return taken, done.stdout

    def conventional(self, spec: TrialSpec = NPO) -> dict[str, Any]:
        """One conventional trial; `wall`: seconds of the whole process."""
        options = {"--lr": "lr", "--beta": "beta", "--retain-weight": "retain_weight", "--epochs": "epochs"}
        words = [word for option, name in options.items() for word in (option, str(spec.params[name]))]
        wall, printed = self.call(
            str(ROOT / "benchmarks" / "conventional.py"), "--model", self.model, "--data", str(self.folder / "data.json"),
            *words, "--batch", str(BATCH), "--seed", str(spec.seed),
        )  # fmt: skip
        outcome: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return outcome | {"wall": wall}

    def ours(self, count: int, spec: TrialSpec = NPO) -> dict[str, Any]:
        """Trials one after another in a process of their own; `start`: its seconds for anything but trials."""
        wall, printed = self.call(
            str(Path(__file__)), "--child", str(count), str(self.folder), self.model, json.dumps(spec.params)
        )
        outcome: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return outcome | {"start": wall - sum(outcome["trials"])}


def child(count: int, folder: Path, model: str, params: Mapping[str, Any]) -> None:
    """What `Place.ours` starts: trials, and the process's memory."""
    imported, taken = _resident(), []
    place = Place(folder, model)
    bench = bench_of(base.load(model, device="cpu"), place.view())
    for seed in range(count):
        begin = time.perf_counter()
        steps = trials(bench, [TrialSpec(NPO.method, params, seed)])[0].steps
        taken.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    usage = {"trials": taken, "steps": steps, "rss_after_import_mb": imported, "peak_rss_mb": peak}
    print(json.dumps(usage))


def _resident() -> float:
    """MiB of memory this process holds now, as the conventional script reads it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _write_task(task: Task, folder: Path) -> None:
    folder.mkdir()
    files = {"forget": task.forget, "retain": task.retain}
    files |= {"forget_queries": task.queries[FORGETTING], "retain_queries": task.queries[UTILITY]}
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    (folder / "idk.txt").write_text("\n".join(task.refusals), encoding="utf-8")
    units = "\n".join(f"{risk} = {json.dumps(unit)}" for risk, unit in task.units.items())
    text = f"name = {json.dumps(task.name)}\ntemplate = {json.dumps(task.template)}\n\n[units]\n{units}\n"
    (folder / "task.toml").write_text(text, encoding="utf-8")


def _conventional_data(view: SearchView) -> dict[str, Any]:
    def pairs(rows: Iterable[Row]) -> list[list[str]]:
        return [[row.question, row.answer] for row in rows]

    queries = {risk: pairs(query.row for query in queries_of_risk) for risk, queries_of_risk in view.queries.items()}
    return {
        "template": view.template.template,
        "forget": pairs(view.forget),
        "retain": pairs(view.retain),
        "queries": queries,
    }


def process(quick: bool) -> Promises:
    """Trials per hour and memory, against one process per trial at equal work."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place.make(Path(folder))
        theirs, mine = [], []
        for _ in range(1 if quick else 3):
            theirs.append(place.conventional())
            mine.append(place.ours(3 if quick else 5))
        wide, short = place.wide(), brief(1)
        large = None if quick else (wide.conventional(short), wide.ours(1, short))
    if theirs[0]["steps"] != mine[0]["steps"]:
        raise RuntimeError(f"unequal work: {theirs[0]['steps']} and {mine[0]['steps']} steps")
    conventional, start = min(run["wall"] for run in theirs), min(run["start"] for run in mine)
    # the least mean of consecutive trials, not the least trial: what a search pays is all of them
    trial = min(float(np.mean(run["trials"])) for run in mine)
    each = trial + start / AMORTISED
    fast, slow = 3600 / each, 3600 / conventional
    print(f"\nprocess: {mine[0]['steps']} steps and all search queries in every trial, no sweep, nothing pruned")
    parts = min(theirs, key=lambda run: run["wall"])["seconds"]
    show(
        {
            "conventional process": conventional,
            **{f"  of which {name}": parts[name] for name in ("import", "load", "train", "evaluate")},
            "froc, trial": trial,
            "froc, start of the process (once)": start,
            f"froc, trial with its part of a start for {AMORTISED}": each,
        }
    )
    print(f"  trials per hour: conventional {slow:.0f}, froc {fast:.0f}")
    speed = round(fast / slow, 2)
    promises = {"trials per hour against one process per trial": goal(speed, ">= 5", speed >= 5)}
    growth, whole = _memory("embedded model", theirs, mine)
    promises |= {
        "memory after imports against a conventional trial": goal(growth, "<= 0.6", growth <= 0.6),
        "whole memory against a conventional trial": reported(whole),
    }
    if large is not None:
        growth, whole = _memory("wider model of 32,000 tokens, random weights", [large[0]], [large[1]])
        promises["memory after imports, wider model"] = reported(growth)
        promises["whole memory, wider model"] = reported(whole)
    print("  the promise is judged by the growth after the imports: libraries take the rest, whoever trains")
    return promises


def _memory(model: str, theirs: Sequence[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """froc's memory over the conventional: growth after the imports, and the whole."""
    grown, whole = [], []
    for name, runs in (("froc", mine), ("conventional", theirs)):
        least = min(runs, key=lambda run: float(run["peak_rss_mb"]))
        whole.append(least["peak_rss_mb"])
        grown.append(least["peak_rss_mb"] - least["rss_after_import_mb"])
        print(f"  {model}: peak memory of {name:12} {whole[-1]:6.0f} MB, {grown[-1]:5.0f} MB of it after the imports")
    ratios = round(grown[0] / grown[1], 3), round(whole[0] / whole[1], 3)
    print(f"  {model}: ratio of the growth {ratios[0]:.2f}, of the whole {ratios[1]:.2f}")
    return ratios


def grid(quick: bool) -> Promises:
    """Time until the best certified configuration of a grid is known, with all that froc has to save work."""
    lists = GRID | ({"beta": (0.1,)} if quick else {})
    values = list(itertools.product(*lists.values()))
    with tempfile.TemporaryDirectory() as folder:
        place = Place.make(Path(folder))
        theirs = [place.conventional()["wall"] for _ in range(1 if quick else 3)]
        conventional = len(values) * float(np.mean(theirs))
        taken, chosen = _search(place, lists)
        print(f"\ngrid: {len(values)} configurations of NPO, budget {BUDGET:g} for each risk")
        show(
            {
                f"one process per trial ({len(theirs)} measured, scaled)": conventional,
                "froc search, certificate and all": taken,
            }
        )
        ratio = round(conventional / taken, 2)
        promises = {
            "time to the best certified of a grid": goal(ratio, ">= 10", ratio >= 10 and chosen is not None),
            "the grid's certificate has a choice": goal(chosen is not None, "true", chosen is not None),
        }
        if chosen is not None:
            print(f"  chosen {chosen.config}: {dict(chosen.params)}, search risks {chosen.search}")
        if chosen is None or quick:
            return promises
        mine, best = (
            max((chosen.search or {}).values()),
            _best(place, [dict(zip(GRID, point, strict=True)) for point in values]),
        )
    print(f"  worst search risk: chosen {mine:.4f}, best plain grid point {best:.4f}")
    return promises | {"the choice against the best plain grid point": goal(mine, f"<= {best:.4f}", mine <= best)}


def _search(place: Place, lists: Mapping[str, Sequence[float]]) -> tuple[float, TrialRecord | None]:
    """(seconds, the chosen configuration) of `froc search` over the grid, certificate, figures and model included."""
    space = [
        word for name, grid_values in lists.items() for word in ("--space", f"{name}={','.join(map(str, grid_values))}")
    ]
    out = place.folder / "run"
    words = [
        "--task",
        str(place.folder / "task"),
        "--model",
        place.model,
        "--device",
        "cpu",
        "--out",
        str(out),
        "--quiet",
    ]
    how = [
        "--sampler",
        "grid",
        "--methods",
        NPO.method,
        "--trials",
        str(math.prod(map(len, lists.values()))),
        "--budget",
        str(BUDGET),
    ]
    taken, _ = place.call("-m", "froc", "search", *words, *how, *space)
    run = Folder(out)
    chosen = (run.read(run.certificate) or {})["chosen"]
    every = [record for line in run.log() for record in line.configurations()]
    return taken, next((record for record in every if record.config == chosen), None)


def _best(place: Place, params: Sequence[Mapping[str, Any]]) -> float:
    """Least worst search risk of the grid's points, trained to their ends and measured as they are."""
    bench = bench_of(base.load(place.model, device="cpu"), place.view())
    ended = [
        trials(bench, [TrialSpec(NPO.method, point, trial_seed(0, k))])[0].ended[0] for k, point in enumerate(params)
    ]
    return min(max(outcome.means.values()) for outcome in ended)


PARTS: dict[str, Callable[[bool], Promises]] = {"process": process, "grid": grid}


def main() -> None:
    """Print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        count, folder, model, params = arguments.child
        child(int(count), Path(folder), model, json.loads(params))
        return
    promises: Promises = {}
    for name in arguments.only.split(","):
        promises |= PARTS[name](arguments.quick)
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
