"""Configurations of the embedded task, recorded once: what `efficiency.py` replays searches on."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
import torch

from froc.data.splits import split
from froc.data.tasks import embedded_text
from froc.hyperparameters import Choice
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import losses, probes
from froc.plugins import make
from froc.search.build import cache_folder
from froc.search.optuna.space import Spaces, build, choose, suggest
from froc.search.optuna.study import distribution
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import RUNGS, TrialRunner
from froc.search.trial.sweep import FIRST_QUERIES
from froc.training import embedded

HERE = Path(__file__).parent


TABLE = HERE / "landscape.parquet"


SHARES = tuple(eighth / 8 for eighth in range(2, 13))


ALPHA = 0.1


RISKS = ("forgetting", "utility")


FOCUS = ("idk", "npo", "simnpo", "grad_diff")


def record(count: int, out: Path) -> None:
    """Train `count` random configurations and write the landscape."""
    torch.set_num_threads(1)
    task = embedded_text.task(questions=2_000_000)
    base = embedded.base(cache=cache_folder())
    view, sealed = split(task, 0.2)
    measures = plain({risk: make(Metric, "extraction_strength") for risk in RISKS})
    bench = TrialRunner(base, view, measures, batch=32, seed=0, swept=False)
    # a landscape is no certificate: it is opened to be looked at
    opened = probes(base, sealed.open({"calibration": sealed.digests, "candidates": []}), measures, view)
    space = _space()
    rows = pl.read_parquet(out).to_dicts() if out.is_file() else []
    scout = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    close = {method: _closer(space, method, rows) for method in FOCUS}
    for number in range(len({row["trial"] for row in rows}), count):
        begin = time.monotonic()
        study = scout if number < count // 2 else close[FOCUS[number % len(FOCUS)]]
        trial = study.ask()
        method, params = suggest(
            trial, space if study is scout else {FOCUS[number % len(FOCUS)]: space[FOCUS[number % len(FOCUS)]]}
        )
        made = _recorded(bench, opened, number, method, params)
        study.tell(trial, min(_worst(row) for row in made))
        rows += made
        pl.DataFrame(rows).write_parquet(out, compression="zstd")
        print(f"{number + 1}/{count} {method} {time.monotonic() - begin:.1f} s", flush=True)


def _closer(space: Spaces, method: str, rows: Sequence[Mapping[str, Any]]) -> optuna.Study:
    """A search of one method that knows what is recorded: the landscape is to be finest where it is good."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=7, multivariate=True))
    kinds = {f"{method}.{name}": distribution(field) for name, field in space[method].items()}
    kinds["method"] = optuna.distributions.CategoricalDistribution([method])
    for number in sorted({row["trial"] for row in rows if row["method"] == method}):
        points = [row for row in rows if row["trial"] == number]
        drawn = json.loads(points[0]["params"])
        params = {f"{method}.{name}": value for name, value in drawn.items() if space[method][name].meant(drawn)}
        params["method"] = method
        value = min(_worst(row) for row in points)
        distributions = {name: kinds[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    return study


def _worst(row: Mapping[str, Any]) -> float:
    """Largest search risk over its budget."""
    return float(max(row[f"{risk}_search"] / (1000 * row[f"{risk}_n"]) for risk in RISKS) / ALPHA)


def _space() -> Spaces:
    task = embedded_text.task()
    view, _ = split(task, 0.2)
    return build(choose((), view)[0], task.space, {})


def _recorded(
    bench: TrialRunner, opened: Sequence[Any], number: int, method: str, params: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row per stop and share; calibration sums only where the search losses are anywhere near the budgets."""
    kept: dict[int, Any] = {}
    steps = bench.prepared(TrialSpec(method, params, number), {}).steps
    places = sorted({*(max(1, round(share * steps)) for share in RUNGS), steps})
    rungs = {step: (lambda step=step: bool(kept.update({step: bench.base.trainable.snapshot()}))) for step in places}
    run = bench.prepared(TrialSpec(method, params, number), rungs)
    from froc.training.loop import train_pack

    train_pack(bench.base, [run], bench.engine)
    rows = []
    for step, weights in kept.items():
        for share in SHARES:
            bench.base.trainable.load(weights, share)
            losses_by_risk = {p.risk: losses(bench.base, p).astype(np.int64) for p in bench.probes}
            row: dict[str, Any] = {"trial": number, "method": method, "params": json.dumps(params, sort_keys=True)}
            row |= {"steps": steps, "stop": step, "share": share, "diverged": bool(run.error)}
            for risk, values in losses_by_risk.items():
                row |= {
                    f"{risk}_first": int(values[:FIRST_QUERIES].sum()),
                    f"{risk}_search": int(values.sum()),
                    f"{risk}_n": len(values),
                }
            near = _worst(row) <= 1.25
            for probe in opened:
                sealed = losses(bench.base, probe).astype(np.int64) if near else np.zeros(0, dtype=np.int64)
                row |= {f"{probe.risk}_sealed": int(sealed.sum()), f"{probe.risk}_units": len(sealed)}
            rows.append(row)
    return rows


@dataclass(frozen=True)
class Landscape:
    """The recorded table. spots: method -> (n, k) hyperparameters in the unit cube; rows: (trial, stop, share) -> row."""

    space: Spaces
    spots: Mapping[str, np.ndarray[Any, Any]]
    trials: Mapping[str, Sequence[int]]
    rows: Mapping[tuple[int, int, float], Mapping[str, Any]]
    stops: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(cls, table: pl.DataFrame) -> "Landscape":
        """From the stored table."""
        space = _space()
        spots, trials = {}, {}
        firsts = table.unique("trial", keep="first", maintain_order=True)
        for method in space:
            firsts_of_method = firsts.filter(pl.col("method") == method)
            trials[method] = firsts_of_method["trial"].to_list()
            spots[method] = np.array([_spot(space[method], json.loads(text)) for text in firsts_of_method["params"]])
        rows = {(row["trial"], row["stop"], row["share"]): row for row in table.iter_rows(named=True)}
        stops = {trial: tuple(sorted({key[1] for key in rows if key[0] == trial})) for trial in firsts["trial"]}
        return cls(space, spots, trials, rows, stops)

    def nearest(self, method: str, params: Mapping[str, Any]) -> int:
        """The recorded trial that a configuration behaves as."""
        away = ((self.spots[method] - _spot(self.space[method], params)) ** 2).sum(axis=1)
        return self.trials[method][int(np.argmin(away))]

    def at(self, trial: int, stop: int, share: float) -> Mapping[str, Any]:
        """The row at the nearest recorded share."""
        return self.rows[trial, stop, min(SHARES, key=lambda recorded: (abs(recorded - share), recorded))]


def _spot(fields: Mapping[str, Any], params: Mapping[str, Any]) -> list[float]:
    """Coordinates in the unit cube; 0 for hyperparameters that have no effect beside the others, which a trial does not draw."""
    coordinates = []
    for name, field in fields.items():
        if not field.meant(params):
            coordinates.append(0.0)
            continue
        value = params[name]
        if isinstance(field, Choice):
            coordinates.append(float(field.options.index(value)))
            continue
        scale = math.log if field.log else float
        low, high = scale(field.low), scale(field.high)
        coordinates.append((scale(value) - low) / (high - low) if high > low else 0.0)
    return coordinates
