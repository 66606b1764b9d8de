"""Comparison of methods at equal retained performance: mix each with the base model until all retain the same, measure the rest.

The calibration of UWC (2406.09179): theta(a) = (1 - a) theta_0 + a theta_u, with the largest a at which retained
performance still has the requested level. Configurations, mixes and the points of fronts are chosen on search queries
and sealed; the reported numbers come from calibration queries that had no part in the choice.

Retained performance is 1 - (mean utility loss) / (mean score of the base model). UWC uses the ratio of mean scores, in
which gains on some queries compensate for losses on others.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import froc
from froc import timestamp
from froc.comparison import document as comparison
from froc.comparison.document import BASE, BEFORE, front
from froc.data import opening_ledger as openings
from froc.data.task import FORGETTING, RISKS, UTILITY, Query
from froc.errors import FrocError, InputError
from froc.measuring.query_losses import Probe, measured
from froc.plan_identity import identity
from froc.risk.claim import Candidate
from froc.search.comparison.mixing import GRID, MixedModel, weights_of
from froc.search.comparison.terms import MAX_FRONT_POINTS, ComparedConfig, ComparedRun, MixPoint, Terms, entries
from froc.search.job import runner_of
from froc.search.plan import refuse_other_plan
from froc.search.run_folder import Folder, of_document, write_json, write_table
from froc.search.sealed import ranking
from froc.search.trial.runner import TrialRunner

Progress = Callable[[str, int, int], None]
"""Called with (what, done, of)."""


def run(runs: Sequence[ComparedRun], terms: Terms, out: Path, progress: Progress) -> dict[str, Any]:
    """Run the whole comparison in the folder `out`, or what is left of it; returns its document.

    InputError, before anything is trained, for runs that cannot be compared.
    """
    terms.check()
    chosen = entries(runs, terms)
    job, folder = runs[0].job, Folder(out)
    plan = _plan(runs, terms)
    old = folder.read(folder.plan)
    if old is not None:
        refuse_other_plan(old, plan)
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} holds files but no plan.json of a comparison; choose another --out")
    if folder.read(folder.seal) is None:
        openings.check(job.sealed.counted, identity(plan), terms.openings, terms.reopen)
    folder.hold()
    try:
        if old is None:
            write_json(folder.plan, plan)
        seal = folder.read(folder.seal) or _seal(runs, chosen, terms, folder, progress)
        fixed = identity(folder.read(folder.plan) or plan)
        opening = openings.record(
            job.sealed.counted, fixed, ranking.question(seal, fixed), terms.openings, terms.reopen
        )
        if not folder.calibration_losses.is_file():
            write_table(folder.calibration_losses, _calibrate(runs, chosen, folder, seal, progress))
        table = pl.read_parquet(folder.calibration_losses)
        document = comparison.document(table, seal, plan, opening.number, opening.planned)
        write_json(out / "comparison.json", document)
        shutil.rmtree(out / "weights", ignore_errors=True)
        return document
    finally:
        folder.release()


def _plan(runs: Sequence[ComparedRun], terms: Terms) -> dict[str, Any]:
    job, first = runs[0].job, runs[0].plan
    return {
        "format": 1,
        "kind": "comparison",
        "froc": froc.__version__,
        "created": timestamp.stamp(),
        "runs": [{"name": side.name, "plan": identity(side.plan)} for side in runs],
        "task": {"name": job.task.name, "digest": job.task.digest, "split_seed": job.task.split_seed},
        "model": first["model"],
        "metrics": {risk: first["metrics"][risk] for risk in RISKS},
        # differences are between unit means
        "units": {risk: "query" if job.task.units[risk] == "query" else "group" for risk in RISKS},
        "levels": list(terms.levels),
        "confidence": terms.confidence,
        "tries": terms.tries,
        "methods": list(terms.methods),
        "openings": terms.openings,
        "split": {"queries": job.sealed.digests, "share": first["split"]["share"]},
    }


def _seal(
    runs: Sequence[ComparedRun], chosen: Sequence[ComparedConfig], terms: Terms, folder: Folder, progress: Progress
) -> dict[str, Any]:
    """Train the configurations again, find their mixes on search queries, and record what will be measured."""
    points: dict[str, list[tuple[dict[str, MixPoint], list[MixPoint]]]] = {}
    failed: list[str] = []
    bends: list[float] = []
    for place, (entry, runner) in enumerate(_runners(runs, chosen)):
        progress("configurations", place, len(chosen))
        try:
            weights = weights_of(entry, runner, folder)
        except FrocError:
            failed.append(entry.name)
            continue
        mixes = MixedModel(entry, runner, weights)
        grid = [mixes.at(share) for share in GRID]
        bends += _bends([mixes.at(0.0), *grid])
        levels = {f"{level:g}": mixes.keeping(level) for level in terms.levels}
        points.setdefault(entry.method, []).append((levels, [*grid, *levels.values()]))
    progress("configurations", len(chosen), len(chosen))
    if len(points) < 2:
        raise InputError(f"only {len(points)} method(s) could be trained again; a comparison needs two")
    stages: dict[str, dict[str, MixPoint]] = {BEFORE: {m: _plainest(tried) for m, tried in points.items()}}
    for name in (f"{level:g}" for level in terms.levels):
        # as in UWC, hyperparameters are chosen after mixing to the level
        stages[name] = {m: min((at_levels[name] for at_levels, _ in tried), key=_left) for m, tried in points.items()}
    fronts = {m: _front([point for _, more in tried for point in more]) for m, tried in points.items()}
    every = {p.name: p for group in (*(list(s.values()) for s in stages.values()), *fronts.values()) for p in group}
    job = runs[0].job
    write_table(folder.search_losses, _searched(every))
    listed = [Candidate(BASE, BASE, {"mix": 0.0}, 1.0)]
    listed += [Candidate(p.name, p.method, {"entry": p.entry, "mix": p.mix}, 1.0) for p in every.values()]
    seal = ranking.document(
        listed, plan=of_document(folder.plan), losses=of_document(folder.search_losses), trials=len(chosen),
        queries=job.sealed.digests,
    ) | {
        "stages": {stage: {m: p.name for m, p in group.items()} for stage, group in stages.items()},
        "fronts": {m: [p.name for p in group] for m, group in fronts.items()},
        "monotone": {"entries": len(chosen) - len(failed), "bends": len(bends), "worst": max(bends, default=0.0)},
        "failed": failed,
    }  # fmt: skip
    write_json(folder.seal, seal)
    return seal


def _runners(
    runs: Sequence[ComparedRun], chosen: Sequence[ComparedConfig]
) -> Iterator[tuple[ComparedConfig, TrialRunner]]:
    """Each configuration with its run's runner; only one runner exists at a time."""
    for side in runs:
        mine = [entry for entry in chosen if entry.side is side]
        if mine:
            runner = runner_of(side.job)
            for entry in mine:
                yield entry, runner


