"""Search efficiency on a recorded landscape: how soon each sampler finds a certified configuration near the best known.

`--record N` trains N configurations of the embedded task once, half at random and half by searching each of the better
methods, and stores for every stop and share of a mix with the base model the sums of its search and calibration losses
(`landscape.parquet`); it goes on where it was stopped. A search is then replayed on it: a
configuration behaves as its nearest recorded one of the same method. Sampler, pruner, sweep, shortlist and the
family-wise procedure are froc's own; losses are looked up instead of trained for.

Promise: the default (TPE, early stopping, stops and mixes) needs at most a third of the optimiser steps that random search
of ends alone needs until its best certified configuration has 90 % of the margin of the best known plain one, and it has its first
certified configuration after at most 9 trials in the median. Margin is 1 - the largest calibration mean over its budget.
"""

import argparse
import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from landscape import ALPHA, RISKS, TABLE, Landscape, record

from froc import procedures
from froc.configuration_id import ConfigurationId
from froc.search.optuna.pruning import TrialPruner
from froc.search.optuna.study import Study
from froc.search.prior_run import PriorRun, first_trials, with_first_trials
from froc.search.run_folder import TrialRecord
from froc.search.sealed import ranking
from froc.search.settings import PARALLEL, Settings
from froc.search.trial.sweep import FIRST_QUERIES, NO_SWEEP, Effort, MeasuredPoint, Sweep, SweepPoint

CONFIDENCE = 0.9


class Replayed(Sweep):
    """froc's sweep with losses looked up."""

    def __init__(self, land: Landscape, trial: int, effort: Effort) -> None:
        no_model: Any = None
        super().__init__(no_model, (), dict.fromkeys(RISKS, ALPHA), effort)
        self._land, self._trial = land, trial

    def stop(self, step: int) -> SweepPoint:
        """As the real one, without a model to come back to."""
        return self._explore(step)

    def _look(self, step: int, share: float) -> SweepPoint:
        row = self._land.at(self._trial, step, share)
        means = {risk: row[f"{risk}_first"] / (1000 * FIRST_QUERIES) for risk in RISKS}
        return SweepPoint(step, row["share"], {}, {}, {risk: mean / ALPHA for risk, mean in means.items()})

    def _whole(self, point: SweepPoint) -> MeasuredPoint:
        return MeasuredPoint(point.step, point.mix, {})

    def _back(self, step: int, share: float) -> None:
        pass


@dataclass(frozen=True)
class Searcher:
    """What is compared: a sampler, a pruner, whether stops and mixes are swept, and how many trials are in flight.

    parallel: a trial is drawn without the results of the `parallel` - 1 trials before it, as workers at once make it.
    """

    name: str
    sampler: str
    pruner: str
    swept: bool
    parallel: int = 1


SEARCHERS = (
    Searcher("random, ends alone", "random", "none", False),
    Searcher("TPE, ends alone", "tpe", "none", False),
    Searcher("GP, ends alone", "gp", "none", False),
    Searcher("NSGA-II, ends alone", "nsga2", "none", False),
    Searcher("random, halving and mixes", "random", "halving", True),
    Searcher("GP, halving and mixes", "gp", "halving", True),
    Searcher("TPE, median and mixes", "tpe", "median", True),
    Searcher("TPE, hyperband and mixes", "tpe", "hyperband", True),
    Searcher("TPE, halving and mixes, 1 in flight", "tpe", "halving", True, 1),
    Searcher("TPE, halving and mixes, 8 in flight", "tpe", "halving", True, 8),
    Searcher("default: TPE, halving and mixes", "tpe", "halving", True, PARALLEL),
)


EARLIER = 30
"""Trials of a search that another one begins like."""


@dataclass(frozen=True)
class Reached:
    """Trials and optimiser steps until the goal, or all that were allowed; reached: whether it was. log: the trials."""

    trials: int
    steps: int
    reached: bool
    log: tuple[TrialRecord, ...] = ()


