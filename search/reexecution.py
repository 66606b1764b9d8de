"""Sealed configurations once more: trained again with their seeds, or a given model as it is, and measured again.

What is asked for comes from a report, so nothing of the run's folder is needed. Whole batches are measured as the run
measured them, since other batches could round otherwise; the caller looks at the rows it has drawn.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from froc.data.splits import ids
from froc.data.task import Query
from froc.errors import FrocError, InputError
from froc.loss_table import SCHEMA
from froc.measuring.measurement import written
from froc.models.base import Base
from froc.risk.control import BASE
from froc.search.external_model import EXTERNAL, Given
from froc.search.job import Job, bench_of
from froc.search.plan import PACKAGES
from froc.search.sealed import weights
from froc.search.sealed.calibration import ROUNDS, in_round
from froc.search.settings import measures
from froc.search.trial.bench import Bench
from froc.search.trial.outcome import Asked
from froc.search.trial.work import Again, Kept, Measure, MeasureBase

ROW = ["config", "split", "risk", "query"]
"""What names a row of a loss table."""
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
    """What measured again: versions, as a plan names them, and the kind of device."""
    versions = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "device": base.device.type, **versions}


def refuse_other(job: Job, plan: Mapping[str, Any]) -> None:
    """InputError where a job is not what a plan was about: base model, task, measurements, and the draw, made again."""
    if job.base.digest != plan["model"]["digest"]:
        raise InputError(
            f"the report is about another base model ({plan['model']['name']}, in its precision); give it with --base"
        )
    if job.task.digest != plan["task"]["digest"]:
        raise InputError(f"the report is about another task ({plan['task']['name']}); give its folder with --task")
    found = {risk: written(risk, one) for risk, one in measures(job.settings).items()}
    for risk, said in plan["metrics"].items():
        if found.get(risk) != said:
            raise InputError(f"{risk} was measured as {said}; say that with --metric {risk}=...")
    searched = {risk: ids(some) for risk, some in job.view.queries.items()}
    for risk in plan["metrics"]:
        if (
            job.sealed.digests[risk] != plan["split"]["queries"][risk]
            or searched[risk] != plan["split"]["searched"][risk]
        ):
            raise InputError(
                f"the plan's seed does not draw the planned {risk} queries from these rows; the draw is false"
            )


def refuse_other_base(job: Job, seal: Mapping[str, Any]) -> None:
    """InputError where a seal names another base model than its plan does; those of older versions name none."""
    if seal.get("base_weights_digest") not in (None, weights.of_base(job.base)):
        raise InputError(
            "the seal names other weights as the base model's than those that its plan is about; it is false"
        )


def remeasure(
    job: Job,
    seal: Mapping[str, Any],
    configs: Sequence[Target],
    wanted: pl.DataFrame,
    told: Progress,
    unlearned: Path | None = None,
    weighed: Callable[[str, Kept], None] = lambda *_: None,
) -> pl.DataFrame:
    """Losses of the wanted rows (`config`, `split`, `risk`, `query`) in froc's schema.

    unlearned: a model folder that is measured as the one configuration there is. A configuration that cannot be trained
    again has no rows. weighed: hears of every configuration's parameters.
    """
    bench = bench_of(job)
    queries = {"calibration": job.sealed.open(seal), "search": job.view.queries}
    tables = [pl.DataFrame(schema=SCHEMA)]
    for place, one in enumerate(configs):
        told(place, len(configs))
        rows = wanted.filter(pl.col("config") == one.config)
        try:
            kept = _weights(bench, one, unlearned)
        except FrocError:
            if unlearned is not None:
                raise
            continue
        weighed(one.config, kept)
        for split in rows["split"].unique(maintain_order=True):
            asked = rows.filter(pl.col("split") == split)
            if one.config == BASE:
                tables.append(MeasureBase(split, queries[split])(bench).join(asked, on=ROW, how="semi"))
                continue
            for places in _parts(queries[split], asked, job.settings.sequential and split == "calibration", job):
                table = Measure(split, one.config, kept, queries[split], places)(bench)
                tables.append(table.join(asked, on=ROW, how="semi"))
    told(len(configs), len(configs))
    return pl.concat(tables)


def _weights(bench: Bench, one: Target, unlearned: Path | None) -> Kept:
    if one.config == BASE:
        return {}
    if unlearned is not None:
        return Given(unlearned).weights(bench.base)
    if one.method == EXTERNAL:
        raise InputError(f"{one.config} came from another tool and cannot be trained again; give it with --unlearned")
    params = {name: value for name, value in one.params.items() if name not in ("stop", "mix")}
    asked = Asked(one.method, params, one.seed)
    again = Again(one.config, asked, one.params.get("stop"), one.params.get("mix", 1.0), None)
    return again(bench)[one.config]


def _parts(
    queries: Mapping[str, tuple[Query, ...]], asked: pl.DataFrame, sequential: bool, job: Job
) -> Iterator[Mapping[str, Sequence[int]]]:
    """Places that are measured together: all, or the rounds of a sequential claim in which there are rows that were asked for."""
    if not sequential:
        yield {risk: range(len(some)) for risk, some in queries.items()}
        return
    units = {risk: job.task.units[one.pool] for risk, one in measures(job.settings).items()}
    wanted = {risk: set(asked.filter(pl.col("risk") == risk)["query"]) for risk in queries}
    for number in range(ROUNDS):
        places = {risk: in_round(some, number, units[risk]) for risk, some in queries.items()}
        if any(queries[risk][i].id in wanted[risk] for risk, some in places.items() for i in some):
            yield places
