"""The whole job in order: plan, trials, seal, calibration, certificate, chosen model.

After a kill at any point, the same call continues: each stage writes a file atomically, and the next stage starts from
the files.
"""

import errno
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

import froc
from froc.atomic import open_log
from froc.data import opening_ledger
from froc.errors import InputError, InterruptedRunError
from froc.models.determinism import deterministic
from froc.models.memory import out_of_memory
from froc.plan_identity import identity
from froc.risk.certificate import Candidate, certify
from froc.search import diagnosis, drift, positive_control, trial_extension
from froc.search.continual import sustainability
from froc.search.executors import Executor
from froc.search.job import Job, Listener, runner_of
from froc.search.optuna import learning_rates
from froc.search.plan import Plan, as_planned, make_plan, refuse_other_plan
from froc.search.run_folder import Folder, write_json, write_table
from froc.search.sealed import further_stages, ranking, unopened
from froc.search.settings import measures
from froc.search.stages import calibrate, save_chosen, seal_given, seal_searched

LOG = logging.getLogger("froc")


def run(
    job: Job, out: Path, listener: Listener, sign_plan: Callable[[], str] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Do the whole job in the run folder `out`, or what is left of it; returns the certificate.

    sign_plan: called once the plan is written, before the first trial; returns a note for the user.

    InputError for bad input, before anything is overwritten; InterruptedRunError when the user stops it.
    """
    job.settings.check()
    if job.external is not None:
        job.external.refuse_other_files(job.base)
    folder = Folder(out)
    old = folder.read(folder.plan)
    # an earlier call in this folder has measured them, or was of a version that did not
    job = learning_rates.fitted(job, old.get("rates") or {}) if old is not None else job
    plan = _planned(job) if old is None else as_planned(_planned(job), old, named_bound=job.settings.bound != "auto")
    extended = old is not None and trial_extension.allowed(old, plan.document, folder)
    if old is not None:
        refuse_other_plan(old, trial_extension.unextended(old, plan.document) if extended else plan.document)
    elif out.is_dir() and any(not (path.name.startswith(".") or path == folder.run_log) for path in out.iterdir()):
        raise InputError(f"{out} holds files but no plan.json of a run; choose another --out")
    if folder.read(folder.seal) is None:
        settings = job.settings
        looked = opening_ledger.check(job.sealed.counted, identity(plan.document), settings.openings, settings.reopen)
        plan = replace(plan, notes=(*plan.notes, *filter(None, [looked.overlap])))
    folder.hold()
    try:
        with interruptible(), logged(folder.run_log), deterministic(job.base.deterministic):
            LOG.info("froc %s, %s", froc.__version__, "goes on" if old else "a new run")
            if extended:
                plan = trial_extension.extend(plan, folder)
            done = folder.read(folder.certificate)
            if done is not None and folder.model_is_whole(done):
                listener.planned(_signed(plan, sign_plan))
            else:
                with closing(job.workers(lambda: runner_of(job))) as executor:
                    done = _work(job, plan, folder, executor, listener, sign_plan)
            concluded(job, folder, done)
            return done
    except KeyboardInterrupt as stop:
        LOG.warning("stopped by the user")
        folder.interrupted()
        raise InterruptedRunError(f"stopped; the same command goes on where {out} ends") from stop
    except Exception as error:  # libraries report a full disk in different ways; other errors are re-raised
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


def concluded(job: Job, folder: Folder, done: Mapping[str, Any]) -> None:
    """Write diagnostics and the record of removals, and remove what only a running search needs.

    Parameters of candidates that fresh queries may still certify stay.
    """
    if done.get("opened") is not False and diagnosis.record(job, folder, done):
        extendable = job.settings.extendable and done["chosen"] is None
        for rest in ("training",) if extendable else ("weights", "training"):
            shutil.rmtree(folder.path / rest, ignore_errors=True)
    if job.after is not None and done["chosen"] and not folder.sustainability.is_file():
        _extend_chain(job, folder)


def _extend_chain(job: Job, folder: Folder) -> None:
    """Write the record of removals; without the memory for it the certificate stands, and the next call in this folder tries again."""
    assert job.after is not None
    try:
        sustainability.extend(job.base, job.view, job.task, job.after, folder, measures(job.settings), job.original)
    except Exception as error:  # each backend has its own error for too little memory; others are re-raised
        if not out_of_memory(error):
            raise
        LOG.warning("%s is missing: not enough memory", folder.sustainability.name)


def _planned(job: Job) -> Plan:
    external_digest = None if job.external is None else job.external.digest
    return make_plan(
        job.settings,
        job.task,
        job.view,
        job.sealed,
        job.base,
        job.space,
        job.notes,
        external_digest,
        job.after,
        job.rates,
    )


def _signed(plan: Plan, sign_plan: Callable[[], str] | None) -> Plan:
    """The plan, signed before the first trial if there is a key; the signer's remark becomes one of its notes."""
    note = "" if sign_plan is None else sign_plan()
    return replace(plan, notes=(*plan.notes, note)) if note else plan


def _work(
    job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener, sign_plan: Callable[[], str] | None
) -> dict[str, Any]:
    """The work left after planning; returns a certificate, or the document that replaces it where nothing was opened."""
    job, plan, base = _prepared(job, plan, folder, executor, listener, sign_plan)
    seal = folder.read(folder.seal)
    if seal is None and job.external is not None:
        seal = seal_given(job, plan, folder, executor, listener)
    elif seal is None:
        seal = seal_searched(job, plan, folder, executor, listener, base)
    if seal is None:
        return unopened.document(plan, folder, base)
    return _certified(job, plan, folder, executor, seal, listener)


def _prepared(
    job: Job,
    plan: Plan,
    folder: Folder,
    executor: Executor,
    listener: Listener,
    sign_plan: Callable[[], str] | None,
) -> tuple[Job, Plan, dict[str, Any]]:
    """Measure the base model, find learning rates, write the plan: everything before the first trial.

    Returns the updated job and plan, and the base model's result on search queries.
    """
    shown = positive_control.before_search(executor, job, plan, folder)
    scores = {risk: float(entry["before"]) for risk, entry in shown.base.items()}
    job = replace(job, settings=job.settings.known(scores))
    if folder.read(folder.plan) is None:
        job = learning_rates.fitted(job, learning_rates.measured(job, executor, job.progress))
        fitted = _planned(job)
        plan = replace(
            fitted,
            document={
                **fitted.document,
                "notes": shown.notes,
                "environment": {**fitted.document["environment"], **shown.environment},
            },
            notes=tuple(dict.fromkeys((*fitted.notes, *plan.notes))),
        )
        if job.options:
            write_json(folder.options, job.options)
        write_json(folder.plan, plan.document)
    if not folder.base_losses.is_file():
        write_table(folder.base_losses, shown.absences)
    plan = _signed(plan, sign_plan)
    listener.planned(plan)
    listener.base_measured(shown.base, [*shown.notes, *shown.doubts])
    return job, plan, shown.base


def _certified(
    job: Job, plan: Plan, folder: Folder, executor: Executor, seal: Mapping[str, Any], listener: Listener
) -> dict[str, Any]:
    """Open the calibration queries for a seal, measure, certify, save the chosen model, write the certificate."""
    candidates = [Candidate(**candidate) for candidate in seal["candidates"]]
    fixed = identity(plan.document)
    question = ranking.question(seal, fixed)
    opening = opening_ledger.record(job.sealed.counted, fixed, question, job.settings.openings, job.settings.reopen)
    LOG.info("opening %d of %d planned; %s", opening.number, opening.planned, opening.overlap or "all are fresh")
    claim = replace(
        plan.claim, openings=opening.planned, opening=opening.number, stages=further_stages.measured(folder)
    )
    calibrate(job, folder, executor, candidates, claim, seal, listener)
    order = job.sealed.order if claim.sequential else None
    certificate = certify(
        further_stages.losses(folder), candidates, claim, order, further_stages.control(folder, plan.document)
    )
    save_chosen(job, folder, executor, candidates, certificate)
    write_json(folder.certificate, certificate)
    drift.record(job, folder, executor, seal["candidates"])
    LOG.info("certified %d of %d, chosen %s", len(certificate["certified"]), len(candidates), certificate["chosen"])
    return certificate


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Context manager: events go to the run's log file, with levels; FROC_DEBUG adds the lowest level."""
    stream = open_log(path)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    LOG.setLevel(logging.DEBUG if os.environ.get("FROC_DEBUG") else logging.INFO)
    LOG.addHandler(handler)
    # log lines go to the file only; the terminal has its own messages
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        handler.close()
        stream.close()


@contextmanager
def interruptible() -> Iterator[None]:
    """Context manager: SIGTERM acts like Ctrl-C: finish writing, and say how to continue."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # only the main thread can handle signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _disk_is_full(error: BaseException) -> bool:
    text = str(error).lower()
    return "no space left" in text or "disk is full" in text or getattr(error, "errno", None) == errno.ENOSPC