def replay(
    land: Landscape, searcher: Searcher, seed: int, goal: float, most: int, first: Sequence[tuple[str, Any]] = ()
) -> Reached:
    """One search on the landscape, ended as soon as what it would certify is good enough. first: what it tries first."""
    limits = dict.fromkeys(RISKS, ALPHA)
    study = Study(
        None, land.space, limits, sampler=searcher.sampler, pruner=searcher.pruner, seed=seed, first=first, swept=searcher.swept
    )  # fmt: skip
    study.resume([])
    log: list[TrialRecord] = []
    untold: deque[TrialRecord] = deque()
    sums: dict[str, dict[str, tuple[int, int]]] = {}
    done = 0
    for number in range(most):
        if len(untold) == searcher.parallel:
            study.tell(untold.popleft())
        method, params = study.ask(number)
        line = _trial(land, searcher, study.pruner(method), number, method, params, sums)
        untold.append(line)
        log.append(line)
        done += line.steps
        if line.status == "complete" and _margin(land, log, sums) >= goal:
            return Reached(number + 1, done, True, tuple(log))
    return Reached(most, done, False, tuple(log))


def warm_started(land: Landscape, seed: int, goal: float, most: int) -> Reached:
    """A search like an earlier one of EARLIER trials with another seed, as `froc search --like` begins it."""
    earlier = replay(land, SEARCHERS[-1], seed + 1000, math.inf, EARLIER).log
    prior = PriorRun({}, {}, tuple(record for record in earlier if record.status == "complete"))
    settings = with_first_trials(prior, Settings(dict.fromkeys(RISKS, ALPHA)), land.space)
    return replay(land, SEARCHERS[-1], seed, goal, most, first_trials(settings.like))


def _trial(
    land: Landscape, searcher: Searcher, judge: TrialPruner, number: int, method: str, params: dict[str, Any],
    sums: dict[str, dict[str, tuple[int, int]]],
) -> TrialRecord:  # fmt: skip
    trial = land.nearest(method, params)
    stops = land.stops[trial]
    line = TrialRecord(number, 1, f"c{number:04d}", method, params, trial, "", "", ended="", seconds=1.0)
    effort = Effort(4, 6) if searcher.swept else NO_SWEEP
    sweep = Replayed(land, trial, effort)
    rungs: list[list[Any]] = []
    hopeless = judge.begin()
    for stop in stops[:-1]:
        point = sweep.stop(stop)
        rungs.append([stop, {risk: ratio * ALPHA for risk, ratio in point.ratio.items()}])
        if hopeless(rungs, ()):
            return replace(line, status="pruned", steps=stop, rungs=rungs)
    points = {(point.step, point.mix): land.at(trial, point.step, point.mix) for point in sweep.end(stops[-1])}
    names = [line.config, *(str(ConfigurationId(line.trial).variant(step, share)) for step, share in list(points)[1:])]
    means = []
    for name, row in zip(names, points.values(), strict=True):
        sums[name] = {risk: (row[f"{risk}_search"], row[f"{risk}_n"]) for risk in RISKS}
        means.append({risk: total / (1000 * count) for risk, (total, count) in sums[name].items()})
    variants = [
        {"config": name, "stop": step, "mix": share, "search": risks, "averages": None}
        for name, (step, share), risks in list(zip(names, points, means, strict=True))[1:]
    ]
    return replace(line, status="complete", steps=stops[-1], rungs=rungs, search=means[0], variants=variants)


def _margin(land: Landscape, log: Sequence[TrialRecord], sums: dict[str, dict[str, tuple[int, int]]]) -> float:
    """The widest margin among what would be certified if the search ended now; -1 where nothing would."""
    lines = {trial_record.config: trial_record for line in log for trial_record in line.configurations()}
    candidates = ranking.Leaderboard(dict.fromkeys(RISKS, ALPHA), 10).with_trials(log, sums).candidates
    rows = []
    for candidate in candidates:
        line = lines[candidate.config]
        stop = line.params.get("stop", land.stops[line.seed][-1])
        rows.append(land.at(line.seed, stop, line.params.get("mix", 1.0)))
    p = np.array([max(_p_value(row, risk) for risk in RISKS) for row in rows])
    weights = np.array([candidate.weight for candidate in candidates])
    passed = procedures.certified("weighted-holm", p, weights, 1 - CONFIDENCE)
    return max((_score(row) for row, ok in zip(rows, passed, strict=True) if ok), default=-1.0)


