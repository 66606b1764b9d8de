"""Which forgetting metric can be trusted, and what do metrics and attacks cost? On the embedded task's small model.

Two parts:

* cost: seconds of every metric and attack on the search's forget queries; all teacher-forced metrics of one trial together
  against the time that trains it;
* meta: the meta-evaluation of OpenUnlearning (arXiv 2506.12618). Faithfulness: the area under the curve by which a metric
  tells models that were taught the facts from models that were not. Robustness of an unlearned model's number to relearning,
  R = min(1, (ret_a - ret_b) / (unl_a - unl_b)), and to 4-bit quantisation, Q = min(1, b / a), b before and a after;
  `ret` is a model that was never taught. Both are means over unlearned models, combined as harmonic means.

    python benchmarks/metrics.py [--quick] [--only cost,meta]

Models are small ones of the embedded kind, trained here; `--quick` trains fewer.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from cli.jobs import cache_folder
from froc.attacks import Attack
from froc.data import FORGETTING, UTILITY, Row, SearchView, Task, held, split
from froc.errors import InputError
from froc.measure import Probe, measured, probes
from froc.metrics import Metric
from froc.models import Base, load
from froc.plugins import find, names
from froc.risks import measurement, plain
from froc.tasks import embedded
from search.trial import Asked, Bench

Found = dict[str, dict[str, Any]]
SMALL = embedded.Recipe(
    people=10, forgotten=3, steps=600, width=64, layers=2, queries=150, vocabulary=700, lr=5e-3, batch=32
)
UNLEARNED = (
    Asked("npo", {"lr": 1e-3, "beta": 0.1, "retain_weight": 3.0, "epochs": 5}, 0),
    Asked("grad_diff", {"lr": 1e-3, "retain_weight": 5.0, "epochs": 5}, 0),
    Asked("simnpo", {"lr": 1e-3, "epochs": 5}, 0),
    Asked("idk", {"lr": 1e-3, "epochs": 5}, 0),
    Asked("rmu", {"lr": 3e-3, "epochs": 5}, 0),
)
KNOWN = 0.8
"""Largest share of the base's number that a model may keep to count as unlearned by a metric."""


def goal(value: Any, wanted: str, holds: bool) -> dict[str, Any]:
    """One promise."""
    return {"value": value, "goal": wanted, "holds": bool(holds)}


def options(task: Task) -> Task:
    """The task with three other answers and a paraphrase for each forget query, for metrics that read them."""
    answers = sorted({row.answer for row in task.forget})
    draw = np.random.default_rng(0)

    def more(row: Row) -> Row:
        others = [answer for answer in draw.permutation(answers).tolist() if answer != row.answer][:3]
        return replace(row, others=tuple(others))

    queries = {risk: tuple(more(row) for row in rows) for risk, rows in task.queries.items()}
    return replace(task, queries=queries)


def measurable(view: SearchView, base: Base) -> dict[str, Probe]:
    """metric -> probe on forget queries, for every metric that this task has the data for."""
    found = {}
    for name in names(Metric):
        try:
            one = {FORGETTING: view.queries[FORGETTING]}
            (found[name],) = probes(base, one, {FORGETTING: measurement(name)}, view)
        except InputError as why:
            print(f"  {name}: not here: {str(why).partition(') ')[2]}")
    return found


# cost


def cost(quick: bool) -> Found:
    """Seconds of metrics and attacks, and teacher-forced metrics against training."""
    base = embedded.base(cache=cache_folder())
    view, _ = split(options(embedded.task()), 0.2)
    bench = Bench(
        base,
        view,
        plain({r: find(Metric, "extraction_strength")() for r in view.queries}),
        batch=32,
        seed=0,
        swept=False,
    )
    asked = replace(UNLEARNED[0], params={**UNLEARNED[0].params, "epochs": 7})
    training = _least(lambda: bench.retrain(asked), 1 if quick else 3)
    print(f"cost: a trial of NPO trains for {training:.2f} s")
    read = [name for name in names(Metric) if not find(Metric, name).bank and _free(name)]
    wanted = {f"{name}/{pool}": measurement(f"{name}/{pool}") for name in read for pool in (FORGETTING, UTILITY)}
    queries = {risk: view.queries[one.pool] for risk, one in wanted.items()}
    together = probes(base, queries, wanted, view)
    bench.retrain(asked)
    every = _least(lambda: measured(base, together), 3)
    share = every / training
    print(f"  teacher-forced metrics together ({', '.join(read)}; {sum(len(q) for q in view.queries.values())} queries): "
          f"{every:.3f} s, {share:.3f} of training")  # fmt: skip
    print(f"\n  seconds on {len(view.queries[FORGETTING])} forget queries")
    for name, probe in measurable(view, base).items():
        print(f"  metric {name:24} {_least(lambda probe=probe: measured(base, [probe]), 1):8.3f}", flush=True)
    for name in names(Attack):
        one = {FORGETTING: measurement(f"extraction_strength@{name}")}
        try:
            (probe,) = probes(base, {FORGETTING: view.queries[FORGETTING]}, one, view)
            taken = _least(lambda probe=probe: measured(base, [probe]), 1)
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


# meta


@dataclass(frozen=True)
class Pools:
    """Folders of models that were taught the facts to be forgotten, and of models that were not."""

    taught: list[Path]
    never: list[Path]


