"""What do metrics and attacks cost? On the embedded task.

Seconds of every metric and attack on the search's forget queries, and all teacher-forced metrics of one trial together against
the time that trains it.

    python benchmarks/metrics.py [--quick]

One thread; start it with nothing else running. `--quick` times the training once.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from froc.data.splits import SearchView, split
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.measuring.attack import Attack
from froc.measuring.measurement import measurement, plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import Probe, measured, probes
from froc.models.base import Base
from froc.plugins import find, names
from froc.search.build import cache_folder
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training import embedded

Promises = dict[str, dict[str, Any]]
UNLEARNED = (
    TrialSpec("npo", {"lr": 1e-3, "beta": 0.1, "retain_weight": 3.0, "epochs": 5}, 0),
    TrialSpec("grad_diff", {"lr": 1e-3, "retain_weight": 5.0, "epochs": 5}, 0),
    TrialSpec("simnpo", {"lr": 1e-3, "epochs": 5}, 0),
    TrialSpec("idk", {"lr": 1e-3, "epochs": 5}, 0),
    TrialSpec("rmu", {"lr": 3e-3, "epochs": 5}, 0),
)


def goal(value: Any, wanted: str, holds: bool) -> dict[str, Any]:
    """One promise."""
    return {"value": value, "goal": wanted, "holds": bool(holds)}


def options(task: Task) -> Task:
    """The task with three other answers for each forget query, for metrics that read them."""
    answers = sorted({row.answer for row in task.forget})
    draw = np.random.default_rng(0)

    def more(row: Row) -> Row:
        others = [answer for answer in draw.permutation(answers).tolist() if answer != row.answer][:3]
        return replace(row, others=tuple(others))

    queries = {risk: tuple(more(row) for row in rows) for risk, rows in task.queries.items()}
    return replace(task, queries=queries)


def measurable(view: SearchView, base: Base, settings: Mapping[str, str]) -> list[Probe]:
    """A probe on forget queries, its risk called like the metric, for every metric that this task has the data for.

    settings: metric -> its settings, as they are written after its name.
    """
    usable = []
    for name in names(Metric):
        try:
            wanted = measurement(":".join([name, *filter(None, [settings.get(name)])]))
            usable += probes(base, {name: view.queries[FORGETTING]}, {name: wanted}, view)
        except InputError as why:
            print(f"  {name}: not here: {str(why).partition(') ')[2]}")
    return usable


def cost(quick: bool) -> Promises:
    """Seconds of metrics and attacks, and teacher-forced metrics against training."""
    base = embedded.base(cache=cache_folder())
    view, _ = split(options(embedded_text.task()), 0.2)
    bench = TrialRunner(
        base,
        view,
        plain({r: find(Metric, "extraction_strength")() for r in view.queries}),
        batch=32,
        seed=0,
        swept=False,
    )
    spec = replace(UNLEARNED[0], params={**UNLEARNED[0].params, "epochs": 7})
    training = _least(lambda: bench.retrain(spec), 1 if quick else 3)
    print(f"cost: a trial of NPO trains for {training:.2f} s")
    read = [name for name in names(Metric) if not find(Metric, name).bank and _free(name)]
    wanted = {f"{name}/{pool}": measurement(f"{name}/{pool}") for name in read for pool in (FORGETTING, UTILITY)}
    queries = {risk: view.queries[measure.pool] for risk, measure in wanted.items()}
    together = probes(base, queries, wanted, view)
    bench.retrain(spec)
    every = _least(lambda: measured(base, together), 3)
    share = every / training
    print(f"  teacher-forced metrics together ({', '.join(read)}; {sum(len(q) for q in view.queries.values())} queries): "
          f"{every:.3f} s, {share:.3f} of training")  # fmt: skip
    print(f"\n  seconds on {len(view.queries[FORGETTING])} forget queries")
    for probe in measurable(view, base, {}):
        print(f"  metric {probe.risk:24} {_least(partial(measured, base, [probe]), 1):8.3f}", flush=True)
    for name in names(Attack):
        strength = {FORGETTING: measurement(f"extraction_strength@{name}")}
        try:
            (probe,) = probes(base, {FORGETTING: view.queries[FORGETTING]}, strength, view)
            taken = _least(partial(measured, base, [probe]), 1)
            print(f"  attack {name:24} {taken:8.3f}", flush=True)
        except InputError as why:
            print(f"  attack {name}: not here: {why}")
    return {"teacher-forced metrics over training": goal(round(share, 3), "< 0.3", share < 0.3)}


def _free(name: str) -> bool:
    """Whether a metric reads nothing but answer tokens."""
    try:
        return not measurement(name).metric.reads
    except InputError:
        return False


def _least(work: Callable[[], Any], times: int) -> float:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(cost(arguments.quick)))


if __name__ == "__main__":
    main()
