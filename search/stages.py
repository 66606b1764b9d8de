"""The stages of a search after its plan: trials, further risks, seal, calibration, chosen model. Each leaves files that the next one starts from."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from froc import timestamp
from froc.configuration_id import EXTERNAL_METHOD, ConfigurationId
from froc.data.task import RISKS
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.models.base import read_weights, save, write_weights
from froc.plan_identity import identity
from froc.risk.certificate import Candidate, Claim
from froc.search import positive_control, prior_run
from froc.search.executors import Executor
from froc.search.external_model import EXTERNAL_CONFIG
from froc.search.job import Job, Listener
from froc.search.optuna.shared_study import Shared
from froc.search.optuna.study import Study
from froc.search.plan import Plan
from froc.search.run_folder import Folder, TrialRecord, of_document, write_json, write_table
from froc.search.sealed import ranking, unopened
from froc.search.sealed import weights as sealed_weights
from froc.search.sealed.calibration import listed_search_losses, measure, measure_in_rounds
from froc.search.sealed.forecast import STOP_PROBABILITY, certification_probability
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.work import KeptWeights, Retrain
from froc.search.trial_loop import TrialLoop

LOG = logging.getLogger("froc")
SCREENING_FACTOR = 2
"""Times as many configurations as may be sealed are measured under further risks."""


def seal_searched(
    job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener, base: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The seal; None where no candidate is worth opening the calibration queries for."""
    settings, units = job.settings, plan.document["split"]["search"]
    count = plan.candidates * (SCREENING_FACTOR if settings.further else 1)
    complete, leaderboard, why = _trials(job, plan, folder, executor, listener, count)
    losses = pl.concat([pl.read_parquet(folder.trial_losses(record.config)) for record in complete])
    sums = ranking.sums(losses)
    candidates = leaderboard.candidates
    # attacks are too dear for candidates that are hopeless without them
    if settings.further and ranking.worth_opening([sums[c.config] for c in candidates], settings.steering, units):
        losses = pl.concat([losses, _screen(job, folder, executor, candidates, listener)])
        sums = ranking.sums(losses)
        candidates = ranking.Leaderboard(settings.limits, plan.candidates).with_trials(complete, sums).candidates
    write_table(folder.search_losses, losses)
    measured = {
        risk: alpha for risk, alpha in settings.limits.items() if all(risk in sums[c.config] for c in candidates)
    }
    if not ranking.worth_opening([sums[c.config] for c in candidates], measured, units):
        unopened.write_unopened(folder, candidates, sums, measured, base, len(complete))
        return None
    seal = _sealed(job, plan, folder, executor, candidates, len(complete))
    LOG.info("sealed %d candidates of %d complete trials (%s)", len(seal["candidates"]), len(complete), why)
    return seal


def _trials(
    job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener, candidates: int
) -> tuple[list[TrialRecord], ranking.Leaderboard, str]:
    """Complete trials in their order, ranked, and why there were no more. candidates: whose parameters are kept at most."""
    settings = job.settings
    with closing(_study(job, plan, folder)) as study:
        enough = _likely_enough(job, plan, folder)
        loop = TrialLoop(folder, study, executor, settings, candidates, listener.trial, enough)
        log, why = loop.run()
    complete = sorted((record for record in log if record.status == "complete"), key=lambda record: record.trial)
    if not complete:
        reasons = sorted({f"{record.status}: {record.reason}" for record in log if record.reason})
        raise InputError(
            f"none of {len(log)} trials finished ({'; '.join(reasons[:3])}); widen the space or mend the cause"
        )
    return complete, loop.leaderboard, why


def _study(job: Job, plan: Plan, folder: Folder) -> Study:
    settings = job.settings
    kinds: dict[str, Any] = {
        "sampler": settings.sampler, "pruner": settings.pruner, "seed": settings.seed, "objective": settings.objective,
        "weighing": settings.weighing, "first": prior_run.first_trials(settings.like), "swept": settings.sweep,
    }  # fmt: skip
    if settings.storage:
        return Shared(settings.storage, identity(plan.document), job.space, settings.steering, **kinds)
    return Study(folder.study, job.space, settings.steering, **kinds)


def _likely_enough(job: Job, plan: Plan, folder: Folder) -> Callable[[Sequence[Candidate]], bool]:
    """Whether any candidate is likely to be certified, judged by search losses; further risks are measured after the trials."""
    budget = {risk: alpha for risk, alpha in plan.claim.budget.items() if risk not in job.settings.further}
    relative = tuple(risk for risk in plan.claim.relative if risk in budget)
    steered = replace(plan.claim, budget=budget, relative=relative)

    def enough(candidates: Sequence[Candidate]) -> bool:
        trials = {str(ConfigurationId.parse(candidate.config).of_trial) for candidate in candidates}
        losses = pl.concat([pl.read_parquet(folder.trial_losses(config)) for config in sorted(trials)])
        absences = pl.read_parquet(folder.base_losses) if relative else None
        likely = certification_probability(losses, candidates, steered, job.sealed.units, absences)
        LOG.info(
            "of %d candidates, %s first, any is certified with a chance of %.2f",
            len(candidates),
            candidates[0].config,
            likely,
        )
        return likely >= STOP_PROBABILITY

    return enough


