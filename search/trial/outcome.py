"""The specification of a trial, and its outcome."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from froc import hashing
from froc.data.task import Query
from froc.errors import FrocError
from froc.loss_table import SCALE
from froc.measuring.measurement import Measurement, written
from froc.measuring.query_losses import Average
from froc.models.trainable import Weights
from froc.search.trial.sweep import SweepPoint


@dataclass(frozen=True)
class TrialSpec:
    """A configuration to train."""

    method: str
    params: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class MeasuredConfig:
    """A configuration measured on all search queries: training stopped at `step`, mixed with the base model by `mix`.

    means: risk -> mean search loss in [0, 1].
    tables: risk -> (n,) thousandths.
    averages: risk -> loss and accuracy, of it and of the base model, see `froc.risk.froc_score.Means`.
    """

    step: int
    mix: float
    means: dict[str, float]
    tables: dict[str, NDArray[np.int16]]
    averages: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    ended: its end first, then the results of the sweep; empty unless complete.
    queries: losses over budgets of the queries that each rung measured.
    kept: step -> weights that the sweep needs.
    adapter_index: adapter with the end's weights.
    resumed: step from which an interrupted trial continued; `seconds` are of this process only.
    """

    status: str
    reason: str | None
    steps: int
    seconds: float
    rungs: list[list[Any]] = field(default_factory=list)
    queries: list[list[float]] = field(default_factory=list)
    ended: tuple[MeasuredConfig, ...] = ()
    kept: Mapping[int, Weights] = field(default_factory=dict, repr=False, compare=False)
    adapter_index: int = 0
    resumed: int | None = None


Hopeless = Callable[[list[list[Any]], list[list[float]]], bool]
"""Called at a rung with [step, means] of each rung so far and, per rung, each query's loss over its budget; True stops the trial."""


def losses_of(
    config: str,
    split: str,
    by_risk: Mapping[str, Sequence[Query]],
    losses: Mapping[str, Any],
    measures: Mapping[str, Measurement],
) -> pl.DataFrame:
    """A loss table of one configuration. losses: risk -> (n,) thousandths of its queries."""
    parts = [
        pl.DataFrame(
            {
                "config": [config] * len(queries), "risk": [risk] * len(queries), "metric": [written(risk, measures[risk])] * len(queries),
                "split": [split] * len(queries), "unit": [query.unit for query in queries], "query": [query.id for query in queries],
                "loss": pl.Series(losses[risk], dtype=pl.Int16),
            }
        )
        for risk, queries in by_risk.items()
    ]  # fmt: skip
    return pl.concat(parts)


def mean(thousandths: NDArray[np.int16]) -> float:
    """Mean loss in [0, 1]."""
    return int(thousandths.sum(dtype=np.int64)) / (SCALE * len(thousandths))


def trial_seed(run: int, number: int) -> int:
    """Seed of a trial, from the run's seed."""
    return hashing.derive_seed("trial", run, number) % 2**31


def _ratios(point: SweepPoint, limits: Mapping[str, float]) -> list[float]:
    return [float(loss) / SCALE / limits[risk] for risk, losses in point.losses.items() for loss in losses]


def _beside(after: Average, before: Average) -> dict[str, float]:
    # every line repeats the base's numbers, so that its score can be computed from the line alone
    return vars(after) | {f"base_{name}": value for name, value in vars(before).items()}


def _reason(error: Exception) -> str:
    """Why a trial failed, without text that could hold a forgotten row: our own messages, else exception type and code position."""
    if isinstance(error, FrocError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
