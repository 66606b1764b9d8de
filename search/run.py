"""The whole job, in order: plan, trials, seal, calibration, certificate, chosen model.

Killed at any point, the same call goes on: each stage leaves a file that appears whole or not at all, and the next
stage starts from the files.
"""

import errno
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import polars as pl

from froc.data import Sealed, SearchView, Task
from froc.engine import Engine
from froc.errors import InputError, InterruptedRunError
from froc.measure import probes
from froc.models import Base, read_weights, save, write_weights
from froc.risk import Candidate, Claim, certify
from search import openings, sealing
from search.calibration import measure, measure_in_rounds, searched
from search.folder import FINISHED, Folder, Started, of_document, write_json, write_table
from search.plan import Plan, Settings, identity, make_plan, metrics, refuse_other
from search.space import Spaces
from search.study import Study
from search.trial import Asked, Bench, Outcome, trial_seed

Sums = dict[str, dict[str, tuple[int, int]]]
"""config -> risk -> (sum of search losses in thousandths, number of queries), read once."""


class Listener(Protocol):
    """Is told how the job goes on; draws progress."""

    def planned(self, plan: Plan) -> None:
        """Before the first trial."""

    def trial(self, line: Started, log: Sequence[Started], total: int) -> None:
        """A trial started or ended."""

    def calibrating(self, done: int, total: int) -> None:
        """A candidate has been measured on the calibration queries."""


@dataclass(frozen=True)
class Job:
    """What a search works on."""

    base: Base
    task: Task
    view: SearchView
    sealed: Sealed
    space: Spaces
    settings: Settings
    notes: tuple[str, ...] = ()
    engine: Engine | None = None


def run(job: Job, out: Path, listener: Listener) -> dict[str, Any]:
    """Do the whole job in the run folder `out`, or what is left of it; return the certificate.

    Raises InputError for bad input before anything is written over, InterruptedRunError when the user stops it.
    """
    job.settings.check()
    folder = Folder(out)
    plan = make_plan(job.settings, job.task, job.view, job.sealed, job.base, job.space, job.notes)
    old = folder.read(folder.plan)
    if old is not None:
        refuse_other(old, plan.document)
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} holds files but no plan.json of a run; choose another --out")
    if folder.read(folder.seal) is None:
        openings.check(job.sealed.pool, identity(plan.document), job.settings.openings, job.settings.reopen)
    folder.hold()
    try:
        with _interruptible():
            if old is None:
                write_json(folder.plan, plan.document)
            listener.planned(plan)
            done = folder.read(folder.certificate)
            return done if done is not None and folder.model_is_whole(done) else _work(job, plan, folder, listener)
    except KeyboardInterrupt as stop:
        folder.interrupted()
        raise InterruptedRunError(f"stopped; the same command goes on where {out} ends") from stop
    except Exception as error:  # each library has its own word for a full disk; anything else goes on as it came
        if _disk_is_full(error):
            raise InputError(f"the disk of {out} is full; free some space and run the same command again") from error
        raise
    finally:
        folder.release()


def _work(job: Job, plan: Plan, folder: Folder, listener: Listener) -> dict[str, Any]:
    measured = metrics(job.settings, job.task.queries)
    settings = job.settings
    bench = Bench(
        job.base, job.view, measured, batch=settings.batch, seed=settings.seed, limits=settings.limits,
        swept=settings.sweep, engine=job.engine,
    )  # fmt: skip
    seal = folder.read(folder.seal)
    if seal is None:
        log = _search(job, plan, folder, bench, listener)
        seal = _seal(job, plan, folder, log)
    candidates = [Candidate(**c) for c in seal["candidates"]]
    fixed = identity(plan.document)
    asked = sealing.question(seal, fixed)
    opening = openings.record(job.sealed.pool, fixed, asked, job.settings.openings, job.settings.reopen)
    claim = replace(plan.claim, openings=opening.planned, opening=opening.number)
    order = job.sealed.order if claim.sequential else None
    _calibrate(job, folder, bench, candidates, claim, seal, listener)
    certificate = certify(pl.read_parquet(folder.calibration_losses), candidates, claim, order)
    _keep_chosen(folder, bench, candidates, certificate)
    write_json(folder.certificate, certificate)
    shutil.rmtree(folder.path / "weights", ignore_errors=True)
    return certificate