def _calibrate(
    runs: Sequence[ComparedRun],
    chosen: Sequence[ComparedConfig],
    folder: Folder,
    seal: Mapping[str, Any],
    progress: Progress,
) -> pl.DataFrame:
    """Losses of every sealed point on the calibration queries."""
    queries = runs[0].job.sealed.open(seal)
    by_entry: dict[str, list[Mapping[str, Any]]] = {}
    for point in seal["candidates"]:
        by_entry.setdefault(point["params"].get("entry", BASE), []).append(point)
    tables: list[pl.DataFrame] = []
    for entry, runner in _runners(runs, chosen):
        probes = runner.opened(queries)
        if not tables:
            runner.base.restore()
            tables.append(_table(runner, BASE, queries, probes))
        if entry.name not in by_entry:
            continue
        weights = weights_of(entry, runner, folder)
        for point in by_entry[entry.name]:
            runner.base.trainable.load(weights, point["params"]["mix"])
            tables.append(_table(runner, point["config"], queries, probes))
            progress("calibration", len(tables), len(seal["candidates"]))
    return pl.concat(tables)


def _table(
    runner: TrialRunner, name: str, queries: Mapping[str, Sequence[Query]], probes: Sequence[Probe]
) -> pl.DataFrame:
    return runner.table(name, "calibration", queries, measured(runner.base, probes))


def _front(points: Sequence[MixPoint]) -> list[MixPoint]:
    """Points of a method that none of its others dominates on search queries; if there are many, a selection along the front."""
    means = np.array([[point.means[risk] for risk in RISKS] for point in points])
    unique = list({point.name: point for point in (points[k] for k in front(means))}.values())
    ordered = sorted(unique, key=lambda point: (point.means[FORGETTING], point.means[UTILITY]))
    if len(ordered) <= MAX_FRONT_POINTS:
        return ordered
    return [ordered[k] for k in np.unique(np.linspace(0, len(ordered) - 1, MAX_FRONT_POINTS).round().astype(int))]


def _plainest(tried: Sequence[tuple[Mapping[str, MixPoint], Sequence[MixPoint]]]) -> MixPoint:
    """The trained model, unmixed, of the configuration that the search ranked first."""
    return next(point for point in tried[0][1] if point.mix == 1.0)


def _left(point: MixPoint) -> float:
    return point.means[FORGETTING]


def _bends(points: Sequence[MixPoint]) -> list[float]:
    """Violations of the monotonicity that bisection assumes: increases of forgetting loss, or decreases of utility loss, with the mix."""
    risen = [after.means[FORGETTING] - before.means[FORGETTING] for before, after in pairwise(points)]
    fallen = [before.means[UTILITY] - after.means[UTILITY] for before, after in pairwise(points)]
    return [round(change, 6) for change in (*risen, *fallen) if change > 0]


def _searched(points: Mapping[str, MixPoint]) -> pl.DataFrame:
    """Search results of the sealed points."""
    rows = [
        (name, p.method, p.entry, p.mix, p.means[FORGETTING], p.means[UTILITY], p.kept) for name, p in points.items()
    ]
    return pl.DataFrame(
        rows, schema=["config", "method", "entry", "mix", FORGETTING, UTILITY, "retained"], orient="row"
    )
