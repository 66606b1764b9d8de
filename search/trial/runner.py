"""Configuration -> unlearned model -> search losses. What depends on the base model only is computed once."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from froc import hashing
from froc.data.splits import SearchView, ids
from froc.data.task import RISKS, Query
from froc.measuring.measurement import Measurement
from froc.measuring.metric import Observation
from froc.measuring.query_losses import Probe, averaged, evaluate, observe_probe, probes
from froc.models.base import Base
from froc.models.compute import Engine
from froc.models.memory import leave_group, out_of_memory
from froc.models.memory_needs import place_base_copy
from froc.models.random_state import rng_state, set_rng_state
from froc.models.trainable import Weights
from froc.plugins import make
from froc.search.progress import TRAINING
from froc.search.trial.outcome import (
    Hopeless,
    MeasuredConfig,
    Outcome,
    TrialSpec,
    _beside,
    _ratios,
    _reason,
    losses_of,
    mean,
)
from froc.search.trial.sweep import NO_SWEEP, Effort, MeasuredPoint, Sweep, first_of
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.checkpoint import SavedState, Saver
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.run import DivergedError, Run

RUNGS = (1 / 3, 2 / 3)
FEEDBACK_QUERIES = 128
"""Largest number of search queries per risk whose losses a method receives during training; the first in keyed-hash order."""


class TrialRunner:
    """A base model with everything that trials on one task share.

    measures: risk -> how it is measured; forgetting and utility in every trial, the others on candidates only.
    batch: forget rows per step.
    seed: of the run.
    limits: risk -> budget that steers the sweep.
    swept: whether stops and mixes are tried.
    progress: called with (activity, done, of) after each step; (message, 0, 0) is said once.
    """

    def __init__(
        self, base: Base, view: SearchView, measures: Mapping[str, Measurement], *, batch: int, seed: int,
        limits: Mapping[str, float] | None = None, swept: bool = True, engine: Engine | None = None,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.base, self.view, self.measures, self.batch, self.progress = base, view, measures, batch, progress
        self.limits, self.swept, self.engine = limits or dict.fromkeys(measures, 0.1), swept, engine or Engine()
        place_base_copy(base, self.engine.optimizer)
        self.reference = BaseStatistics(base, TrainingRows.of(view, base, seed))
        steering = {risk: queries for risk, queries in view.queries.items() if risk in RISKS}
        self.probes = probes(base, steering, measures, view)
        self._opened: tuple[str, list[Probe]] | None = None
        self._fitting_rows: dict[tuple[str, ...], int | None] = {}
        self._fed_back: tuple[int, int, dict[str, Observation]] | None = None
        self.start = {p.risk: p.start or averaged(observe_probe(base, p), p.risk) for p in self.probes}

    def steer(self, limits: Mapping[str, float] | None) -> None:
        """Steer by these limits from now on; None keeps the current ones."""
        self.limits = self.limits if limits is None else dict(limits)

    def run(
        self, specs: Sequence[TrialSpec], hopeless: Sequence[Hopeless], limit: float | None = None, saver: Saver | None = None
    ) -> list[Outcome]:  # fmt: skip
        """Train and measure configurations, several in the same passes; their ends stay in `base.model`, one adapter each.

        limit: seconds of training per configuration after which they are given up.
        saver: where they continue from and save their state.

        A failing trial is an outcome with a reason, never an exception, so that the search continues.
        """
        begin = time.monotonic()
        methods = tuple(spec.method for spec in specs)
        # what did not fit another method may fit this one
        self.engine.rows = self._fitting_rows.get(methods)
        attempts, before = self._begun(specs, hopeless, saver)
        ready = [attempt.run for attempt in attempts if attempt.run is not None]

        activity = f"{TRAINING}{', '.join(dict.fromkeys(methods))}"

        def each() -> None:
            self.progress(activity, min(run.done for run in ready), ready[0].steps)
            if saver is not None and saver.due and all(run.can_checkpoint for run in ready):
                self._save(saver, attempts, before + time.monotonic() - begin)

        alone = False
        try:
            train_pack(self.base, ready, self.engine, limit and begin + limit * len(specs) - before, each)
        except TimeoutError:
            for attempt in attempts:
                attempt.overdue(limit)
        except Exception as error:  # a faulty method must not end the search
            alone = len(ready) > 1
            for attempt in attempts:
                attempt.failed(error)
        if alone:
            # it is unknown which run failed, so each is tried alone, without what the failed pass held
            del attempts, ready, each
            return [
                self.run([spec], [watch], limit, saver and saver.for_config(k))[0]
                for k, (spec, watch) in enumerate(zip(specs, hopeless, strict=True))
            ]
        self._fitting_rows[methods] = self.engine.rows
        return [attempt.outcome((time.monotonic() - begin) / len(specs)) for attempt in attempts]

    def _begun(
        self, specs: Sequence[TrialSpec], hopeless: Sequence[Hopeless], saver: Saver | None
    ) -> tuple[list["_Attempt"], float]:
        """The attempts, new or from an earlier process's save, and the seconds spent before."""

        def anew() -> list[_Attempt]:
            return [_Attempt(self, spec, k, watch) for k, (spec, watch) in enumerate(zip(specs, hopeless, strict=True))]

        attempts = anew()
        state = None if saver is None else saver.read(self.base.device)
        if saver is None or state is None:
            return attempts, 0.0
        try:
            self._take_up(attempts, state)
        except Exception as error:  # a trial can always begin anew
            saver.notes.append(f"its saved state does not fit ({type(error).__name__}): it began anew")
            saver.drop()
            return anew(), 0.0
        return attempts, float(state.metadata["seconds"])

    def _save(self, saver: Saver, attempts: Sequence["_Attempt"], seconds: float) -> None:
        runs = [attempt.run for attempt in attempts if attempt.run is not None]
        shown = {
            "steps": [attempt.steps for attempt in attempts], "seconds": seconds, "attempts": [attempt.shown for attempt in attempts]
        }  # fmt: skip
        device = self.base.device
        tree = {"runs": [run.checkpoint() for run in runs], "rows": self.engine.rows, "draws": rng_state(device)}
        kept = {f"{k}-{step}": weights for k, attempt in enumerate(attempts) for step, weights in attempt.kept.items()}
        saver.write(shown, tree, kept, device)

    def _take_up(self, attempts: Sequence["_Attempt"], state: SavedState) -> None:
        kept: list[dict[int, Weights]] = [{} for _ in attempts]
        for name, weights in state.fixed_weights.items():
            place, step = map(int, name.split("-"))
            kept[place][step] = weights
        for attempt, stops in zip(attempts, kept, strict=True):
            attempt.look_again(stops)
        ready = [attempt.run for attempt in attempts if attempt.run is not None]
        for run, saved in zip(ready, state.state["runs"], strict=True):
            run.restore(saved)
        rows = state.state["rows"]
        if rows is not None:
            self.engine.rows = min(rows, self.engine.rows or rows)
        set_rng_state(state.state["draws"], self.base.device)
        # last, since a pruner cannot forget its inputs
        for attempt, shown in zip(attempts, state.metadata["attempts"], strict=True):
            attempt.go_on(shown)

    def retrain(self, spec: TrialSpec, stop: int | None = None, mix: float = 1.0) -> None:
        """Train a configuration again without measuring it: same seed, same parameters."""
        rungs = {} if stop is None else {stop: lambda: True}
        self.engine.rows = self._fitting_rows.get((spec.method,))
        run = self.prepared(spec, rungs)
        train_pack(self.base, [run], self.engine)
        if run.error:
            raise DivergedError(f"{spec.method} came to its end before and does not now: {run.error}")
        if mix != 1.0:
            self.base.trainable.load(self.base.trainable.parameters(), mix)

    def prepared(self, spec: TrialSpec, rungs: Mapping[int, Callable[[], bool]], adapter_index: int = 0) -> Run:
        """A training run before its first step. Methods with feedback receive search losses during training, whatever `rungs` does."""
        made = make(Method, spec.method, spec.params)
        run = Run(
            made, self.reference, batch=self.batch, seed=spec.seed, adapter_index=adapter_index, engine=self.engine
        )
        places = {
            max(1, round(run.steps * (k + 1) / (made.n_feedback_evals + 1))) for k in range(made.n_feedback_evals)
        }
        run.add_callbacks({step: partial(self._tell, run) for step in places if step < run.steps})
        run.add_callbacks(rungs)
        return run

    def _tell(self, run: Run) -> bool:
        """Report the losses of each risk's first search queries to the method."""
        losses, seen = {}, {}
        for probe in self.probes:
            # a sweep at this step reads the same first queries, observed in the same pass shapes
            sweep, queries = first_of(probe), range(min(FEEDBACK_QUERIES, len(probe.rows)))
            observation = seen[probe.risk] = observe_probe(self.base, probe, sweep, run.changed_names)
            if rest := queries[len(sweep) :]:
                observation = observation.and_then(observe_probe(self.base, probe, rest, run.changed_names))
            losses[probe.risk] = evaluate(probe, observation, queries).losses
        self._fed_back = run.adapter_index, run.done, seen
        run.report_search_losses(losses, self.limits)
        return False

    def forget_feedback(self) -> None:
        """Before another trial, whose steps have the same numbers."""
        self._fed_back = None

    def fed_back(self, adapter_index: int, step: int) -> Mapping[str, Observation]:
        """risk -> observation of a sweep's first queries, where a method's feedback at this step has just made it; else empty."""
        known = self._fed_back
        return known[2] if known is not None and known[:2] == (adapter_index, step) else {}

    def put(self, outcome: Outcome, step: int, mix: float) -> None:
        """Restore a configuration of an outcome, before the next trial starts."""
        scope = self.base.trainable
        weights = (
            outcome.kept[step]
            if step in outcome.kept
            else scope.copy(scope.parameters(outcome.adapter_index), outcome.adapter_index)
        )
        scope.activate([0])
        scope.load(weights, mix)

    def opened(self, queries: Mapping[str, tuple[Query, ...]]) -> list[Probe]:
        """Queries of sealed or possible candidates, encoded, and measured on the base model once."""
        key = hashing.sha256_json({risk: ids(of_risk) for risk, of_risk in queries.items()})
        if self._opened is None or self._opened[0] != key:
            self._opened = key, probes(self.base, queries, self.measures, self.view)
        return self._opened[1]

    def table(
        self, config: str, split: str, by_risk: Mapping[str, Sequence[Query]], losses: Mapping[str, Any]
    ) -> pl.DataFrame:
        """A loss table of one configuration."""
        return losses_of(config, split, by_risk, losses, self.measures)


