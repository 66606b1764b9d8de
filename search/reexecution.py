"""Sealed configurations measured again: trained with their seeds, or a given model unchanged.

The request comes from a report, so nothing of the run's folder is needed. Whole batches are measured as in the run,
since other batches could round differently; the caller uses the drawn rows only.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from froc.configuration_id import EXTERNAL_METHOD
from froc.data.splits import ids
from froc.data.task import Query
from froc.errors import FrocError, InputError
from froc.loss_table import SCHEMA, WEIGHTED
from froc.measuring.measurement import written
from froc.models import vocabulary
from froc.models.base import Base
from froc.models.determinism import deterministic
from froc.risk.positive_control import BASE
from froc.search.external_model import ExternalModel
from froc.search.job import Job, runner_of
from froc.search.plan import PACKAGES
from froc.search.sealed import weights
from froc.search.sealed.calibration import ROUNDS, round_places
from froc.search.settings import measures
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import KeptWeights, Measure, MeasureBase, Retrain

ROW = ["config", "split", "risk", "query"]
"""Columns that identify a row of a loss table."""
Further = Mapping[str, Mapping[str, tuple[Query, ...]]]
"""Split of a further stage -> risk -> its queries (`froc.search.extend`)."""
NO_STAGES: Further = MappingProxyType({})
Progress = Callable[[int, int], None]
"""Called with (configurations done, of)."""


@dataclass(frozen=True)
class Target:
    """A configuration of a seal with the seed of its trial. params: hyperparameters, with `stop` and `mix` where it has them."""

    config: str
    method: str
    params: Mapping[str, Any]
    seed: int


def environment(base: Base) -> dict[str, str]:
    """The measuring environment: versions and precision, as in a plan, and the kind of device."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(), "device": base.device.type, **versions, **base.environment
    }  # fmt: skip


def refuse_other_job(job: Job, plan: Mapping[str, Any], subject: str = "report") -> None:
    """InputError where a job differs from the plan's: base model, task, measurements, or the repeated draw."""
    if job.base.digest != plan["model"]["digest"]:
        raise InputError(
            f"the {subject} is about another base model ({plan['model']['name']}, in its precision); give it with --base"
        )
    if job.task.digest != plan["task"]["digest"]:
        raise InputError(f"the {subject} is about another task ({plan['task']['name']}); give its folder with --task")
    metrics = {risk: written(risk, measurement) for risk, measurement in measures(job.settings).items()}
    for risk, planned in plan["metrics"].items():
        if metrics.get(risk) != planned:
            raise InputError(f"{risk} was measured as {planned}; say that with --metric {risk}=...")
    searched = {risk: ids(queries) for risk, queries in job.view.queries.items()}
    for risk in plan["metrics"]:
        if (
            job.sealed.digests[risk] != plan["split"]["queries"][risk]
            or searched[risk] != plan["split"]["searched"][risk]
        ):
            raise InputError(
                f"the plan's seed does not draw the planned {risk} queries from these rows; the draw is false"
            )
    # older plans do not judge the tokenizer
    if "plugins" in plan and plan.get("tokenizer") != vocabulary.judge(job.task, job.base.tokenizer):
        raise InputError("the plan says something else of the tokenizer than these rows show; the plan is false")
    for name, planned, counted in _counts(job, plan):
        if planned != counted:
            raise InputError(
                f"the plan's {name} is {planned}, and these rows give {counted}; bounds depend on it, and the plan is false"
            )


