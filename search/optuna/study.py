"""Proposal of the next configuration, with Optuna.

The sampler is created anew for every trial from (seed, trial number), and Optuna's history comes from the run's own
log: a killed run continues exactly as if it had not been killed, and `study.db` may be lost or damaged.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from froc import hashing
from froc.configuration_id import ConfigurationId
from froc.hyperparameters import Choice, Space
from froc.risk.froc_score import Weighing, against_base
from froc.search.optuna.pruning import PruningHistory, TrialPruner, quiet_optuna
from froc.search.optuna.space import Spaces, first_configs, pick, suggest
from froc.search.run_folder import FINISHED, TrialRecord
from froc.search.sealed.ranking import excess


class Grid(optuna.samplers.BruteForceSampler):
    """Every combination once; trials are counted beforehand, so there is no Optuna loop to stop."""

    def after_trial(self, *_: Any) -> None:
        """Nothing: the inherited method stops a loop that froc does not run."""


JOINT_SAMPLERS = ("random", "grid")
"""Samplers that choose method and hyperparameters jointly; others search one method at a time."""
RANDOM_FRACTION = 0.25
"""Share of trials drawn at random in any case, so that an overconfident model keeps exploring."""
FIRST_TRIALS = 8
"""Trials of a method before a sampler models it (`froc.search.optuna.space.first_configs`)."""
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=FIRST_TRIALS),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=FIRST_TRIALS),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=FIRST_TRIALS),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: Grid(seed=seed),
}


@dataclass(frozen=True)
class Aim:
    """What Optuna minimizes. names: of the values. values: of a complete trial, from its log entry only."""

    names: tuple[str, ...]
    values: Callable[[TrialRecord], list[float]]


def _margin(budget: Mapping[str, float], weighing: Weighing) -> Aim:
    return Aim(("worst_risk_over_budget",), lambda record: [1.0 + excess(record.search or {}, budget)])


def _pareto(budget: Mapping[str, float], weighing: Weighing) -> Aim:
    return Aim(tuple(budget), lambda record: [(record.search or {})[risk] for risk in budget])


def _froc(budget: Mapping[str, float], weighing: Weighing) -> Aim:
    return Aim(("froc_score",), lambda record: [float(against_base([record.averages or {}], weighing).e_r[0])])


OBJECTIVES: dict[str, Callable[[Mapping[str, float], Weighing], Aim]] = {
    "margin": _margin,
    "pareto": _pareto,
    "froc": _froc,
}
"""Objectives steer the sampler; constraints, pruning, ranking and certificate are the same under all of them."""


class Study:
    """Proposes configurations and learns from their results. path: of `study.db`; None keeps the study in memory.

    first: (method, params) of the first trials, for whatever reason they are tried first. swept: whether trials are looked at on
    their way and mixed with the base model.
    """

    def __init__(
        self, path: Path | None, space: Spaces, budget: Mapping[str, float], *, sampler: str, pruner: str, seed: int,
        objective: str = "margin", weighing: Weighing | None = None, first: Sequence[tuple[str, Mapping[str, Any]]] = (),
        swept: bool = False,
    ) -> None:  # fmt: skip
        self._first, self._swept = tuple(first), swept
        self._space, self._budget, self._seed = space, dict(budget), seed
        self._sampler = pick("sampler", SAMPLERS, sampler)
        self._rungs = PruningHistory(pruner, space, budget)
        self._aim: Aim = pick("objective", OBJECTIVES, objective)(dict(budget), weighing or Weighing())
        self._path = path
        # samplers' warnings (such as a slower solver) are of no use to the user
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study: optuna.Study | None = None
        self._draws_methods = sampler in JOINT_SAMPLERS
        self._methods = {m: optuna.create_study(directions=["minimize"] * len(self._aim.names)) for m in space}
        self._best: dict[str, float] = {}
        self._method_trials: dict[int, optuna.Trial] = {}
        self._trials: dict[int, optuna.Trial] = {}

    @property
    def by_query(self) -> bool:
        """Whether the pruner needs the losses of single queries."""
        return self._rungs.by_query

    def pruner(self, method: str) -> TrialPruner:
        """The pruner of a trial that is about to start: it knows the trials that `tell` has received so far."""
        return self._rungs.pruner(method)

    def resume(self, log: Sequence[TrialRecord], queries: Callable[[str], list[list[float]]] = lambda _: []) -> None:
        """Rebuild the study from the log. queries: config -> losses that its rungs measured, where needed."""
        done = [record for record in log if record.status in FINISHED]
        self._study = self._open(done)
        for record in done:
            best = self.best(record)
            if not self._draws_methods:
                frozen = _frozen(record, best, {record.method: self._space[record.method]}, self._budget, self._aim)
                self._methods[record.method].add_trial(frozen)
            self._learn(best)
            self._remember(record, best, queries(record.config) if self.by_query else ())

    def ask(self, number: int, again: tuple[str, Mapping[str, Any]] | None = None) -> tuple[str, dict[str, Any]]:
        """(method, params) of trial `number`. The first two rounds give every method a turn.

        again: method and params of an interrupted attempt of the same trial.
        """
        with quiet_optuna():
            return self._suggested(number, again)

    def claim(self, after: int, most: int) -> int | None:
        """The number of the next trial, at least `after`; None where there are `most` already."""
        return after if after < most else None

    def close(self) -> None:
        """Nothing is held."""

    def _suggested(self, number: int, again: tuple[str, Mapping[str, Any]] | None) -> tuple[str, dict[str, Any]]:
        assert self._study is not None
        drawn = self._drawn(number, again)
        if drawn is not None:
            named = {f"{drawn[0]}.{name}": value for name, value in drawn[1].items()}
            self._study.enqueue_trial({"method": drawn[0]} | named)
        self._study.sampler = self._seeded(number)
        trial = self._study.ask()
        method, params = suggest(trial, self._space)
        self._trials[number] = trial
        return method, params

    def _seeded(self, number: int) -> BaseSampler:
        made: BaseSampler = self._sampler(hashing.derive_seed("sampler", self._seed, number) % 2**32)
        return made

    def _drawn(self, number: int, again: tuple[str, Mapping[str, Any]] | None) -> tuple[str, Mapping[str, Any]] | None:
        """The sampler's proposal for the method whose turn it is; None where the sampler chooses methods itself.

        Samplers that model hyperparameters need the same ones in every trial, so each method has a study of its own.
        """
        if again is None and number < len(self._first):
            again = self._first[number]
        if self._draws_methods:
            return again
        method = again[0] if again else self._turn(number - len(self._first))
        study = self._methods[method]
        draw = random.Random(hashing.derive_seed("explore", self._seed, number))
        away = draw.random() < RANDOM_FRACTION
        study.sampler = optuna.samplers.RandomSampler(seed=draw.getrandbits(32)) if away else self._seeded(number)
        before = len(study.get_trials(deepcopy=False))
        if again:
            study.enqueue_trial({f"{method}.{name}": value for name, value in again[1].items()})
        elif before < FIRST_TRIALS:
            seed = hashing.derive_seed("starts", method, self._seed)
            first = first_configs(self._space[method], FIRST_TRIALS, seed, swept=self._swept)[before]
            study.enqueue_trial({f"{method}.{name}": value for name, value in first.items()})
        trial = study.ask()
        suggested = suggest(trial, {method: self._space[method]})
        self._method_trials[number] = trial
        return suggested

    def _turn(self, number: int) -> str:
        """Every method twice, then better ones more often: with weights 1 / rank of each method's best result."""
        methods = list(self._space)
        if number < len(methods):
            return methods[number]
        # methods without hyperparameters need no second trial
        methods = [method for method in methods if self._space[method]] or methods
        if number < len(self._space) + len(methods):
            return methods[number - len(self._space)]
        ranked = sorted(methods, key=lambda method: (self._best.get(method, math.inf), methods.index(method)))
        shares = [1 / place for place in range(1, len(ranked) + 1)]
        draw = random.Random(hashing.derive_seed("method", self._seed, number))
        return draw.choices(ranked, shares)[0]

    def tell(self, record: TrialRecord, seen: Sequence[Sequence[float]] = ()) -> None:
        """Report a finished trial to Optuna. seen: losses of the queries at its rungs, where the pruner needs them."""
        assert self._study is not None
        trial = self._trials.pop(record.trial)
        best = self.best(record)
        for key, value in _attributes(best).items():
            trial.set_user_attr(key, value)
        for risk, value in _constraints(best, self._budget).items():
            trial.set_constraint(risk, value)
        self._study.tell(trial, _values(best, self._aim), state=_state(record))
        own_trial = self._method_trials.pop(record.trial, None)
        if own_trial is not None:
            for risk, value in _constraints(best, self._budget).items():
                own_trial.set_constraint(risk, value)
            self._methods[record.method].tell(own_trial, _values(best, self._aim), state=_state(record))
        self._learn(best)
        self._remember(record, best, seen)

    def _learn(self, best: TrialRecord) -> None:
        means = best.search or (best.rungs[-1][1] if best.rungs else None)
        if means:
            self._best[best.method] = min(self._best.get(best.method, math.inf), self.excess(means))

    def best(self, record: TrialRecord) -> TrialRecord:
        """The configuration of a training run with the smallest excess, from which the sampler learns."""
        if record.status != "complete":
            return record
        return min(
            record.configurations(),
            key=lambda configuration: (self.excess(configuration.search or {}), configuration.config),
        )

    def excess(self, means: Mapping[str, float]) -> float:
        """By how much the worst risk exceeds its budget, in units of the budget; negative where all are within."""
        return excess(means, self._budget)

    def _remember(self, record: TrialRecord, best: TrialRecord, seen: Sequence[Sequence[float]]) -> None:
        self._rungs.remember(record, self.excess(best.search or {}) if record.status == "complete" else None, seen)

    def _open(self, done: Sequence[TrialRecord]) -> optuna.Study:
        url = f"sqlite:///{self._path}" if self._path else None
        if url and self._path and self._path.is_file():
            try:
                study = optuna.load_study(study_name="froc", storage=url)
                trials = study.get_trials(deepcopy=False)
            except Exception:  # drivers raise arbitrary errors for damaged databases; the study is rebuilt from the log
                pass
            else:
                if _same(trials, done):
                    return study
        for stale in self._path.parent.glob(f"{self._path.name}*") if self._path else ():
            stale.unlink()
        study = optuna.create_study(study_name="froc", storage=url, directions=["minimize"] * len(self._aim.names))
        with quiet_optuna():
            study.set_metric_names(list(self._aim.names))
        for record in done:
            study.add_trial(_frozen(record, self.best(record), self._space, self._budget, self._aim))
        return study


