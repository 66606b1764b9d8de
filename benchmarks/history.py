"""Does a long history slow the next trial down? What a search does between trials, from 100 to 2,000 trials in its run folder.

The search's own loop (`froc.search.trial_loop`), study, log, leaderboard and progress display run as they do in a search; in place of
a trained model, a worker answers at once with a table of random losses. So the time is what the history costs, and nothing else.
At the end the figures and the run's summary are drawn from all trials.

    python benchmarks/history.py [--quick] [--trials 2000] [--profile]

Start it with nothing else running. Goals are seconds of `machine.unit()` in the same run.
"""

import argparse
import cProfile
import io
import json
import pstats
import tempfile
import time
from collections import deque
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import unit
from rich.console import Console

from froc import timestamp
from froc.configuration_id import ConfigurationId
from froc.loss_table import SCALE
from froc.reporting import landscape
from froc.search.executors import Executor, Report
from froc.search.optuna.space import STANDARD, build, group
from froc.search.optuna.study import Study
from froc.search.progress import ProgressDisplay
from froc.search.run_folder import Folder, TrialRecord, write_json
from froc.search.settings import Settings
from froc.search.trial.work import TrainPack, TrialResult, Work
from froc.search.trial_loop import TrialLoop

BUDGET = {"forgetting": 0.1, "utility": 0.1}
QUERIES = 60
"""Search queries of each risk."""
VARIANTS = 6
"""Stops and mixes beside each trial's end, as many as a sweep keeps."""
WINDOW = 50
"""Trials whose mean time stands for a length of the history."""
CERTIFICATE: dict[str, Any] = {"budget": BUDGET, "candidates": [], "certified": [], "chosen": None}
GOAL = 2.0
"""Units that the loop may take per trial: about a tenth of the embedded model's shortest trial."""


class Answers(Executor):
    """A worker that answers at once: one trial in four is pruned, the losses of the others are random."""

    workers = 1

    def __init__(self) -> None:
        self._queue: deque[tuple[int, TrainPack]] = deque()
        self._draws = np.random.default_rng(0)
        self._units = [f"{place:016x}" for place in range(QUERIES)]

    def submit(self, key: int, work: Work) -> None:
        """Queue it."""
        assert isinstance(work, TrainPack)
        self._queue.append((key, work))

    def wait(self, timeout: float | None = None) -> list[Report]:
        """The answer to the oldest piece of work."""
        if not self._queue:
            return []
        key, work = self._queue.popleft()
        return [Report(key, [self._answer(record) for record in work.records])]

    def withdraw(self, keep: Collection[int] = ()) -> list[int]:
        """Nothing is withdrawn: there is no time limit."""
        return []

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, record: TrialRecord) -> TrialResult:
        rungs = [[step, dict(zip(BUDGET, self._draws.random(2).tolist(), strict=True))] for step in (12, 24)]
        ended = replace(record, ended=timestamp.stamp(), steps=36, seconds=1.0, rungs=rungs)
        if self._draws.random() < 0.25:
            return TrialResult(replace(ended, status="pruned", reason="behind the other trials at a rung"), None, [])
        configs = [
            record.config,
            *(str(ConfigurationId(record.trial).variant(12, 0.1 * k)) for k in range(1, VARIANTS + 1)),
        ]
        losses = self._draws.integers(0, SCALE + 1, (len(configs), len(BUDGET), QUERIES), dtype=np.int16)
        means = (losses.mean(axis=2) / SCALE).tolist()
        averages = {risk: {"loss": 1.0, "accuracy": 0.5, "base_loss": 0.1, "base_accuracy": 0.9} for risk in BUDGET}
        variants: list[dict[str, Any]] = [
            {"config": config, "stop": 12, "mix": round(0.1 * k, 4), "search": dict(zip(BUDGET, of_config, strict=True)), "averages": averages}
            for k, (config, of_config) in enumerate(zip(configs, means, strict=True)) if k
        ]  # fmt: skip
        ended = replace(
            ended,
            status="complete",
            search=dict(zip(BUDGET, means[0], strict=True)),
            averages=averages,
            variants=variants,
        )
        return TrialResult(ended, self._table(configs, losses), [])

    def _table(self, configs: list[str], losses: "np.ndarray[Any, np.dtype[np.int16]]") -> pl.DataFrame:
        count = QUERIES * len(BUDGET)
        return pl.DataFrame(
            {
                "config": np.repeat(configs, count), "risk": np.tile(np.repeat(list(BUDGET), QUERIES), len(configs)),
                "metric": "extraction_strength", "split": "search", "unit": self._units * len(BUDGET) * len(configs),
                "query": self._units * len(BUDGET) * len(configs), "loss": losses.reshape(-1),
            }
        )  # fmt: skip


def grown(folder: Folder, trials: int, profile: cProfile.Profile | None) -> tuple[list[float], list[TrialRecord]]:
    """Seconds from each trial's start to the next one's, and the log."""
    settings = Settings(BUDGET, trials=trials)
    study = Study(
        folder.study, build(group(STANDARD), {}, {}), settings.steering, sampler="tpe", pruner="halving", seed=0
    )
    starts: list[float] = []
    display = ProgressDisplay(Console(file=io.StringIO(), width=160), quiet=False)
    # it learns the budgets from a plan, of which there is none here
    display._budget = BUDGET

    def on_trial(record: TrialRecord, log: Any, total: int) -> None:
        display.trial(record, log, total)
        if record.status == "running":
            starts.append(time.perf_counter())

    with display, profile or nullcontext():
        log, _ = TrialLoop(folder, study, Answers(), settings, 10, on_trial).run()
    return np.diff(starts).tolist(), log


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    arguments = parser.parse_args()
    trials = arguments.trials or (300 if arguments.quick else 2000)
    profile = cProfile.Profile() if arguments.profile else None
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place) / "run")
        folder.path.mkdir()
        write_json(folder.plan, {"format": "a plan in name only"})
        taken, log = grown(folder, trials, profile)
        begin = time.perf_counter()
        landscape.draw(Path(place) / "figures", [vars(record) for record in log], CERTIFICATE)
        drawn = time.perf_counter() - begin
    if profile is not None:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
    pace = unit()
    print(f"one unit is {pace:.3f} s\n\n{'trials before':>14}{'ms a trial':>12}{'units':>8}")
    lengths = sorted({min(length, trials - 1 - WINDOW) for length in (100, 200, 500, 1000, trials)})
    means = {length: float(np.mean(taken[length : length + WINDOW])) for length in lengths}
    for length, mean in means.items():
        print(f"{length:>14}{1000 * mean:>12.1f}{mean / pace:>8.2f}")
    print(f"\nfigures of {trials} trials: {drawn:.2f} s, {drawn / pace:.1f} units")
    last = round(means[max(means)] / pace, 3)
    exponent = round(float(np.log(means[max(means)] / means[min(means)]) / np.log(max(means) / min(means))), 2)
    promises = {
        f"units between trials after {max(means)}": {"value": last, "goal": f"<= {GOAL:g}", "holds": last <= GOAL},
        "exponent of the time between trials over trials before": {"value": exponent, "goal": "reported"},
        f"units to draw {trials} trials": {"value": round(drawn / pace, 2), "goal": "reported"},
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
