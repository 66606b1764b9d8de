"""Methods on an equal footing: mix each with the base model until they keep the same, and measure what is left there.

The calibration of UWC (2406.09179): theta(a) = (1 - a) theta_0 + a theta_u, and a is the largest share at which retained
performance is still the level asked for. Which configurations, which shares and which points make a front is decided on
search queries and sealed; what is reported comes from calibration queries that had no part in it.

Retained performance is 1 - (mean utility loss) / (mean score of the base model). UWC takes the ratio of mean scores, which
lets what is gained on some queries pay for what is lost on others.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import froc
from froc import comparison, openings
from froc.claim import Candidate
from froc.comparison import BASE, BEFORE, front
from froc.data import FORGETTING, RISKS, UTILITY, Query
from froc.errors import FrocError, InputError
from froc.measure import Probe, losses, measured
from froc.models import read_weights, write_weights
from froc.plan_identity import identity
from froc.scope import Weights
from search import sealing
from search.folder import Folder, Started, of_document, write_json, write_table
from search.job import Job, bench_of
from search.plan import refuse_other
from search.trial import Asked, Bench

HALVINGS = 10
"""Steps of the bisection: the share is known to a thousandth."""
GRID = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares at which every configuration is looked at for the fronts."""
MOST = 8
"""Points of one method's front that are measured on calibration queries."""
Progress = Callable[[str, int, int], None]
"""Called with (what, done, of)."""


@dataclass(frozen=True)
class Terms:
    """What is asked. levels: of retained performance, in (0, 1]. tries: configurations per method that are trained again.

    methods: to compare; all of the runs' by default.
    """

    levels: tuple[float, ...] = (0.95, 0.9)
    confidence: float = 0.9
    tries: int = 3
    methods: tuple[str, ...] = ()
    openings: int = 1
    reopen: bool = False

    def check(self) -> None:
        """InputError for values out of range."""
        for one in self.levels:
            if not 0 < one <= 1:
                raise InputError(f"retained performance {one:g} is outside (0, 1]; give shares such as 0.95")
        if len(set(self.levels)) < len(self.levels) or not self.levels:
            raise InputError("give each level of retained performance once")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence {self.confidence:g} is outside (0, 1)")
        if self.tries < 1 or self.openings < 1:
            raise InputError("tries and openings are counted from 1")


@dataclass(frozen=True)
class Side:
    """A finished or unfinished run whose trials are compared. job: what they work on, with this run's settings."""

    name: str
    folder: Folder
    plan: Mapping[str, Any]
    job: Job


@dataclass(frozen=True)
class Entry:
    """A training run that takes part. name: of it in the comparison; stop: step at which it ends, None for its end."""

    name: str
    method: str
    side: Side
    line: Started
    stop: int | None


@dataclass(frozen=True)
class Point:
    """An entry at a share. means: risk -> mean search loss; kept: retained performance on search queries."""

    entry: str
    method: str
    share: float
    means: Mapping[str, float]
    kept: float

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.entry}@{self.share:.4f}"


def entries(sides: Sequence[Side], terms: Terms) -> list[Entry]:
    """The configurations that take part: of each method the likeliest on search queries, one per training run."""
    found: dict[str, list[tuple[float, Entry]]] = {}
    for side in sides:
        budget = {risk: alpha for risk, alpha in side.plan["budget"].items() if risk in RISKS}
        for line in side.folder.log():
            known = [one for one in line.configurations() if line.status == "complete" and one.search]
            if not known or (terms.methods and line.method not in terms.methods):
                continue
            best = min(known, key=lambda one: sealing.excess(one.search or {}, budget))
            name = best.config.partition("-m")[0]
            entry = Entry(
                f"{side.name}/{name}" if len(sides) > 1 else name, line.method, side, line, best.params.get("stop")
            )
            found.setdefault(line.method, []).append((sealing.excess(best.search or {}, budget), entry))
    missing = [method for method in terms.methods if method not in found]
    if missing:
        raise InputError(f"no finished trial of {missing[0]} in these runs; there are: {', '.join(sorted(found))}")
    if len(found) < 2:
        raise InputError(f"a comparison needs two methods with finished trials; here there is {len(found)}")
    ranked = {method: sorted(some, key=lambda pair: pair[0])[: terms.tries] for method, some in sorted(found.items())}
    return [entry for some in ranked.values() for _, entry in some]


