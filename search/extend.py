"""A finished run that certified nothing goes on with fresh queries: `froc extend`.

The candidates, their order, weights and levels stay those of the seal; the new losses are appended to each candidate's capital
(`docs/guarantee.md`, "Further stages"). After a kill, the same call goes on.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from froc import hashing
from froc.data import fresh_queries, opening_ledger
from froc.data.fresh_queries import Names, Rows
from froc.data.ledger_files import Counted
from froc.data.splits import ids, keyed_queries, looked_at
from froc.data.task import Query
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.measuring.query_losses import refuse_unfit
from froc.measuring.screening import refuse_rows
from froc.models.determinism import deterministic
from froc.plan_identity import identity, stage_seed
from froc.risk import same_population
from froc.risk.certificate import Candidate, Claim, certify
from froc.risk.claim_checks import refuse_unknown
from froc.risk.planned_claim import claim_of
from froc.search import prior_run
from froc.search.job import Job, Listener, runner_of
from froc.search.pipeline import concluded, interruptible, logged
from froc.search.run_folder import Folder, write_json, write_table
from froc.search.sealed import further_stages as stages
from froc.search.sealed.calibration import measure
from froc.search.settings import measures
from froc.search.stages import kept_weights, save_chosen
from froc.search.trial.work import MeasureBase

LOG = logging.getLogger("froc")
Queries = Mapping[str, tuple[Query, ...]]


def extend(job: Job, out: Path, rows: Rows | None, listener: Listener) -> dict[str, Any]:
    """Measure the sealed candidates of the run folder `out` on fresh queries; returns the certificate from all stages.

    rows: pool -> fresh rows; None draws them from the known population of the embedded task. InputError, before anything is measured, for a run that cannot be continued and for
    rows that are not fresh.
    """
    folder = Folder(out)
    plan = folder.require_plan()
    folder.hold()
    try:
        with interruptible(), logged(folder.run_log), deterministic(job.base.deterministic):
            certificate = folder.read(folder.certificate)
            stages.refuse_unextendable(plan, certificate)
            assert certificate is not None
            opening = certificate["opening"]
            claim = replace(claim_of(plan), opening=opening["number"], openings=opening["planned"])
            refuse_unknown(claim)
            entry, queries = _sealed(job, folder, plan, rows, len(certificate.get("stages", ())))
            LOG.info("stage %d: %s", entry["number"], ", ".join(f"{n} of {risk}" for risk, n in entry["units"].items()))
            candidates = [Candidate(**candidate) for candidate in (folder.read(folder.seal) or {})["candidates"]]
            with closing(job.workers(lambda: runner_of(job))) as executor:
                # after a kill the losses may be there, and only the certificate missing
                if not stages.table_of(folder, entry["number"]).is_file():
                    stage = stages.of_entry(entry)
                    (base,) = executor.each([MeasureBase(stage.split, queries)])
                    _refuse_other_population(
                        folder, plan, replace(claim, stages=(*stages.measured(folder), stage)), base
                    )
                    kept = kept_weights(job, folder, executor, candidates)
                    table = measure(executor, queries, candidates, kept, listener.calibrating, stage.split)
                    write_table(stages.table_of(folder, entry["number"]), pl.concat([table, base]))
                claim = replace(claim, stages=stages.measured(folder))
                done = certify(stages.losses(folder), candidates, claim, None, stages.control(folder, plan))
                save_chosen(job, folder, executor, candidates, done)
            write_json(folder.certificate, done)
            LOG.info("after stage %d: chosen %s", entry["number"], done["chosen"])
            concluded(job, folder, done)
            return done
    finally:
        folder.release()


def _refuse_other_population(folder: Folder, plan: Mapping[str, Any], claim: Claim, base: pl.DataFrame) -> None:
    """InputError, and the claim's last stage taken back, where the base model's losses on it contradict those before; no candidate's are known."""
    control = stages.control(folder, plan, base)
    why = None if control is None else same_population.complaint(control, claim)
    if why is not None:
        stages.unseal(folder)
        raise InputError(why)