class _Attempt:
    """One configuration in training, with its rungs and sweep."""

    def __init__(self, runner: TrialRunner, spec: TrialSpec, adapter_index: int, hopeless: Hopeless) -> None:
        self._runner, self._adapter_index, self._hopeless = runner, adapter_index, hopeless
        self._rungs: list[list[Any]] = []
        self._queries: list[list[float]] = []
        self._bad: tuple[str, str] | None = None
        self._resumed: int | None = None
        self.run: Run | None = None
        try:
            run = runner.prepared(spec, {}, adapter_index)
            effort = Effort.of(runner.probes, run.rows) if runner.swept and run.steps else NO_SWEEP
            runner.forget_feedback()
            self._sweep = Sweep(
                runner.base,
                runner.probes,
                runner.limits,
                effort,
                adapter_index,
                partial(runner.fed_back, adapter_index),
                lambda: run.changed_names,
            )
            places = {max(1, round(share * run.steps)) for share in RUNGS}
            # before the edit, the model says nothing about the result
            run.add_callbacks(
                {step: self._rung(step) for step in places if step < run.steps and run.method.can_stop_early}
            )
            self.run = run
        except Exception as error:  # a fault before the first step is the trial's outcome, too
            self.failed(error)

    @property
    def steps(self) -> int:
        """Number of steps done."""
        return self.run.done if self.run else 0

    @property
    def kept(self) -> Mapping[int, Weights]:
        """Weights at the measured stops."""
        return self._sweep.kept if self.run else {}

    @property
    def shown(self) -> dict[str, Any]:
        """What its rungs measured so far."""
        return {"rungs": self._rungs, "queries": self._queries, "error": self.run.error if self.run else ""}

    def look_again(self, kept: Mapping[int, Weights]) -> None:
        """Measure again the stops that an earlier process measured: the same weights give the same losses."""
        if self.run is not None:
            self._sweep.again(kept)

    def go_on(self, shown: Mapping[str, Any]) -> None:
        """Take over an earlier process's rungs and show them to the pruner, which has not seen any yet."""
        if self.run is None:
            return
        self._rungs, self._queries, self.run.error = shown["rungs"], shown["queries"], shown["error"]
        self._resumed = self.run.done
        for place in range(1, len(self._rungs) + 1):
            self._hopeless(self._rungs[:place], self._queries[:place])

    def failed(self, error: Exception) -> None:
        """Record why there is no result."""
        self._bad = "failed", _reason(error)
        if out_of_memory(error):
            leave_group()
            self._bad = "out-of-memory", "not enough memory; try a smaller --batch, or --train lora:rank=8"

    def overdue(self, limit: float | None) -> None:
        """Record that it took too long."""
        self._bad = self._bad or ("timed-out", f"training took longer than {limit:g} s")

    def outcome(self, seconds: float) -> Outcome:
        """Measure the trained model; `seconds` include the measurement."""
        begin = time.monotonic()
        steps = self.steps
        ended: tuple[MeasuredConfig, ...] = ()
        if self.run is not None and self._bad is None:
            if self.run.error:
                self._bad = "diverged", self.run.error
            elif self.run.stopped:
                self._bad = "pruned", "behind the other trials at a rung"
            else:
                try:
                    ended = tuple(self._ended(point) for point in self._sweep.end(steps))
                except Exception as error:  # measuring a broken model may raise anything
                    self.failed(error)
        status, reason = self._bad or ("complete", None)
        spent = round(seconds + time.monotonic() - begin, 3)
        kept = self._sweep.kept if ended else {}
        return Outcome(
            status, reason, steps, spent, self._rungs, self._queries, ended, kept, self._adapter_index, self._resumed
        )  # fmt: skip

    def _rung(self, step: int) -> Callable[[], bool]:
        def look() -> bool:
            point = self._sweep.stop(step)
            self._rungs.append([step, {risk: mean(losses) for risk, losses in point.losses.items()}])
            self._queries.append(_ratios(point, self._runner.limits))
            return self._hopeless(self._rungs, self._queries)

        return look

    def _ended(self, point: MeasuredPoint) -> MeasuredConfig:
        tables = {risk: measured.losses for risk, measured in point.measured.items()}
        means = {risk: mean(losses) for risk, losses in tables.items()}
        start = self._runner.start
        averages = {risk: _beside(measured.average, start[risk]) for risk, measured in point.measured.items()}
        return MeasuredConfig(point.step, point.mix, means, tables, averages)