def _counts(job: Job, plan: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, planned, counted) of all numbers of queries and units on which bounds depend."""
    measured = measures(job.settings)
    split, units = plan["split"], plan["task"]["units"]
    for risk in plan["metrics"]:
        yield f"sampling unit of {risk}", units.get(risk), job.task.units[measured[risk].pool]
        yield (
            f"number of {risk} units in the search",
            split["search"].get(risk),
            len({q.unit for q in job.view.queries[risk]}),
        )
        yield f"number of sealed {risk} units", split["calibration"].get(risk), job.sealed.units[risk]
        if plan["population"].get(risk, "queries") != "queries":
            yield f"number of listed {risk} units", plan["listed"].get(risk), job.sealed.listed[risk]
        if units.get(risk) == WEIGHTED:
            yield (
                f"largest number of {risk} queries of a unit",
                plan.get("largest", {}).get(risk),
                job.sealed.largest[risk],
            )


def refuse_other_units(job: Job, losses: pl.DataFrame, further: Further = NO_STAGES) -> None:
    """InputError where a loss table (froc's schema) has another unit for a query than the task: bounds count units.

    All rows are compared, since nothing needs to be measured for it. further: split -> queries of the further stages.
    """
    searched = [
        (risk, query.unit, query.id)
        for by_risk in (job.view.queries, *further.values())
        for risk, queries in by_risk.items()
        for query in queries
    ]
    known = pl.concat([job.sealed.order, pl.DataFrame(searched, schema=["risk", "unit", "query"], orient="row")])
    differing = losses.join(known.cast(pl.String), on=["risk", "unit", "query"], how="anti")
    if len(differing):
        raise InputError(
            f"{len(differing)} of {len(losses)} losses name another unit than their query has in these rows; bounds count units, "
            "and the report is false"
        )


def refuse_other_base(job: Job, seal: Mapping[str, Any]) -> None:
    """InputError where a seal names another base model than its plan; older seals name none."""
    if seal.get("base_weights_digest") not in (None, weights.of_base(job.base)):
        raise InputError(
            "the seal names other weights as the base model's than those that its plan is about; it is false"
        )


def remeasure(
    job: Job,
    seal: Mapping[str, Any],
    configs: Sequence[Target],
    wanted: pl.DataFrame,
    progress: Progress,
    unlearned: Path | None = None,
    weighed: Callable[[str, KeptWeights], None] = lambda *_: None,
    failed: Callable[[str, FrocError], None] = lambda *_: None,
    further: Further = NO_STAGES,
) -> pl.DataFrame:
    """Losses of the wanted rows (`config`, `split`, `risk`, `query`) in froc's schema.

    configs: the configurations; one that cannot be trained again has no rows.
    unlearned: a model folder that is measured as the only configuration.
    weighed: called with every configuration's name and parameters.
    failed: called with the name of a configuration that cannot be trained again, and why.
    further: split -> queries of the further stages.
    """
    with deterministic(job.base.deterministic):
        return _remeasured(job, seal, configs, wanted, progress, unlearned, weighed, failed, further)


def _remeasured(
    job: Job,
    seal: Mapping[str, Any],
    configs: Sequence[Target],
    wanted: pl.DataFrame,
    progress: Progress,
    unlearned: Path | None,
    weighed: Callable[[str, KeptWeights], None],
    failed: Callable[[str, FrocError], None],
    further: Further,
) -> pl.DataFrame:
    runner = runner_of(job)
    queries = {"calibration": job.sealed.open(seal), "search": job.view.queries, **further}
    tables = [pl.DataFrame(schema=SCHEMA)]
    for place, target in enumerate(configs):
        progress(place, len(configs))
        rows = wanted.filter(pl.col("config") == target.config)
        try:
            kept = _weights(runner, target, unlearned)
        except FrocError as error:
            if unlearned is not None:
                raise
            failed(target.config, error)
            continue
        weighed(target.config, kept)
        for split in rows["split"].unique(maintain_order=True):
            split_rows = rows.filter(pl.col("split") == split)
            if target.config == BASE:
                tables.append(MeasureBase(split, queries[split])(runner).join(split_rows, on=ROW, how="semi"))
                continue
            for places in _parts(queries[split], split_rows, job.settings.sequential and split == "calibration", job):
                table = Measure(split, target.config, kept, queries[split], places)(runner)
                tables.append(table.join(split_rows, on=ROW, how="semi"))
    progress(len(configs), len(configs))
    return pl.concat(tables)


def _weights(runner: TrialRunner, target: Target, unlearned: Path | None) -> KeptWeights:
    if target.config == BASE:
        return {}
    if unlearned is not None:
        return ExternalModel(unlearned).weights(runner.base)
    if target.method == EXTERNAL_METHOD:
        raise InputError(
            f"{target.config} came from another tool and cannot be trained again; give it with --unlearned"
        )
    params = {name: value for name, value in target.params.items() if name not in ("stop", "mix")}
    spec = TrialSpec(target.method, params, target.seed)
    retrain = Retrain(target.config, spec, target.params.get("stop"), target.params.get("mix", 1.0), None)
    return retrain(runner)[target.config]


def _parts(
    queries: Mapping[str, tuple[Query, ...]], rows: pl.DataFrame, sequential: bool, job: Job
) -> Iterator[Mapping[str, Sequence[int]]]:
    """Indices measured together: all, or the rounds of a sequential claim that contain wanted rows."""
    if not sequential:
        yield {risk: range(len(of_risk)) for risk, of_risk in queries.items()}
        return
    units = {risk: job.task.units[measurement.pool] for risk, measurement in measures(job.settings).items()}
    wanted = {risk: set(rows.filter(pl.col("risk") == risk)["query"]) for risk in queries}
    for number in range(ROUNDS):
        places = {risk: round_places(of_risk, number, units[risk]) for risk, of_risk in queries.items()}
        if any(queries[risk][i].id in wanted[risk] for risk, of_risk in places.items() for i in of_risk):
            yield places