def _search(job: Job, plan: Plan, folder: Folder, bench: Bench, listener: Listener) -> list[Started]:
    settings = job.settings
    log = folder.interrupted()
    study = Study(
        folder.study,
        job.space,
        settings.limits,
        sampler=settings.sampler,
        pruner=settings.pruner,
        seed=settings.seed,
        objective=settings.objective,
        weighing=settings.weighing,
    )
    study.resume(log, lambda config: (folder.read(folder.rung_losses(config)) or {}).get("rungs", []))
    digest = of_document(folder.plan)
    told = {line.trial: (line.method, line.params) for line in log}
    first = sum(line.status in FINISHED for line in log)
    sums: Sums = {}
    while first < settings.trials:
        # a pack that was interrupted goes on where it was cut, so that the next one starts where it would have
        numbers = range(first, min((first // settings.pack + 1) * settings.pack, settings.trials))
        lines = []
        for number in numbers:
            method, params = study.ask(number, told.get(number))
            attempt = 1 + sum(line.trial == number for line in log)
            seed = trial_seed(settings.seed, number)
            line = Started(number, attempt, f"c{number:04d}", method, params, seed, _now(), digest)
            lines.append(line)
            log.append(line)
        folder.record(log)
        for line in lines:
            listener.trial(line, log, settings.trials)
        _train(lines, log, job, plan, folder, bench, study, listener, sums)
        first = numbers.stop
    return log


def _train(
    lines: Sequence[Started], log: list[Started], job: Job, plan: Plan, folder: Folder, bench: Bench, study: Study,
    listener: Listener, sums: Sums,
) -> None:  # fmt: skip
    """Train started trials together, and write down what each came to, in order."""
    asked = [Asked(line.method, line.params, line.seed) for line in lines]
    watch = [partial(study.hopeless, line.trial) for line in lines]
    for line, outcome in zip(lines, bench.run(asked, watch), strict=True):
        ended = _ended(line, outcome)
        if outcome.ended:
            tables = [
                bench.table(one.config, "search", job.view.queries, found.tables)
                for one, found in zip(ended.configurations(), outcome.ended, strict=True)
            ]
            write_table(folder.trial_losses(line.config), pl.concat(tables))
        if study.by_query:
            write_json(folder.rung_losses(line.config), {"rungs": outcome.queries})
        log[log.index(line)] = ended
        if outcome.ended:
            _keep_weights(folder, bench, log, ended, outcome, plan, job.settings.limits, sums)
        folder.record(log)
        study.tell(ended)
        listener.trial(ended, log, job.settings.trials)


def _ended(line: Started, outcome: Outcome) -> Started:
    plain = outcome.ended[0] if outcome.ended else None
    variants = [
        {
            "config": f"{line.config}-s{one.step}-m{round(1000 * one.share):04d}", "stop": one.step, "mix": one.share,
            "search": one.means, "averages": one.averages,
        }
        for one in outcome.ended[1:]
    ]  # fmt: skip
    return replace(
        line, status=outcome.status, reason=outcome.reason, ended=_now(), steps=outcome.steps, seconds=outcome.seconds,
        search=plain.means if plain else None, rungs=outcome.rungs, averages=plain.averages if plain else None, variants=variants,
    )  # fmt: skip


def _ranked(log: Sequence[Started], folder: Folder, budget: Mapping[str, float], sums: Sums) -> list[sealing.Ranked]:
    for line in log:
        if line.status == "complete" and line.config not in sums:
            table = pl.read_parquet(folder.trial_losses(line.config))
            grouped = table.group_by("config", "risk").agg(pl.col("loss").cast(pl.Int64).sum(), pl.len().alias("n"))
            for config, risk, total, count in grouped.iter_rows():
                sums.setdefault(config, {})[risk] = total, count
    return sealing.rank(log, sums, budget)


def _keep_weights(
    folder: Folder, bench: Bench, log: Sequence[Started], line: Started, outcome: Outcome, plan: Plan,
    limits: Mapping[str, float], sums: Sums,
) -> None:  # fmt: skip
    """Keep the parameters of what would be candidates if the search ended now; drop the others."""
    wanted = {c.config for c in sealing.shortlist(_ranked(log, folder, limits, sums), plan.candidates)}
    for one, found in zip(line.configurations(), outcome.ended, strict=True):
        if one.config in wanted:
            bench.put(outcome, found.step, found.share)
            write_weights(bench.base.scope.take(), folder.weights(one.config))
    for path in (folder.path / "weights").glob("*.safetensors"):
        if path.stem not in wanted:
            path.unlink()


def _seal(job: Job, plan: Plan, folder: Folder, log: Sequence[Started]) -> dict[str, Any]:
    done = [line for line in log if line.status == "complete"]
    if not done:
        reasons = sorted({f"{line.status}: {line.reason}" for line in log if line.reason})
        raise InputError(
            f"none of {len(log)} trials finished ({'; '.join(reasons[:3])}); widen the space or mend the cause"
        )
    write_table(folder.search_losses, pl.concat([pl.read_parquet(folder.trial_losses(line.config)) for line in done]))
    seal = sealing.document(
        sealing.shortlist(_ranked(log, folder, job.settings.limits, {}), plan.candidates),
        plan=of_document(folder.plan),
        losses=of_document(folder.search_losses),
        trials=len(done),
        queries=job.sealed.digests,
        order=job.sealed.order.rows() if plan.claim.sequential else None,
    )
    write_json(folder.seal, seal)
    return seal


def _calibrate(
    job: Job,
    folder: Folder,
    bench: Bench,
    candidates: Sequence[Candidate],
    claim: Claim,
    seal: Mapping[str, Any],
    listener: Listener,
) -> None:
    if folder.calibration_losses.is_file():
        return
    opened = probes(job.base, job.sealed.open(seal), bench.metrics, job.task.template)

    def bring(candidate: Candidate) -> None:
        _put(folder, bench, candidate)

    if claim.sequential:
        order = job.sealed.order
        table = measure_in_rounds(bench, opened, candidates, claim, order, bring, listener.calibrating)
    else:
        table = measure(bench, opened, candidates, bring, listener.calibrating)
    known = searched({one.config: folder.trial_losses(one.config) for one in candidates}, claim)
    write_table(folder.calibration_losses, pl.concat([table, *known]))


def _put(folder: Folder, bench: Bench, candidate: Candidate) -> None:
    """Bring a candidate's parameters back: from its file, or by training it again with its seed."""
    path = folder.weights(candidate.config)
    if path.is_file():
        bench.base.scope.put(read_weights(path))
        return
    complete = [line for line in folder.log() if line.status == "complete"]
    line, one = next((line, o) for line in complete for o in line.configurations() if o.config == candidate.config)
    asked = Asked(line.method, line.params, line.seed)
    bench.retrain(asked, one.params.get("stop"), one.params.get("mix", 1.0))
    write_weights(bench.base.scope.take(), path)


def _keep_chosen(folder: Folder, bench: Bench, candidates: Sequence[Candidate], certificate: Mapping[str, Any]) -> None:
    chosen = next((c for c in candidates if c.config == certificate["chosen"]), None)
    part = folder.path / ".model.part"
    for stale in (part, folder.model):
        shutil.rmtree(stale, ignore_errors=True)
    if chosen is None:
        return
    _put(folder, bench, chosen)
    save(bench.base, part)
    part.rename(folder.model)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: finish writing, say how to go on."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # signals belong to the main thread; elsewhere there is none to catch
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _disk_is_full(error: BaseException) -> bool:
    text = str(error).lower()
    return "no space left" in text or "disk is full" in text or getattr(error, "errno", None) == errno.ENOSPC


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