def run(sides: Sequence[Side], terms: Terms, out: Path, told: Progress) -> dict[str, Any]:
    """Do the whole comparison in the folder `out`, or what is left of it; return its document.

    Raises InputError for runs that cannot be compared, before anything is trained.
    """
    terms.check()
    chosen = entries(sides, terms)
    job, folder = sides[0].job, Folder(out)
    plan = _plan(sides, terms)
    old = folder.read(folder.plan)
    if old is not None:
        refuse_other(old, plan)
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} holds files but no plan.json of a comparison; choose another --out")
    if folder.read(folder.seal) is None:
        openings.check(job.sealed.counted, identity(plan), terms.openings, terms.reopen)
    folder.hold()
    try:
        if old is None:
            write_json(folder.plan, plan)
        seal = folder.read(folder.seal) or _seal(sides, chosen, terms, folder, told)
        fixed = identity(folder.read(folder.plan) or plan)
        opening = openings.record(
            job.sealed.counted, fixed, sealing.question(seal, fixed), terms.openings, terms.reopen
        )
        if not folder.calibration_losses.is_file():
            write_table(folder.calibration_losses, _calibrate(sides, chosen, folder, seal, told))
        table = pl.read_parquet(folder.calibration_losses)
        document = comparison.document(table, seal, plan, opening.number, opening.planned)
        write_json(out / "comparison.json", document)
        shutil.rmtree(out / "weights", ignore_errors=True)
        return document
    finally:
        folder.release()


def _plan(sides: Sequence[Side], terms: Terms) -> dict[str, Any]:
    job, first = sides[0].job, sides[0].plan
    return {
        "format": 1,
        "kind": "comparison",
        "froc": froc.__version__,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "runs": [{"name": side.name, "plan": identity(side.plan)} for side in sides],
        "task": {"name": job.task.name, "digest": job.task.digest, "split_seed": job.task.split_seed},
        "model": first["model"],
        "metrics": {risk: first["metrics"][risk] for risk in RISKS},
        # differences are taken of what units have on average
        "units": {risk: "query" if job.task.units[risk] == "query" else "group" for risk in RISKS},
        "levels": list(terms.levels),
        "confidence": terms.confidence,
        "tries": terms.tries,
        "methods": list(terms.methods),
        "openings": terms.openings,
        "split": {"queries": job.sealed.digests, "share": first["split"]["share"]},
    }


def _seal(
    sides: Sequence[Side], chosen: Sequence[Entry], terms: Terms, folder: Folder, told: Progress
) -> dict[str, Any]:
    """Train the entries again, find their shares on search queries, and write down what will be measured."""
    points: dict[str, list[tuple[dict[str, Point], list[Point]]]] = {}
    failed: list[str] = []
    bends: list[float] = []
    for place, (entry, bench) in enumerate(_benches(sides, chosen)):
        told("configurations", place, len(chosen))
        try:
            weights = _weights(entry, bench, folder)
        except FrocError:
            failed.append(entry.name)
            continue
        mixes = Mixes(entry, bench, weights)
        grid = [mixes.at(share) for share in GRID]
        bends += _bends([mixes.at(0.0), *grid])
        levels = {f"{one:g}": mixes.keeping(one) for one in terms.levels}
        points.setdefault(entry.method, []).append((levels, [*grid, *levels.values()]))
    told("configurations", len(chosen), len(chosen))
    if len(points) < 2:
        raise InputError(f"only {len(points)} method(s) could be trained again; a comparison needs two")
    stages: dict[str, dict[str, Point]] = {BEFORE: {m: _plainest(some) for m, some in points.items()}}
    for name in (f"{one:g}" for one in terms.levels):
        # hyperparameters are chosen after calibration, as UWC does
        stages[name] = {m: min((found[name] for found, _ in some), key=_left) for m, some in points.items()}
    fronts = {m: _front([point for _, more in some for point in more]) for m, some in points.items()}
    every = {p.name: p for some in (*(list(s.values()) for s in stages.values()), *fronts.values()) for p in some}
    job = sides[0].job
    write_table(folder.search_losses, _searched(every))
    listed = [Candidate(BASE, BASE, {"mix": 0.0}, 1.0)]
    listed += [Candidate(p.name, p.method, {"entry": p.entry, "mix": p.share}, 1.0) for p in every.values()]
    seal = sealing.document(
        listed, plan=of_document(folder.plan), losses=of_document(folder.search_losses), trials=len(chosen),
        queries=job.sealed.digests,
    ) | {
        "stages": {stage: {m: p.name for m, p in some.items()} for stage, some in stages.items()},
        "fronts": {m: [p.name for p in some] for m, some in fronts.items()},
        "monotone": {"entries": len(chosen) - len(failed), "bends": len(bends), "worst": max(bends, default=0.0)},
        "failed": failed,
    }  # fmt: skip
    write_json(folder.seal, seal)
    return seal