def seal_given(job: Job, plan: Plan, folder: Folder, executor: Executor, listener: Listener) -> dict[str, Any]:
    """One candidate, which no search chose: its losses on the search queries are for the reader alone."""
    assert job.external is not None
    record = TrialRecord(0, 1, EXTERNAL_CONFIG, EXTERNAL_METHOD, {}, 0, timestamp.stamp(), of_document(folder.plan))
    folder.write_log([record])
    write_weights(job.external.weights(job.base), folder.weights(EXTERNAL_CONFIG))
    candidate = Candidate(EXTERNAL_CONFIG, EXTERNAL_METHOD, {}, 1.0)
    queries = {risk: queries_of_risk for risk, queries_of_risk in job.view.queries.items() if risk in RISKS}
    table = measure(
        executor, queries, [candidate], {EXTERNAL_CONFIG: folder.weights(EXTERNAL_CONFIG)}, listener.screening, "search"
    )
    sums = ranking.sums(table)[EXTERNAL_CONFIG]
    means = {risk: total / (SCALE * count) for risk, (total, count) in sums.items()}
    folder.write_log([replace(record, status="complete", ended=timestamp.stamp(), search=means)])
    write_table(folder.search_losses, table)
    return _sealed(job, plan, folder, executor, [candidate], 1)


def _sealed(
    job: Job, plan: Plan, folder: Folder, executor: Executor, candidates: Sequence[Candidate], trials: int
) -> dict[str, Any]:
    kept = kept_weights(job, folder, executor, candidates)
    base = sealed_weights.of_base(job.base)
    seal = ranking.document(
        sealed_weights.bound(job.base, candidates, kept, job.external),
        plan=of_document(folder.plan),
        losses=of_document(folder.search_losses),
        trials=trials,
        queries=job.sealed.digests,
        order=job.sealed.order.rows() if plan.claim.sequential else None,
        base=base,
        files=sealed_weights.files_beside(job.base, job.external),
    )
    write_json(folder.seal, seal)
    return seal


def _screen(
    job: Job, folder: Folder, executor: Executor, likely: Sequence[Candidate], listener: Listener
) -> pl.DataFrame:
    """Search losses under the further risks of the configurations that may be sealed; attacks are too dear for every trial."""
    measured = [pl.read_parquet(folder.screened)] if folder.screened.is_file() else []
    known = {config for table in measured for config in table["config"].unique()}
    missing = [candidate for candidate in likely if candidate.config not in known]
    if missing:
        queries = {risk: job.view.queries[risk] for risk in job.settings.further}
        kept = kept_weights(job, folder, executor, missing)
        LOG.info("%d configurations are measured under %s", len(missing), ", ".join(queries))
        measured.append(measure(executor, queries, missing, kept, listener.screening, "search"))
        write_table(folder.screened, pl.concat(measured))
    return pl.concat(measured)


def calibrate(
    job: Job,
    folder: Folder,
    executor: Executor,
    candidates: Sequence[Candidate],
    claim: Claim,
    seal: Mapping[str, Any],
    listener: Listener,
) -> None:
    """Measure the candidates and the base model on the opened queries, unless that was done."""
    if folder.calibration_losses.is_file():
        return
    queries = job.sealed.open(seal)
    kept = kept_weights(job, folder, executor, candidates)
    if claim.sequential:
        table = measure_in_rounds(executor, queries, candidates, kept, claim, job.sealed.order, listener.calibrating)
    else:
        table = measure(executor, queries, candidates, kept, listener.calibrating)
    known = listed_search_losses(pl.read_parquet(folder.search_losses), candidates, claim)
    positive_control.measure_calibration(executor, queries, folder)
    write_table(folder.calibration_losses, pl.concat([table, known]))


def kept_weights(
    job: Job, folder: Folder, executor: Executor, candidates: Sequence[Candidate]
) -> dict[str, KeptWeights]:
    """config -> its parameters; those that were not kept are trained again with their seeds."""
    lost = missing = [candidate for candidate in candidates if not folder.weights(candidate.config).is_file()]
    if job.external is not None and missing:
        write_weights(job.external.weights(job.base), folder.weights(EXTERNAL_CONFIG))
        missing = []
    complete = {record.config: record for record in folder.log() if record.status == "complete"}
    limits = job.settings.steering if job.settings.relative else None
    works = [
        _again(
            complete[str(ConfigurationId.parse(candidate.config).of_trial)], candidate.config, executor, folder, limits
        )
        for candidate in missing
    ]
    for handed in executor.each(works):
        for config, weights in handed.items():
            write_weights(weights, folder.weights(config))
    paths: dict[str, Path] = {candidate.config: folder.weights(candidate.config) for candidate in candidates}
    sealed_weights.refuse_retrained(job.base, lost, paths, job.external)
    return {config: read_weights(path) if executor.remote else path for config, path in paths.items()}


def _again(
    record: TrialRecord, config: str, executor: Executor, folder: Folder, limits: Mapping[str, float] | None
) -> Retrain:
    configuration = next(o for o in record.configurations() if o.config == config)
    spec = TrialSpec(record.method, record.params, record.seed)
    path = None if executor.remote else folder.path
    return Retrain(config, spec, configuration.params.get("stop"), configuration.params.get("mix", 1.0), path, limits)


def save_chosen(
    job: Job, folder: Folder, executor: Executor, candidates: Sequence[Candidate], certificate: Mapping[str, Any]
) -> None:
    """Save the chosen model, with the weights that were sealed; nothing where none was certified."""
    chosen = next((c for c in candidates if c.config == certificate["chosen"]), None)
    part = folder.path / ".model.part"
    for stale in (part, folder.model):
        shutil.rmtree(stale, ignore_errors=True)
    if chosen is None:
        return
    kept_weights(job, folder, executor, [chosen])
    job.base.trainable.activate([0])
    job.base.trainable.load(read_weights(folder.weights(chosen.config)))
    seal = folder.read(folder.seal) or {}
    sealed_weights.refuse_base(job.base, seal.get("base_weights_digest"), job.external)
    if job.external is None or job.external.adapted:
        save(job.base, part)
    else:
        job.external.copy(part)
    sealed_weights.refuse_written(part, chosen, seal.get("model_files"))
    part.rename(folder.model)
