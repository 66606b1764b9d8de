"""The whole job, in order: plan, trials, seal, calibration, certificate, chosen model.

Killed at any point, the same call goes on: each stage leaves a file that appears whole or not at all, and the next
stage starts from the files.
"""

import errno
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import polars as pl
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

import froc
from froc import openings
from froc.data import RISKS, Sealed, SearchView, Task
from froc.engine import Engine
from froc.errors import InputError, InterruptedRunError
from froc.exchangeability import warnings
from froc.losses import SCALE
from froc.models import Base, read_weights, save, write_weights
from froc.risk import Candidate, Claim, certify
from search import control, growth, rates, sealing, sustaining, unopened
from search.after import After
from search.calibration import measure, measure_in_rounds, searched
from search.diagnosing import diagnose
from search.driver import Driver
from search.executors import Executor
from search.executors.inline import Inline
from search.external import EXTERNAL, GIVEN, Given
from search.folder import Folder, Started, of_document, write_json, write_table
from search.outlook import LIKELY, chance
from search.plan import Plan, Settings, as_planned, identity, make_plan, measures, refuse_other
from search.sharing import Shared
from search.space import Spaces
from search.study import Study
from search.trial import Asked, Bench
from search.work import Again, Kept, now

LOG = logging.getLogger("froc")
SCREENED = 2
"""Times as many configurations as may be sealed are measured under further risks."""


class Listener(Protocol):
    """Is told how the job goes on; draws progress."""

    def planned(self, plan: Plan) -> None:
        """Before the first trial."""

    def controlled(self, base: Mapping[str, Any], notes: Sequence[str]) -> None:
        """What the base model shows on search queries (`froc.control`), before the first trial."""

    def trial(self, line: Started, log: Sequence[Started], total: int) -> None:
        """A trial started or ended."""

    def screening(self, done: int, total: int) -> None:
        """A configuration has been measured under the further risks, on search queries."""

    def calibrating(self, done: int, total: int) -> None:
        """A candidate has been measured on the calibration queries."""


@dataclass(frozen=True)
class Job:
    """What a search works on. workers: makes what trials run on; is handed what makes a bench of this process.

    given: an unlearned model from elsewhere, which is measured instead of searching for one. after: the run that made the
    base model; original: loads the model before all removals, for the curve alone (None where there is none). told: hears
    of (what, done, of) before the first trial. rates: learning rates that were measured, see `search.rates`.
    """

    base: Base
    task: Task
    view: SearchView
    sealed: Sealed
    space: Spaces
    settings: Settings
    notes: tuple[str, ...] = ()
    engine: Engine | None = None
    workers: Callable[[Callable[[], Bench]], Executor] = Inline
    given: Given | None = None
    after: After | None = None
    original: Callable[[], Base | None] | None = None
    told: Callable[[str, int, int], None] = lambda *_: None
    rates: Mapping[str, Any] = field(default_factory=dict)