class Mixes:
    """One entry at any share, measured on search queries; each share once."""

    def __init__(self, entry: Entry, bench: Bench, weights: Weights) -> None:
        self._entry, self._bench, self._weights = entry, bench, weights
        self._probes = {probe.risk: probe for probe in bench.probes}
        base = self._probes[UTILITY].base
        self._whole = 1.0 if base is None else float(base.mean())
        self._known: dict[float, Point] = {}

    def at(self, share: float) -> Point:
        """Both risks at a share."""
        if share not in self._known:
            kept = self._kept(share)
            found = measured(self._bench.base, list(self._probes.values()))
            means = {risk: round(float(found[risk].mean()) / 1000, 6) for risk in RISKS}
            self._known[share] = Point(self._entry.name, self._entry.method, share, means, kept)
        return self._known[share]

    def keeping(self, wanted: float) -> Point:
        """The largest share with that much retained performance: 1 where the model as trained keeps it, else by bisection.

        Mean loss grows with the share (UWC, figure 3), so halving finds it; what is returned has kept it in any case.
        """
        if self._kept(1.0) >= wanted:
            return self.at(1.0)
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._kept(middle) >= wanted else (low, middle)
        return self.at(low)

    def _kept(self, share: float) -> float:
        self._bench.base.scope.put(self._weights, share)
        lost = float(losses(self._bench.base, self._probes[UTILITY]).mean()) / 1000
        return 1.0 - lost / self._whole if self._whole else 1.0


def _weights(entry: Entry, bench: Bench, folder: Folder) -> Weights:
    """The entry's parameters; trained again with its seed where this comparison has not done so yet."""
    path = folder.weights(entry.name.replace("/", "_"))
    if not path.is_file():
        line = entry.line
        bench.retrain(Asked(line.method, line.params, line.seed), entry.stop)
        write_weights(bench.base.scope.take(), path)
    return read_weights(path)


def _benches(sides: Sequence[Side], chosen: Sequence[Entry]) -> Iterator[tuple[Entry, Bench]]:
    """Each entry with the bench of its run; one bench is there at a time."""
    for side in sides:
        mine = [entry for entry in chosen if entry.side is side]
        if mine:
            bench = bench_of(side.job)
            for entry in mine:
                yield entry, bench


def _calibrate(
    sides: Sequence[Side], chosen: Sequence[Entry], folder: Folder, seal: Mapping[str, Any], told: Progress
) -> pl.DataFrame:
    """Losses of every sealed point on the calibration queries."""
    queries = sides[0].job.sealed.open(seal)
    by_entry: dict[str, list[Mapping[str, Any]]] = {}
    for point in seal["candidates"]:
        by_entry.setdefault(point["params"].get("entry", BASE), []).append(point)
    tables: list[pl.DataFrame] = []
    for entry, bench in _benches(sides, chosen):
        probes = bench.opened(queries)
        if not tables:
            bench.base.restore()
            tables.append(_table(bench, BASE, queries, probes))
        if entry.name not in by_entry:
            continue
        weights = _weights(entry, bench, folder)
        for point in by_entry[entry.name]:
            bench.base.scope.put(weights, point["params"]["mix"])
            tables.append(_table(bench, point["config"], queries, probes))
            told("calibration", len(tables), len(seal["candidates"]))
    return pl.concat(tables)


def _table(bench: Bench, name: str, queries: Mapping[str, Sequence[Query]], probes: Sequence[Probe]) -> pl.DataFrame:
    return bench.table(name, "calibration", queries, measured(bench.base, probes))


def _front(some: Sequence[Point]) -> list[Point]:
    """Points that no other of the method beats on search queries; where there are many, spread along the front."""
    means = np.array([[point.means[risk] for risk in RISKS] for point in some])
    unique = list({point.name: point for point in (some[k] for k in front(means))}.values())
    ordered = sorted(unique, key=lambda point: (point.means[FORGETTING], point.means[UTILITY]))
    if len(ordered) <= MOST:
        return ordered
    return [ordered[k] for k in np.unique(np.linspace(0, len(ordered) - 1, MOST).round().astype(int))]


def _plainest(some: Sequence[tuple[Mapping[str, Point], Sequence[Point]]]) -> Point:
    """Of the first entry, which the search ranked best: the model as it was trained."""
    return next(point for point in some[0][1] if point.share == 1.0)


def _left(point: Point) -> float:
    return point.means[FORGETTING]


def _bends(some: Sequence[Point]) -> list[float]:
    """How much more is left, or less is lost, than at the smaller share before: what bisection takes for granted is none."""
    risen = [after.means[FORGETTING] - before.means[FORGETTING] for before, after in pairwise(some)]
    fallen = [before.means[UTILITY] - after.means[UTILITY] for before, after in pairwise(some)]
    return [round(one, 6) for one in (*risen, *fallen) if one > 0]


def _searched(points: Mapping[str, Point]) -> pl.DataFrame:
    """What was seen on search queries of the points that were sealed."""
    rows = [
        (name, p.method, p.entry, p.share, p.means[FORGETTING], p.means[UTILITY], p.kept) for name, p in points.items()
    ]
    return pl.DataFrame(
        rows, schema=["config", "method", "entry", "mix", FORGETTING, UTILITY, "retained"], orient="row"
    )