def _same(trials: Sequence[FrozenTrial], done: Sequence[TrialRecord]) -> bool:
    known = [(trial.number, trial.user_attrs.get("config"), trial.state.is_finished()) for trial in trials]
    return known == [(record.trial, record.config, True) for record in done]


def _state(record: TrialRecord) -> TrialState:
    if record.status == "complete":
        return TrialState.COMPLETE
    return TrialState.PRUNED if record.status == "pruned" else TrialState.FAIL


def _values(record: TrialRecord, aim: Aim) -> list[float] | None:
    return aim.values(record) if record.status == "complete" else None


def _attributes(record: TrialRecord) -> dict[str, Any]:
    where: dict[str, Any] = {name: record.params[name] for name in ("stop", "mix") if name in record.params}
    return {"config": str(ConfigurationId(record.trial)), "status": record.status, "seconds": record.seconds, **where}


def _constraints(record: TrialRecord, budget: Mapping[str, float]) -> dict[str, float]:
    """risk -> excess over its budget, from the last measurement; a trial without one counts as worst."""
    means = record.search or (record.rungs[-1][1] if record.rungs else dict.fromkeys(budget, 1.0))
    return {risk: means[risk] - alpha for risk, alpha in budget.items()}


def _frozen(
    record: TrialRecord, best: TrialRecord, space: Spaces, budget: Mapping[str, float], aim: Aim
) -> FrozenTrial:
    params = {"method": record.method} | {f"{record.method}.{name}": value for name, value in record.params.items()}
    kinds: dict[str, BaseDistribution] = {"method": CategoricalDistribution(list(space))}
    kinds |= {
        f"{record.method}.{name}": distribution(field_space)
        for name, field_space in space[record.method].items()
        if name in record.params
    }
    return optuna.trial.create_trial(
        state=_state(record), values=_values(best, aim), params=params, distributions=kinds,
        user_attrs=_attributes(best), constraints=_constraints(best, budget),
    )  # fmt: skip


def distribution(field_space: Space) -> BaseDistribution:
    """A hyperparameter's space as Optuna's distribution."""
    if isinstance(field_space, Choice):
        return CategoricalDistribution(list(field_space.options))
    if field_space.integer:
        return IntDistribution(int(field_space.low), int(field_space.high), log=field_space.log)
    return FloatDistribution(field_space.low, field_space.high, log=field_space.log)
