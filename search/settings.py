"""What a user says to `froc search`, validated once, and how the risks of it are measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from froc import procedures
from froc.bounds import Bound
from froc.data.task import RISKS, request_of
from froc.errors import InputError
from froc.extras import require
from froc.measuring.measurement import Measurement, named
from froc.measuring.measurement import written as as_written
from froc.models.training_options import MEASURING, OPTIMIZERS, PRECISIONS, read_scope
from froc.plugins import find
from froc.risk.froc_score import Weighing
from froc.risk.positive_control import Kind, kind_of
from froc.risk.weighted_sum import COMBINED
from froc.search.optuna.pruning import PRUNERS
from froc.search.optuna.space import pick, refuse_unknown
from froc.search.optuna.study import OBJECTIVES, SAMPLERS

UNTIL = ("trials", "certified")
PARALLEL = 4
"""Packs in flight unless the user says otherwise, on every machine: any number of workers draws the same configurations, and two
hardly ever wait for each other. Replayed 80 times (`benchmarks/efficiency.py`), 2 to 8 in flight need no more steps than 1."""


MIN_LIMIT = 1e-6
"""The smallest limit that a search steers by."""


@dataclass(frozen=True)
class Settings:
    """What a user says to `froc search`; validated here, once.

    budget: risk -> accepted risk, in (0, 1). metrics: risk -> how it is measured (`froc.measuring.measurement.measurement`). share: part of the units that the search may look at.
    candidates: at most this many configurations are tested; None lets the number of queries decide (at most 10).
    population, weights, radius, sequential: see `froc.risk.claim.Claim`. sample: risk -> units of a listed population that
    are measured beside those of the search. train: what trials may change, see `froc.models.trainable.parse`; pack: how many are
    trained in the same passes. sweep: whether stops and mixes with the base are tried. autocast: see `froc.models.compute`.
    optimizer: of `froc.models.training_options.OPTIMIZERS`.
    measure_dtype: precision of matrix products in measuring; None for that of the parameters.
    parallel: packs in flight: the sampler knows all but the last ones. until: `trials` or `certified`, which stops as soon
    as the search losses make a certificate likely. timeout, trial_timeout: seconds. later: requests to come, for which a
    part of the sealed queries each is held back (`froc.data.continual`).
    allow_vacuous: go on where the base model itself keeps a budget; nothing is certified then, so no plan says it.
    extendable: whether fresh queries may follow the calibration queries (`froc.search.extend`).
    relative: risks whose budgets are shares of what the base model scores; before: risk -> that score on search queries, once it
    is measured.
    like: what was taken from an earlier run, as the plan says it; see `froc.search.prior_run`.
    storage: address of a database whose study several drivers share; it may hold a password, so it is never written down.
    objective: what the sampler minimizes: `margin` (the worst risk over its budget),
    `pareto` (the mean loss of each risk) or `froc` (the published score under `weighing`); ranking and certificate are the
    same under all.
    """

    budget: Mapping[str, float]
    confidence: float = 0.9
    metrics: Mapping[str, str] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    trials: int = 30
    sampler: str = "tpe"
    pruner: str = "halving"
    procedure: str = "weighted-holm"
    bound: str = "auto"
    joint: bool = False
    candidates: int | None = None
    share: float = 0.2
    seed: int = 0
    batch: int = 32
    openings: int = 1
    reopen: bool = False
    population: Mapping[str, str] = field(default_factory=dict)
    sample: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    radius: float = 0.0
    sequential: bool = False
    space: Mapping[str, tuple[float, float] | list[str]] = field(default_factory=dict)
    objective: str = "margin"
    weighing: Weighing = field(default_factory=Weighing)
    train: str = "full"
    pack: int = 1
    sweep: bool = True
    autocast: str | None = None
    measure_dtype: str | None = None
    optimizer: str = "adamw"
    parallel: int = PARALLEL
    until: str = "trials"
    timeout: float | None = None
    trial_timeout: float | None = None
    storage: str | None = field(default=None, repr=False)
    later: int = 0
    allow_vacuous: bool = False
    relative: tuple[str, ...] = ()
    extendable: bool = False
    series: int = 1
    before: Mapping[str, float] = field(default_factory=dict)
    like: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, float]:
        """Budgets of single risks as losses: what candidates are ranked by. Shares are of the base model's mean on search queries."""
        return {risk: self._limit(risk, alpha) for risk, alpha in self.budget.items() if risk != COMBINED}

    def _limit(self, risk: str, alpha: float) -> float:
        # a base that scores nothing is gone on with where the user wants it, and no limit is 0
        return max(alpha * self.before.get(risk, 1.0), MIN_LIMIT) if risk in self.relative else alpha

    def known(self, before: Mapping[str, float]) -> "Settings":
        """The same once it is known what the base model scores."""
        return replace(self, before=before) if self.relative else self

    @property
    def steering(self) -> dict[str, float]:
        """Budgets of the risks that every trial measures: what the search steers by."""
        return {risk: alpha for risk, alpha in self.limits.items() if risk in RISKS}

    @property
    def further(self) -> list[str]:
        """Risks that are measured on candidates alone."""
        return [risk for risk in self.limits if risk not in RISKS]

    def check(self) -> None:
        """Raise InputError for values out of range or unknown names."""
        self._refuse_numbers()
        for name, seconds in (("timeout", self.timeout), ("trial timeout", self.trial_timeout)):
            if seconds is not None and seconds <= 0:
                raise InputError(f"{name} {seconds:g} is no time; give seconds, or 30m or 2h")
        if self.storage is not None and (self.sampler == "grid" or "://" not in self.storage):
            raise InputError("--storage takes an address such as postgresql://USER@HOST/DATABASE, and no grid")
        if self.until not in UNTIL:
            raise InputError(f"--until {self.until} is not known; there are: {', '.join(UNTIL)}")
        if self.candidates is not None and self.candidates < 1:
            raise InputError("candidates must be at least 1")
        if "bits" in read_scope(self.train, self.pack)[1]:
            require("nf4")
        if self.autocast is not None:
            pick("precision", dict.fromkeys(PRECISIONS), self.autocast)
        pick("optimizer", dict.fromkeys(OPTIMIZERS), self.optimizer)
        if self.measure_dtype is not None:
            pick("precision of measuring", dict.fromkeys(MEASURING), self.measure_dtype)
        refuse_unknown(self.methods)
        pick("sampler", SAMPLERS, self.sampler)
        pick("pruner", PRUNERS, self.pruner)
        pick("objective", OBJECTIVES, self.objective)
        if procedures.find(self.procedure).promise != "family-wise":
            raise InputError(
                f"{self.procedure} screens, it certifies nothing that could be deployed; take one of "
                f"{', '.join(procedures.names())}, or use it with froc certify"
            )
        if not self.steering:
            raise InputError("the search steers by the budgets of single risks; give --budget 0.1 beside combined")
        for risk, measurement in measures(self).items():
            if risk in RISKS and (measurement.metric.finds == "faults" or control_of("", measurement) == "none"):
                raise InputError(
                    f"{risk} is about what the model knows, and {measurement} measures something else; give it a name of its own: --risk NAME={measurement}"
                )
            if (risk in RISKS or request_of(risk) is not None) and (measurement.attacks or measurement.pool != risk):
                raise InputError(
                    f"{risk} is measured on its own queries as they are; give {measurement} another name with --risk"
                )
        if self.bound != "auto":
            find(Bound, self.bound)
        self._refuse_relative()

    def _refuse_numbers(self) -> None:
        for risk, alpha in self.budget.items():
            if not 0 < alpha < 1:
                raise InputError(f"budget {risk}={alpha:g} is outside (0, 1); a budget is an accepted risk such as 0.1")
        for name, value in (("confidence", self.confidence), ("search share", self.share)):
            if not 0 < value < 1:
                raise InputError(f"{name} {value:g} is outside (0, 1)")
        counts = {
            "trials": self.trials,
            "batch": self.batch,
            "openings": self.openings,
            "series": self.series,
            "pack": self.pack,
            "parallel": self.parallel,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name} {count} is too few; give at least 1")
        if abs(self.seed) >= 10**40:
            raise InputError("the seed has more than 40 digits, which no report can hold; give a shorter one")
        if self.later and self.like:
            raise InputError("--later holds queries back, and --like moves some to the search; leave one of them out")
        if self.later < 0 or (self.later and "census" in self.population.values()):
            raise InputError(
                f"--later {self.later} holds queries back; give 0 or more, and no census, which measures all"
            )
        for risk, count in self.sample.items():
            if count < 1:
                raise InputError(f"sample {risk}={count} is too few; give at least 1")

    def _refuse_relative(self) -> None:
        measured = measures(self)
        for risk in self.relative:
            able = [name for name in self.limits if control_of(name, measured[name]) == "ceiling"]
            if risk not in able:
                raise InputError(
                    f"--relative {risk}: only what is lost against the base model can be a share of its score"
                    + (f"; take {' or '.join(able)}" if able else "; leave it out")
                )
        if self.relative and (self.sequential or self.radius or COMBINED in self.budget):
            raise InputError(
                "--relative goes with budgets of single risks, for queries like the measured ones, measured as planned; leave "
                "--sequential, --radius and combined budgets out"
            )


