"""Is the guarantee true? End-to-end searches on the embedded task, compared with the true risks.

Every repetition draws its own queries, searches, seals, certifies; then each certified configuration is measured on
100,000 fresh queries per risk, drawn from the known population. The claim allows a violation in at most a share delta
of repetitions. `--quick` does the same with fewer repetitions and trials.

    python benchmarks/validity.py [--quick] [--repetitions 30] [--trials 12]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from froc import hashing
from froc.configuration_id import ConfigurationId
from froc.data.splits import split
from froc.data.task import Query
from froc.data.tasks import embedded_text
from froc.loss_table import SCALE
from froc.measuring.query_losses import Probe, losses, probes
from froc.models.base import Base
from froc.search.build import cache_folder
from froc.search.job import Job
from froc.search.optuna.space import build, choose
from froc.search.pipeline import run
from froc.search.settings import Settings, measures
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training import embedded

FRESH = 100_000
BUDGET = 0.1


@dataclass(frozen=True)
class Quiet:
    """A listener that keeps nothing."""

    def planned(self, plan: object) -> None:
        """Nothing to say."""

    def base_measured(self, base: object, notes: object) -> None:
        """Nothing to say."""

    def trial(self, line: object, log: object, total: int) -> None:
        """Nothing to say."""

    def screening(self, done: int, total: int) -> None:
        """Nothing to say."""

    def calibrating(self, done: int, total: int) -> None:
        """Nothing to say."""


def truth_probes(base: Base) -> dict[str, Probe]:
    """risk -> every query of the population, encoded once, with the base model's scores."""
    every = {
        risk: tuple(Query(f"{i:016x}", f"{i:016x}", row) for i, row in enumerate(rows))
        for risk, rows in embedded_text.population().items()
    }
    view, _ = split(embedded_text.task(), 0.2)
    return {probe.risk: probe for probe in probes(base, every, measures(Settings(dict.fromkeys(every, BUDGET))), view)}


def true_risks(base: Base, known: Mapping[str, Probe], seed: int) -> dict[str, float]:
    """risk -> mean loss over 100,000 fresh queries; each distinct query is measured once and counted as often as drawn."""
    risks = {}
    for risk, probe in known.items():
        draw = np.random.default_rng(hashing.derive_seed("fresh", risk, seed)).integers(len(probe.rows), size=FRESH)
        counts = np.bincount(draw, minlength=len(probe.rows))
        risks[risk] = float((losses(base, probe).astype(np.int64) * counts).sum()) / (SCALE * FRESH)
    return risks


def repeat(base: Base, known: Mapping[str, Probe], seed: int, trials: int, folder: Path) -> dict[str, Any]:
    """One search; the certified configurations with their true risks."""
    task = embedded_text.task(questions=1_000_000 + seed)
    settings = Settings(
        budget=dict.fromkeys(task.queries, BUDGET),
        trials=trials,
        seed=seed,
        methods=("grad_diff", "npo", "simnpo"),
    )
    view, sealed = split(task, settings.share)
    methods, _ = choose(settings.methods, view)
    job = Job(base, task, view, sealed, build(methods, task.space, {}), settings)
    certificate = run(job, folder, Quiet())
    bench = TrialRunner(base, view, measures(settings), batch=settings.batch, seed=settings.seed)
    lines = {line["config"]: line for line in map(json.loads, (folder / "trials.jsonl").read_text().splitlines())}
    true = {}
    for row in certificate["candidates"]:
        if row["certified"]:
            line, params = lines[str(ConfigurationId.parse(row["config"]).of_trial)], dict(row["params"])
            stop, share = params.pop("stop", None), params.pop("mix", 1.0)
            bench.retrain(TrialSpec(row["method"], params, line["seed"]), stop, share)
            true[row["config"]] = true_risks(base, known, seed)
    broken = [config for config, risks in true.items() if max(risks.values()) > BUDGET]
    covered = all(
        true[row["config"]][risk] <= row["cur"][risk]["simultaneous"]
        for row in certificate["candidates"] if row["certified"] for risk in task.queries
    )  # fmt: skip
    return {
        "seed": seed,
        "tested": len(certificate["candidates"]),
        "true": true,
        "broken": broken,
        "covered": covered,
    }


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--trials", type=int)
    arguments = parser.parse_args()
    repetitions = arguments.repetitions or (2 if arguments.quick else 30)
    trials = arguments.trials or (10 if arguments.quick else 12)
    base = embedded.base(cache=cache_folder())
    known = truth_probes(base)
    delta, rows = 0.1, []
    print(f"torch threads {torch.get_num_threads()}, budget {BUDGET}, delta {delta}, {trials} trials a search")
    print(
        f"{'seed':>4} {'tested':>6} {'certified':>9} {'broken':>6} {'CUR holds':>9} {'worst true risk':>15} {'seconds':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(repetitions):
            begin = time.monotonic()
            row = repeat(base, known, seed, trials, Path(folder) / str(seed))
            rows.append(row)
            worst = max((max(risks.values()) for risks in row["true"].values()), default=float("nan"))
            took = time.monotonic() - begin
            print(f"{seed:>4} {row['tested']:>6} {len(row['true']):>9} {len(row['broken']):>6} {row['covered']!s:>9} "
                  f"{worst:>15.4f} {took:>8.1f}", flush=True)  # fmt: skip
    violated = sum(bool(row["broken"]) for row in rows)
    missed = sum(not row["covered"] for row in rows)
    certified = sum(bool(row["true"]) for row in rows)
    # more violations than this happen with probability below 1 % when the guarantee is true
    allowed = int(binom.ppf(0.99, repetitions, delta))
    print(f"\n{repetitions} searches, {certified} certified something, {violated} certified a configuration whose true risk exceeds "
          f"its budget (allowed on average {delta * repetitions:g}), {missed} with a CUR below the truth")  # fmt: skip
    promises = {
        "repetitions with a false certificate": {
            "value": violated,
            "goal": f"<= {allowed}",
            "holds": violated <= allowed,
        },
        "repetitions with a CUR below the truth": {
            "value": missed,
            "goal": f"<= {allowed}",
            "holds": missed <= allowed,
        },
        "repetitions that certify something": {"value": certified, "goal": ">= 1", "holds": certified >= 1},
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