def run(job: Job, out: Path, listener: Listener) -> dict[str, Any]:
    """Do the whole job in the run folder `out`, or what is left of it; return the certificate.

    Raises InputError for bad input before anything is written over, InterruptedRunError when the user stops it.
    """
    job.settings.check()
    folder = Folder(out)
    old = folder.read(folder.plan)
    # an earlier call in this folder has measured them, or was of a version that did not
    job = rates.fitted(job, old.get("rates") or {}) if old is not None else job
    plan = _planned(job)
    grown = old is not None and growth.allowed(old, plan.document, folder)
    if old is not None:
        refuse_other(old, growth.grown(old, plan.document, folder) if grown else plan.document)
        plan = replace(plan, claim=as_planned(plan.claim, old))
    elif out.is_dir() and any(not (path.name.startswith(".") or path == folder.run_log) for path in out.iterdir()):
        raise InputError(f"{out} holds files but no plan.json of a run; choose another --out")
    if folder.read(folder.seal) is None:
        settings = job.settings
        looked = openings.check(job.sealed.counted, identity(plan.document), settings.openings, settings.reopen)
        plan = replace(plan, notes=(*plan.notes, *filter(None, [looked.overlap])))
    folder.hold()
    try:
        with _interruptible(), _logged(folder.run_log):
            LOG.info("froc %s, %s", froc.__version__, "goes on" if old else "a new run")
            if grown:
                plan = growth.grow(plan, folder)
            done = folder.read(folder.certificate)
            if done is not None and folder.model_is_whole(done):
                listener.planned(plan)
            else:
                with closing(job.workers(lambda: bench_of(job))) as executor:
                    done = _work(job, plan, folder, executor, listener)
            if job.after is not None and done["chosen"] and not folder.sustainability.is_file():
                told = measures(job.settings)
                sustaining.extend(job.base, job.view, job.task, job.after, folder, told, job.original)
            return done
    except KeyboardInterrupt as stop:
        LOG.warning("stopped by the user")
        folder.interrupted()
        raise InterruptedRunError(f"stopped; the same command goes on where {out} ends") from stop
    except Exception as error:  # each library has its own word for a full disk; anything else goes on as it came
        if _disk_is_full(error):
            raise InputError(f"the disk of {out} is full; free some space and run the same command again") from error
        if isinstance(error, (SQLAlchemyError, StorageInternalError)):
            raise InputError(
                f"the study's database failed ({type(error).__name__}): another program may lock it, or it is gone; mend "
                "that and run the same command again, no finished trial is lost"
            ) from error
        raise
    finally:
        folder.release()


def _planned(job: Job) -> Plan:
    given = None if job.given is None else job.given.digest
    return make_plan(
        job.settings, job.task, job.view, job.sealed, job.base, job.space, job.notes, given, job.after, job.rates
    )


def _work(job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener) -> dict[str, Any]:
    kinds, allowed = plan.document["control"], job.settings.allow_vacuous
    absent, shown, said = control.before_search(executor, job.view.queries, kinds, plan.claim, folder, allowed)
    job = replace(job, settings=job.settings.known({risk: float(one["before"]) for risk, one in shown.items()}))
    if folder.read(folder.plan) is None:
        job = rates.fitted(job, rates.measured(job, executor, job.told))
        fitted = _planned(job)
        plan = replace(fitted, notes=tuple(dict.fromkeys((*fitted.notes, *plan.notes))))
        write_json(folder.plan, plan.document)
    if not folder.base_losses.is_file():
        write_table(folder.base_losses, absent)
    listener.planned(plan)
    listener.controlled(shown, said)
    seal = folder.read(folder.seal)
    if seal is None:
        seal = (_search if job.given is None else _as_given)(job, plan, folder, executor, listener, shown)
    if seal is None:
        return unopened.document(plan, folder, shown)
    candidates = [Candidate(**c) for c in seal["candidates"]]
    fixed = identity(plan.document)
    asked = sealing.question(seal, fixed)
    opening = openings.record(job.sealed.counted, fixed, asked, job.settings.openings, job.settings.reopen)
    LOG.info("opening %d of %d planned; %s", opening.number, opening.planned, opening.overlap or "all are fresh")
    claim = replace(plan.claim, openings=opening.planned, opening=opening.number)
    order = job.sealed.order if claim.sequential else None
    _calibrate(job, folder, executor, candidates, claim, seal, listener)
    shown_too = control.control(folder, plan.document)
    certificate = certify(pl.read_parquet(folder.calibration_losses), candidates, claim, order, shown_too)
    _keep_chosen(job, folder, executor, candidates, certificate)
    write_json(folder.certificate, certificate)
    LOG.info("certified %d of %d, chosen %s", len(certificate["certified"]), len(candidates), certificate["chosen"])
    for rest in ("weights", "training"):
        shutil.rmtree(folder.path / rest, ignore_errors=True)
    return certificate


def bench_of(job: Job) -> Bench:
    """What this process's trials run on."""
    settings = job.settings
    return Bench(
        job.base, job.view, measures(settings), batch=settings.batch, seed=settings.seed,
        limits=settings.steering, swept=settings.sweep, engine=job.engine,
    )  # fmt: skip