def _sealed(
    job: Job, folder: Folder, plan: Mapping[str, Any], given: Rows | None, certified: int
) -> tuple[dict[str, Any], Queries]:
    """The next stage, written down and counted, and its queries; or the one that was begun. certified: stages in the certificate."""
    earlier = stages.listed(folder)
    begun = len(earlier) > certified
    number = len(earlier) + (1 if begun else 2)
    rows = _drawn(job, number) if given is None else given
    digest = fresh_queries.digest(job.task, rows)
    if begun and earlier[-1]["rows"] != digest:
        raise InputError(
            "a stage was begun with other queries and not finished; give the same ones again, then others may follow"
        )
    seed = stage_seed(plan["split"].get("label"), number, digest)
    names = Names(job.task, seed)
    measured = measures(job.settings)
    # independent draws from a known population may meet
    if given is not None:
        fresh_queries.refuse_seen(job.task, rows, stages.seen(folder, job.task, number))
    unsearched = rows if given is None else _unsearched(job, rows)
    queries = fresh_queries.queries(names, unsearched, {risk: each.source for risk, each in measured.items()})
    if not queries:
        raise InputError(
            "none of the fresh queries are about a risk of the run; give some of " + ", ".join(job.task.queries)
        )
    fresh_queries.refuse_large_groups(queries, plan.get("largest", {}))
    refuse_unfit(job.view, measured, queries)
    refuse_rows(job.base, replace(job.task, queries=rows), job.view, measured)
    entry = earlier[-1] if begun else stages.entry(folder, number, digest, seed, queries)
    question = hashing.sha256_json(
        {"plan": identity(plan), "stage": {k: v for k, v in entry.items() if k != "created"}}
    )
    counted = _counted(job, queries)
    if not begun:
        opening_ledger.check(counted, question, 1, reopen=False)
        stages.seal(folder, entry)
    opening_ledger.record(counted, question, question, 1, reopen=begun)
    return entry, queries


def _unsearched(job: Job, rows: Rows) -> Rows:
    """The rows without those that a search which this one began like (`--like`) would have looked at, by its rule that knows no file."""
    before = prior_run.splits_of(job.settings, job.task)
    if not before:
        return rows
    task = replace(job.task, queries=dict(rows))
    looked = {pool: looked_at(task, pool, before) for pool in rows}
    return {
        pool: tuple(query.row for query in keyed_queries(task, pool) if query.unit not in looked[pool]) for pool in rows
    }


def _counted(job: Job, queries: Queries) -> Counted:
    """What identifies the queries in the opening ledger: they are looked at once, by this stage."""
    measured, opened = measures(job.settings), dict[str, set[str]]()
    for risk, of_risk in queries.items():
        opened.setdefault(measured[risk].source.pool, set()).update(query.counted for query in of_risk)
    return Counted(
        {pool: frozenset(names) for pool, names in opened.items()},
        ids={risk: frozenset(query.id for query in of_risk) for risk, of_risk in queries.items()},
    )


def queries_of_stages(
    job: Job, entries: Sequence[Mapping[str, Any]], rows: Rows | None, losses: pl.DataFrame
) -> dict[str, Queries]:
    """Split -> the queries of each stage, found again among the fresh rows of all; for the embedded task they are drawn again.

    entries: of `stages.json`. rows: pool -> rows. losses: the table that names each stage's queries. InputError where those that were
    sealed are not there.
    """
    sources = {risk: each.source for risk, each in measures(job.settings).items()}
    by_split: dict[str, Queries] = {}
    for entry in entries:
        stage = stages.of_entry(entry)
        names = set(losses.filter(pl.col("split") == stage.split)["query"].unique())
        named = fresh_queries.queries(Names(job.task, stage.seed), rows or _drawn(job, stage.number), sources)
        listed = {risk: tuple(query for query in of_risk if query.id in names) for risk, of_risk in named.items()}
        by_split[stage.split] = {risk: of_risk for risk, of_risk in listed.items() if of_risk}
        if {risk: ids(of_risk) for risk, of_risk in by_split[stage.split].items()} != dict(entry["queries"]):
            raise InputError(
                f"the queries of stage {stage.number} are not those that were sealed for it; give every file of fresh queries with --queries"
            )
    return by_split


def _drawn(job: Job, number: int) -> Rows:
    """Queries of the embedded task for a stage, as many as its first draw had, from the same known population.

    The seed follows from the plan's and the number of the stage, so that nobody chooses among draws. InputError for other tasks.
    """
    request = embedded_text.request_of(job.task.name) if job.task.questions is not None else None
    if request is None or job.task.questions is None:
        raise InputError("--draw is for the embedded task, whose population is known; give --queries FILE")
    seed = hashing.derive_seed("stage", job.task.questions, number)
    return embedded_text.task(questions=seed, request=request).queries