def settings_of(plan: Mapping[str, Any], overrides: Mapping[str, str]) -> Settings:
    """Settings from a plan, as far as training and measuring again depend on them. overrides: risk -> metric, instead of the plan's.

    InputError where the document is none that a search writes.
    """
    try:
        settings = TypeAdapter(Settings).validate_python(_settings_fields(plan, overrides))
        settings._refuse_numbers()
    except InputError as error:
        raise not_written("its settings", str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise not_written(".".join(map(str, first["loc"])), first["msg"]) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise not_written(str(error), type(error).__name__) from error
    return settings


def not_written(field: str, why: str) -> InputError:
    """What is wrong with a plan that cannot be run again."""
    return InputError(f"the plan is not one that froc search writes, and cannot be run again ({field}: {why})")


def _settings_fields(plan: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    search, kinds = plan["search"], plan["population"]
    # what was removed before is measured as what is removed now
    metrics = {risk: metric for risk, metric in plan["metrics"].items() if request_of(risk) is None}
    return {
        "budget": plan["budget"], "confidence": plan["confidence"], "metrics": {**metrics, **overrides},
        "methods": search["methods"], "trials": search["trials"], "share": plan["split"]["share"], "seed": search["seed"],
        "batch": search["batch"], "population": {risk: kind for risk, kind in kinds.items() if kind != "queries"},
        "sample": {risk: plan["split"]["calibration"][risk] for risk in RISKS if kinds.get(risk) == "sample"},
        "sequential": plan["sequential"], "train": search.get("train", "full"), "pack": search.get("pack", 1),
        "autocast": search.get("autocast"), "measure_dtype": search.get("measure_dtype"), "sweep": False, "optimizer": search.get("optimizer", "adamw"), "later": plan["split"].get("later", 0),
        "relative": plan.get("relative", ()), "extendable": plan.get("extendable", False), "series": plan.get("series", 1),
        "before": plan.get("before", {}), "like": plan.get("like", {}),
    }  # fmt: skip


def measures(settings: Settings) -> dict[str, Measurement]:
    """risk -> how it is measured; extraction strength unless said otherwise (the most trustworthy, OpenUnlearning 2506.12618)."""
    return named((*RISKS, *(risk for risk in settings.limits if risk not in RISKS)), settings.metrics)


def control_of(risk: str, measured: Measurement) -> Kind:
    """What the base model must show under a measurement; another package's metric says by itself that it finds faults."""
    faults = measured.metric.finds == "faults" and risk not in RISKS
    return "none" if faults else kind_of(risk, as_written(risk, measured))