def _search(
    job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener, base: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The seal; None where no candidate is worth opening the calibration queries for."""
    settings = job.settings
    told: dict[str, Any] = {
        "sampler": settings.sampler, "pruner": settings.pruner, "seed": settings.seed, "objective": settings.objective,
        "weighing": settings.weighing,
    }  # fmt: skip
    study: Study
    if settings.storage:
        study = Shared(settings.storage, identity(plan.document), job.space, settings.steering, **told)
    else:
        study = Study(folder.study, job.space, settings.steering, **told)

    # further risks are measured once the search is over
    budget = {risk: alpha for risk, alpha in plan.claim.budget.items() if risk not in settings.further}
    relative = tuple(risk for risk in plan.claim.relative if risk in budget)
    steered = replace(plan.claim, budget=budget, relative=relative)

    def enough(config: str) -> bool:
        table = pl.read_parquet(folder.trial_losses(config)).filter(pl.col("config") == config)
        absent = pl.read_parquet(folder.base_losses)
        likely = chance(table, config, steered, job.sealed.units, plan.candidates, absent)
        LOG.info("%s would be certified with a chance of %.2f", config, likely)
        return likely >= LIKELY

    count = plan.candidates * (SCREENED if settings.further else 1)
    driver = Driver(folder, study, executor, settings, count, listener.trial, enough)
    with closing(study):
        log, why = driver.run()
    done = sorted((line for line in log if line.status == "complete"), key=lambda line: line.trial)
    if not done:
        reasons = sorted({f"{line.status}: {line.reason}" for line in log if line.reason})
        raise InputError(
            f"none of {len(log)} trials finished ({'; '.join(reasons[:3])}); widen the space or mend the cause"
        )
    table = pl.concat([pl.read_parquet(folder.trial_losses(line.config)) for line in done])
    if settings.further:
        likely = sealing.shortlist(sealing.rank(done, sealing.sums(table), settings.steering), count)
        table = pl.concat([table, _screen(job, folder, executor, likely, listener)])
    write_table(folder.search_losses, table)
    sums = sealing.sums(table)
    listed = sealing.shortlist(sealing.rank(done, sums, settings.limits), plan.candidates)
    if not sealing.worth_opening(
        [sums[one.config] for one in listed], settings.limits, plan.document["split"]["search"]
    ):
        unopened.record(folder, listed, sums, settings.limits, base, len(done))
        return None
    seal = _sealed(job, plan, folder, listed, len(done))
    LOG.info("sealed %d candidates of %d complete trials (%s)", len(seal["candidates"]), len(done), why)
    return seal


def _as_given(
    job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener, _base: Mapping[str, Any]
) -> dict[str, Any]:
    """One candidate, which no search chose: its losses on the search queries are for the reader alone."""
    assert job.given is not None
    line = Started(0, 1, GIVEN, EXTERNAL, {}, 0, now(), of_document(folder.plan))
    folder.record([line])
    write_weights(job.given.weights(job.base), folder.weights(GIVEN))
    one = Candidate(GIVEN, EXTERNAL, {}, 1.0)
    queries = {risk: some for risk, some in job.view.queries.items() if risk in RISKS}
    table = measure(executor, queries, [one], {GIVEN: folder.weights(GIVEN)}, listener.screening, "search")
    sums = sealing.sums(table)[GIVEN]
    means = {risk: total / (SCALE * count) for risk, (total, count) in sums.items()}
    folder.record([replace(line, status="complete", ended=now(), search=means)])
    write_table(folder.search_losses, table)
    return _sealed(job, plan, folder, [one], 1)


def _sealed(job: Job, plan: Plan, folder: Folder, candidates: Sequence[Candidate], trials: int) -> dict[str, Any]:
    seal = sealing.document(
        candidates,
        plan=of_document(folder.plan),
        losses=of_document(folder.search_losses),
        trials=trials,
        queries=job.sealed.digests,
        order=job.sealed.order.rows() if plan.claim.sequential else None,
    )
    write_json(folder.seal, seal)
    return seal


def _screen(
    job: Job, folder: Folder, executor: Executor, likely: Sequence[Candidate], listener: Listener
) -> pl.DataFrame:
    """Search losses under the further risks of the configurations that may be sealed; attacks are too dear for every trial."""
    if not folder.screened.is_file():
        queries = {risk: job.view.queries[risk] for risk in job.settings.further}
        kept = _kept(job, folder, executor, likely)
        LOG.info("%d configurations are measured under %s", len(likely), ", ".join(queries))
        write_table(folder.screened, measure(executor, queries, likely, kept, listener.screening, "search"))
    return pl.read_parquet(folder.screened)


def _calibrate(
    job: Job,
    folder: Folder,
    executor: Executor,
    candidates: Sequence[Candidate],
    claim: Claim,
    seal: Mapping[str, Any],
    listener: Listener,
) -> None:
    if folder.calibration_losses.is_file():
        return
    queries = job.sealed.open(seal)
    kept = _kept(job, folder, executor, candidates)
    if claim.sequential:
        table = measure_in_rounds(executor, queries, candidates, kept, claim, job.sealed.order, listener.calibrating)
    else:
        table = measure(executor, queries, candidates, kept, listener.calibrating)
    known = searched(pl.read_parquet(folder.search_losses), candidates, claim)
    control.opened(executor, queries, folder)
    write_table(folder.calibration_losses, pl.concat([table, known]))


def _kept(job: Job, folder: Folder, executor: Executor, candidates: Sequence[Candidate]) -> dict[str, Kept]:
    """config -> its parameters; those that were not kept are trained again with their seeds."""
    missing = [one for one in candidates if not folder.weights(one.config).is_file()]
    if job.given is not None and missing:
        write_weights(job.given.weights(job.base), folder.weights(GIVEN))
        missing = []
    complete = {line.config: line for line in folder.log() if line.status == "complete"}
    limits = job.settings.steering if job.settings.relative else None
    works = [_again(complete[one.config.partition("-")[0]], one.config, executor, folder, limits) for one in missing]
    for handed in executor.each(works):
        for config, weights in handed.items():
            write_weights(weights, folder.weights(config))
    paths = {one.config: folder.weights(one.config) for one in candidates}
    return {config: read_weights(path) if executor.remote else path for config, path in paths.items()}


def _again(line: Started, config: str, executor: Executor, folder: Folder, limits: Mapping[str, float] | None) -> Again:
    one = next(o for o in line.configurations() if o.config == config)
    asked = Asked(line.method, line.params, line.seed)
    path = None if executor.remote else folder.path
    return Again(config, asked, one.params.get("stop"), one.params.get("mix", 1.0), path, limits)


def _keep_chosen(
    job: Job, folder: Folder, executor: Executor, candidates: Sequence[Candidate], certificate: Mapping[str, Any]
) -> None:
    chosen = next((c for c in candidates if c.config == certificate["chosen"]), None)
    part = folder.path / ".model.part"
    for stale in (part, folder.model):
        shutil.rmtree(stale, ignore_errors=True)
    if chosen is None:
        return
    _kept(job, folder, executor, [chosen])
    told = diagnose(job.base, job.view, read_weights(folder.weights(chosen.config)))
    write_json(folder.diagnostics, told | {"exchangeability": _noticed(job, folder, candidates, certificate)})
    if job.given is None:
        save(job.base, part)
    else:
        job.given.copy(part)
    part.rename(folder.model)


def _noticed(job: Job, folder: Folder, candidates: Sequence[Candidate], certificate: Mapping[str, Any]) -> list[str]:
    """Do calibration losses look like independent draws? By the rows' groups and places in their file, which no table tells."""
    table, names = pl.read_parquet(folder.calibration_losses), [one.config for one in candidates]
    places = {row: k for rows in job.task.queries.values() for k, row in enumerate(rows)}
    found = []
    for risk, some in job.sealed.open(folder.read(folder.seal) or {}).items():
        if certificate["population"].get(risk) != "queries":
            continue
        rows = [(q.id, q.row.group or q.id, places.get(q.row, 0)) for q in some]
        known = pl.DataFrame(rows, schema=["query", "unit", "place"], orient="row")
        found += warnings(table, risk=risk, configs=names, unit=certificate["unit"][risk], known=known)
    return found


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write what happens into the run's log file, with levels; FROC_DEBUG adds the smallest."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    LOG.setLevel(logging.DEBUG if os.environ.get("FROC_DEBUG") else logging.INFO)
    LOG.addHandler(handler)
    # what is said belongs into the file; the screen has its own words
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        handler.close()


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