def meta(quick: bool) -> Found:
    """Faithfulness and robustness of every metric that can be measured here."""
    count = 3 if quick else 6
    task = options(embedded.task(SMALL))
    view, _ = split(task, 0.5)
    cache = cache_folder()
    # as there, models differ in learning rate and length of training; people and tokenizer are the same
    recipes = [
        replace(SMALL, steps=SMALL.steps + 100 * (k % 2), lr=SMALL.lr * (1.0 - 0.1 * (k // 2))) for k in range(count)
    ]
    pools = Pools(
        [embedded.made(one, cache=cache) for one in recipes],
        [embedded.made(one, cache=cache, retrained=True) for one in recipes],
    )
    base = load(str(pools.taught[0]), device="cpu", dtype="float32")
    known = measurable(view, base)
    plain_of = {name: _means(pools.taught + pools.never, base, [probe], view)[:, 0] for name, probe in known.items()}
    label = np.repeat([1, 0], count)
    faithful = {name: float(roc_auc_score(label, values)) for name, values in plain_of.items()}
    robust = _robustness(base, pools, known, view)
    print("\nmeta: faithfulness, robustness to relearning and quantisation, and their harmonic means")
    print(f"  {'metric':24}{'overall':>9}{'faithful':>10}{'robust':>8}{'quantised':>11}{'relearnt':>10}{'models':>8}")
    table = {}
    for name in known:
        relearnt, quantised, used = robust[name]
        both = _harmonic([relearnt, quantised])
        table[name] = _harmonic([faithful[name], both])
    for name in sorted(table, key=lambda name: -table[name]):
        relearnt, quantised, used = robust[name]
        print(f"  {name:24}{table[name]:9.3f}{faithful[name]:10.3f}{_harmonic([relearnt, quantised]):8.3f}{quantised:11.3f}"
              f"{relearnt:10.3f}{used:8d}", flush=True)  # fmt: skip
    es = faithful["extraction_strength"]
    return {"faithfulness of extraction strength": goal(round(es, 3), ">= 0.9", es >= 0.9)}


def _robustness(
    base: Base, pools: Pools, known: Mapping[str, Probe], view: SearchView
) -> dict[str, tuple[float, float, int]]:
    """metric -> mean R, mean Q, and how many unlearned models they are means of."""
    never = load(str(pools.never[0]), device="cpu", dtype="float32")
    bench = Bench(
        base,
        view,
        plain({r: find(Metric, "extraction_strength")() for r in view.queries}),
        batch=16,
        seed=0,
        swept=False,
    )
    attacked = {
        name: [_with(probe, base, view, attack) for attack in ("relearning", "quantization")]
        for name, probe in known.items()
    }
    base.restore()
    start = {name: _mean(base, probe) for name, probe in known.items()}
    retrained = {name: _mean(never, _with(probe, never, view, "")) for name, probe in known.items()}
    again = {name: _mean(never, _with(probe, never, view, "relearning")) for name, probe in known.items()}
    held = {name: _with(probe, base, view, "relearning", steps=0) for name, probe in known.items()}
    held_never = {name: _mean(never, _with(probe, never, view, "relearning", steps=0)) for name, probe in known.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in known}
    for asked in UNLEARNED:
        bench.retrain(asked)
        for name, probe in known.items():
            before = _mean(base, probe)
            if before > retrained[name] + KNOWN * (start[name] - retrained[name]):
                continue  # not unlearned by this metric
            same = _mean(base, held[name])
            relearnt, quantised = (_mean(base, one) for one in attacked[name])
            r = _ratio(again[name] - held_never[name], relearnt - same)
            found[name].append((r, _ratio(before, quantised)))
    return {
        name: (*(float(np.mean([pair[k] for pair in pairs])) if pairs else 0.0 for k in range(2)), len(pairs))  # type: ignore[misc]
        for name, pairs in found.items()
    }


def _with(probe: Probe, base: Base, view: SearchView, attack: str, **params: int) -> Probe:
    """The same metric under an attack, on a model's own encoding; "" for none."""
    said = ",".join(f"{key}={value}" for key, value in params.items())
    one = measurement(f"{probe.measurement}@{attack}{':' if said else ''}{said}" if attack else str(probe.measurement))
    some = [query for query in view.queries[FORGETTING] if not (one.source.unheld and held(query.row))]
    (made,) = probes(base, {FORGETTING: tuple(some)}, {FORGETTING: one}, view)
    return made


def _means(folders: Sequence[Path], base: Base, some: Sequence[Probe], view: SearchView) -> NDArray[np.float64]:
    """(models, probes) mean losses."""
    rows = []
    for folder in folders:
        model = load(str(folder), device="cpu", dtype="float32")
        rows.append([_mean(model, _with(probe, model, view, "")) for probe in some])
    return np.array(rows)


def _mean(base: Base, probe: Probe) -> float:
    return float(measured(base, [probe])[probe.risk].mean()) / 1000


def _ratio(over: float, under: float) -> float:
    """min(1, over / under), 1 where the attack brought nothing back."""
    return 1.0 if under <= 0 or over >= under else max(0.0, over / under)


def _harmonic(values: Sequence[float]) -> float:
    return float(harmonic_mean([max(value, 0.0) for value in values]))


PARTS: dict[str, Callable[[bool], Found]] = {"cost": cost, "meta": meta}


def main() -> None:
    """Print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    said = parser.parse_args()
    torch.set_num_threads(1)
    promises: Found = {}
    for name in said.only.split(","):
        promises |= PARTS[name](said.quick)
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
