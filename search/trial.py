"""Configuration -> unlearned model -> search losses. Everything the base model alone decides is computed once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch

from froc import digest
from froc.data import Query, SearchView
from froc.errors import FrocError
from froc.losses import SCALE
from froc.measure import Average, Probe, averaged, losses, measured, observe, probes
from froc.methods import Method
from froc.metrics import Metric
from froc.models import Base
from froc.plugins import make
from froc.train import Budgeted, DivergedError, Pools, Reference, unlearn

RUNGS = (1 / 3, 2 / 3)
CHEAP = 48
"""Queries per risk that a rung measures."""


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. `means`: risk -> mean search loss; `tables`: risk -> (n,) thousandths.

    `averages`: risk -> loss and accuracy of the unlearned and the base model, see `froc.published.Means`.
    """

    status: str
    reason: str | None
    steps: int
    seconds: float
    rungs: list[list[Any]] = field(default_factory=list)
    means: dict[str, float] | None = None
    tables: dict[str, np.ndarray[Any, np.dtype[np.int16]]] | None = None
    averages: dict[str, dict[str, float]] | None = None


class Bench:
    """A base model with everything that trials on one task share."""

    def __init__(self, base: Base, view: SearchView, metrics: Mapping[str, Metric], *, batch: int, seed: int) -> None:
        self.base, self.view, self.metrics, self.batch = base, view, metrics, batch
        self.reference = Reference(base, Pools.of(view, base, seed))
        self.probes = probes(base, view.queries, metrics, view.template)
        self.start = {p.risk: p.start or averaged(observe(base.model, p.rows), p.risk) for p in self.probes}

    def run(
        self, method: str, params: Mapping[str, Any], seed: int, hopeless: Callable[[list[list[Any]]], bool]
    ) -> Outcome:
        """Train and measure one configuration; the trained parameters stay in `base.model`.

        A trial that fails in any way is an outcome with a reason, never an exception: the search goes on.
        """
        begin = time.monotonic()
        rungs: list[list[Any]] = []
        steps = 0
        try:
            made = make(Method, method, params)
            steps, stopped = self._train(made, seed, rungs, hopeless)
            if stopped:
                return Outcome("pruned", "behind the other trials at a rung", steps, _since(begin), rungs)
            found = {probe.risk: measured(self.base, probe) for probe in self.probes}
        except DivergedError as error:
            return Outcome("diverged", str(error), steps, _since(begin), rungs)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return Outcome("out-of-memory", "not enough memory; try a smaller --batch", steps, _since(begin), rungs)
        except Exception as error:  # whatever a method does wrong must not end the search
            return Outcome("failed", _reason(error), steps, _since(begin), rungs)
        tables = {risk: one.losses for risk, one in found.items()}
        means = {risk: mean(some) for risk, some in tables.items()}
        averages = {risk: _beside(one.average, self.start[risk]) for risk, one in found.items()}
        return Outcome("complete", None, steps, _since(begin), rungs, means, tables, averages)

    def retrain(self, method: str, params: Mapping[str, Any], seed: int) -> None:
        """Train a configuration again without looking at it: same seed, same parameters."""
        unlearn(self.base, make(Method, method, params), self.reference, batch=self.batch, seed=seed)

    def table(
        self, config: str, split: str, some: Mapping[str, Sequence[Query]], found: Mapping[str, Any]
    ) -> pl.DataFrame:
        """A loss table of one configuration."""
        parts = [
            pl.DataFrame(
                {
                    "config": [config] * len(queries),
                    "risk": [risk] * len(queries),
                    "metric": [metric_name(self.metrics[risk])] * len(queries),
                    "split": [split] * len(queries),
                    "unit": [query.unit for query in queries],
                    "query": [query.id for query in queries],
                    "loss": pl.Series(found[risk], dtype=pl.Int16),
                }
            )
            for risk, queries in some.items()
        ]
        return pl.concat(parts)

    def _train(
        self, made: Method, seed: int, rungs: list[list[Any]], hopeless: Callable[[list[list[Any]]], bool]
    ) -> tuple[int, bool]:
        steps = Budgeted.of(made, len(self.view.forget), self.batch).steps
        stopped = False

        def rung(step: int) -> Callable[[], bool]:
            def look() -> bool:
                nonlocal stopped
                rungs.append(
                    [
                        step,
                        {probe.risk: mean(losses(self.base, probe, _some(probe))) for probe in self.probes},
                    ]
                )
                stopped = hopeless(rungs)
                return stopped

            return look

        places = {max(1, round(share * steps)) for share in RUNGS}
        looks = {step: rung(step) for step in places if step < steps}
        return unlearn(self.base, made, self.reference, batch=self.batch, seed=seed, rungs=looks), stopped


def mean(thousandths: np.ndarray[Any, np.dtype[np.int16]]) -> float:
    """Mean loss in [0, 1]."""
    return int(thousandths.sum(dtype=np.int64)) / (SCALE * len(thousandths))


def metric_name(metric: Metric) -> str:
    """The plug-in's name, which is its file's."""
    return type(metric).__module__.rpartition(".")[2]


def trial_seed(run: int, number: int) -> int:
    """Seed of a trial, from the run's seed."""
    return digest.seed("trial", run, number) % 2**31


def _some(probe: Probe) -> range:
    # queries stand in keyed-hash order, so the first ones are a random sample
    return range(min(CHEAP, len(probe.rows)))


def _beside(after: Average, before: Average) -> dict[str, float]:
    # the base's own numbers stand in every line, so that a line's score needs nothing but the line
    return vars(after) | {f"base_{name}": value for name, value in vars(before).items()}


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)


def _reason(error: Exception) -> str:
    """What went wrong, without text that could hold a forgotten row: our own messages, else type and place."""
    if isinstance(error, FrocError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