def _p_value(row: Mapping[str, Any], risk: str) -> float:
    return ranking.p_value(row[f"{risk}_sealed"], row[f"{risk}_units"], ALPHA) if row[f"{risk}_units"] else 1.0


def _score(row: Mapping[str, Any]) -> float:
    if not row["forgetting_units"]:
        return -1.0
    return float(1 - max(row[f"{risk}_sealed"] / (1000 * row[f"{risk}_units"]) for risk in RISKS) / ALPHA)


def best_known(land: Landscape) -> float:
    """The widest margin of a recorded end that would be certified were it tested alone."""
    ends = [row for (trial, stop, share), row in land.rows.items() if share == 1.0 and stop == land.stops[trial][-1]]
    return max(_score(row) for row in ends if max(_p_value(row, risk) for risk in RISKS) <= 1 - CONFIDENCE)


def compare(table: Path, searchers: Sequence[Searcher], seeds: int, most: int) -> dict[str, Any]:
    """Replay every searcher with every seed; print the table and return the promise."""
    land = Landscape.of(pl.read_parquet(table))
    best = best_known(land)
    print(
        f"{len(land.stops)} recorded trials; the best plain configuration has margin {best:.3f}; goal {0.9 * best:.3f}\n"
    )
    print(
        f"{'searcher':<42}{'reached':>9}{'trials, median':>16}{'steps, median':>15}{'steps, mean':>13}{'of random':>11}"
    )
    means: dict[str, float] = {}
    for searcher in searchers:
        runs = [replay(land, searcher, seed, 0.9 * best, most) for seed in range(seeds)]
        means[searcher.name] = float(np.mean([run.steps for run in runs]))
        print(
            f"{searcher.name:<42}{sum(run.reached for run in runs):>6}/{seeds}"
            f"{np.median([run.trials for run in runs]):>16.0f}{np.median([run.steps for run in runs]):>15.0f}"
            f"{means[searcher.name]:>13.0f}{means[searcher.name] / means[SEARCHERS[0].name]:>11.2f}",
            flush=True,
        )
    ratio = means[SEARCHERS[-1].name] / means[SEARCHERS[0].name]
    first = float(np.median([replay(land, SEARCHERS[-1], seed, 0.0, most).trials for seed in range(seeds)]))
    warm = [
        float(np.median([warm_started(land, seed, goal, most).trials for seed in range(seeds)]))
        for goal in (0.0, 0.9 * best)
    ]
    print(
        f"\nlike an earlier search of {EARLIER} trials: {warm[0]:.0f} trials until one is certified, {warm[1]:.0f} until the goal, in the median"
    )
    return {
        "trials until a search like an earlier one has a certified one": {
            "value": warm[0],
            "goal": "<= 2",
            "holds": warm[0] <= 2,
        },
        "default's steps over random's": {"value": round(ratio, 3), "goal": "<= 0.333", "holds": ratio <= 1 / 3},
        "trials until the default has a certified one": {"value": first, "goal": "<= 9", "holds": first <= 9},
    }


def main() -> None:
    """Record, or replay and print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=int, metavar="N")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--most", type=int, default=600, help="trials a search may take")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record, arguments.table)
        return
    seeds = arguments.seeds or (6 if arguments.quick else 20)
    # a Gaussian process is fitted anew for every trial: too slow for a quick look
    searchers = [searcher for searcher in SEARCHERS if not (arguments.quick and searcher.sampler == "gp")]
    print(json.dumps(compare(arguments.table, searchers, seeds, arguments.most)))


if __name__ == "__main__":
    main()
