"""What is fixed before the first trial, and whether a run folder was made by the same plan."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import froc
from froc import digest, procedures
from froc.bounds import Bound
from froc.claim import automatic, estimands
from froc.combined import COMBINED
from froc.control import Kind, kind_of
from froc.data import RISKS, Draw, Sealed, SearchView, Task, Unit, ids, request_of
from froc.engine import PRECISIONS
from froc.errors import InputError
from froc.losses import SCALE, WEIGHTED
from froc.models import Base
from froc.plugins import find
from froc.published import Weighing
from froc.risk import Claim, refuse_unknown, required
from froc.risks import Measurement, named
from froc.risks import written as as_written
from froc.scope import read as read_scope
from search.folder import Folder
from search.pruning import PRUNERS
from search.space import Spaces, pick, written
from search.study import OBJECTIVES, SAMPLERS

PACKAGES = ("torch", "transformers", "optuna", "numpy", "scipy", "mapie", "polars")
UNTIL = ("trials", "certified")
LEAST = 1e-6
"""The smallest limit that a search steers by."""
LATER: dict[str, dict[str, Any]] = {"search": {"parallel": 1, "until": "trials", "shared": False}}
"""What plans of older versions do not say, and meant."""
MISSING: dict[str, Any] = {"relative": None}
"""Fields that only plans have which use them."""
VOLATILE = ("before", "created", "environment", "estimand", "extends", "froc", "questions", "rates")
"""Fields in which a resumed run may differ from the one that wrote the plan; `estimand` follows from others."""


class After(Protocol):
    """What a plan says of the runs that it goes on after; see `search.after`."""

    @property
    def measured(self) -> bool:
        """Whether what they removed is measured again."""

    @property
    def name(self) -> str:
        """Of the base model."""

    @property
    def said(self) -> dict[str, Any]:
        """Digests of the last run's certificate and model, and of the tasks."""


@dataclass(frozen=True)
class Settings:
    """What a user says to `froc search`; validated here, once.

    budget: risk -> accepted risk, in (0, 1). metrics: risk -> how it is measured (`froc.risks.measurement`). share: part of the units that the search may look at.
    candidates: at most this many configurations are tested; None lets the number of queries decide (at most 10).
    population, weights, radius, sequential: see `froc.claim.Claim`. sample: risk -> units of a listed population that
    are measured beside those of the search. train: what trials may change, see `froc.scope.parse`; pack: how many are
    trained in the same passes. sweep: whether stops and mixes with the base are tried. autocast: see `froc.engine`.
    parallel: packs in flight: the sampler knows all but the last ones. until: `trials` or `certified`, which stops as soon
    as the search losses make a certificate likely. timeout, trial_timeout: seconds. later: requests to come, for which a
    part of the sealed queries each is held back (`froc.earlier`).
    allow_vacuous: go on where the base model itself keeps a budget; nothing is certified then, so no plan says it.
    relative: risks whose budgets are shares of what the base model scores; before: risk -> that score on search queries, once it
    is measured.
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
    parallel: int = 1
    until: str = "trials"
    timeout: float | None = None
    trial_timeout: float | None = None
    storage: str | None = field(default=None, repr=False)
    later: int = 0
    allow_vacuous: bool = False
    relative: tuple[str, ...] = ()
    before: Mapping[str, float] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, float]:
        """Budgets of single risks as losses: what candidates are ranked by. Shares are of the base model's mean on search queries."""
        return {risk: self._limit(risk, alpha) for risk, alpha in self.budget.items() if risk != COMBINED}

    def _limit(self, risk: str, alpha: float) -> float:
        # a base that scores nothing is gone on with where the user wants it, and no limit is 0
        return max(alpha * self.before.get(risk, 1.0), LEAST) if risk in self.relative else alpha

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
            "pack": self.pack,
            "parallel": self.parallel,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name} {count} is too few; give at least 1")
        if self.later < 0 or (self.later and "census" in self.population.values()):
            raise InputError(
                f"--later {self.later} holds queries back; give 0 or more, and no census, which measures all"
            )
        for name, seconds in (("timeout", self.timeout), ("trial timeout", self.trial_timeout)):
            if seconds is not None and seconds <= 0:
                raise InputError(f"{name} {seconds:g} is no time; give seconds, or 30m or 2h")
        if self.storage is not None and (self.sampler == "grid" or "://" not in self.storage):
            raise InputError("--storage takes an address such as postgresql://USER@HOST/DATABASE, and no grid")
        if self.until not in UNTIL:
            raise InputError(f"--until {self.until} is not known; there are: {', '.join(UNTIL)}")
        if self.candidates is not None and self.candidates < 1:
            raise InputError("candidates must be at least 1")
        read_scope(self.train, self.pack)
        if self.autocast is not None:
            pick("precision", PRECISIONS, self.autocast)
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
        for risk, count in self.sample.items():
            if count < 1:
                raise InputError(f"sample {risk}={count} is too few; give at least 1")
        for risk, one in measures(self).items():
            if risk in RISKS and (one.metric.finds == "faults" or control_of("", one) == "none"):
                raise InputError(
                    f"{risk} is about what the model knows, and {one} measures something else; give it a name of its own: --risk NAME={one}"
                )
            if (risk in RISKS or request_of(risk) is not None) and (one.attacks or one.pool != risk):
                raise InputError(
                    f"{risk} is measured on its own queries as they are; give {one} another name with --risk"
                )
        if self.bound != "auto":
            find(Bound, self.bound)
        self._refuse_relative()

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


@dataclass(frozen=True)
class Plan:
    """The plan's document with what it decided: candidates to test, and the claim (its opening is set later)."""

    document: dict[str, Any]
    claim: Claim
    candidates: int
    notes: tuple[str, ...]


def settings_of(plan: Mapping[str, Any], said: Mapping[str, str]) -> Settings:
    """What a plan was told, as far as training and measuring again hang on it. said: risk -> metric, which wins."""
    search, kinds = plan["search"], plan["population"]
    # what was removed before is measured as what is removed now
    metrics = {risk: metric for risk, metric in plan["metrics"].items() if request_of(risk) is None}
    return Settings(
        budget=plan["budget"], confidence=plan["confidence"], metrics={**metrics, **said},
        methods=tuple(search["methods"]), trials=search["trials"], share=plan["split"]["share"], seed=search["seed"],
        batch=search["batch"], population={risk: kind for risk, kind in kinds.items() if kind != "queries"},
        sample={risk: plan["split"]["calibration"][risk] for risk in RISKS if kinds.get(risk) == "sample"},
        sequential=plan["sequential"], train=search.get("train", "full"), pack=search.get("pack", 1),
        autocast=search.get("autocast"), sweep=False, later=plan["split"].get("later", 0),
        relative=tuple(plan.get("relative", ())), before=plan.get("before", {}),
    )  # fmt: skip


def measures(settings: Settings) -> dict[str, Measurement]:
    """risk -> how it is measured; extraction strength unless said otherwise (the most trustworthy, OpenUnlearning 2506.12618)."""
    return named((*RISKS, *(risk for risk in settings.limits if risk not in RISKS)), settings.metrics)


def control_of(risk: str, measured: Measurement) -> Kind:
    """What the base model must show under a measurement; another package's metric says by itself that it finds faults."""
    faults = measured.metric.finds == "faults" and risk not in RISKS
    return "none" if faults else kind_of(risk, as_written(risk, measured))


def bounds(
    settings: Settings, units: Mapping[str, Unit], measured: Mapping[str, Measurement], population: Mapping[str, str]
) -> dict[str, str]:
    """risk -> bound: what the user named, or `froc.claim.automatic`, which no loss can influence."""
    named = settings.bound.replace("-", "_")
    found = {}
    for risk, one in measured.items():
        # a share of what the base model scored is tested with losses that are not 0 or 1
        zero_one = one.binary and risk not in settings.relative
        binary, kind = zero_one and units[risk] == "query", population.get(risk, "queries")
        if settings.bound == "auto" or kind == "census":
            found[risk] = automatic(
                binary=zero_one, unit=units[risk], population=kind,
                sequential=settings.sequential, procedure=settings.procedure,
            )  # fmt: skip
            continue
        if find(Bound, named).binary_only and not binary:
            raise InputError(
                f"the bound {settings.bound} needs 0-1 losses of single queries, which {risk} has not; take auto"
            )
        found[risk] = named
    return found


def make_plan(
    settings: Settings,
    task: Task,
    view: SearchView,
    sealed: Sealed,
    base: Base,
    space: Spaces,
    notes: tuple[str, ...],
    given: str | None = None,
    after: After | None = None,
    rates: Mapping[str, Any] | None = None,
) -> Plan:
    """Write the plan. given: digest of an unlearned model from elsewhere, where that is what is measured. after: the runs
    that this one goes on after. rates: learning rates that were measured for it, see `search.rates`.

    Raises InputError where the queries are too few to certify the budget at all.
    """
    measured = measures(settings)
    units = {risk: task.units[one.pool] for risk, one in measured.items()}
    searched = {risk: len({q.unit for q in some}) for risk, some in view.queries.items()}
    said = dict(task.population) | dict(settings.population)
    _refuse_samples(settings, said)
    population = {risk: said.get(risk, said.get(one.pool, "")) for risk, one in measured.items()}
    population = {risk: kind for risk, kind in population.items() if kind}
    claim = Claim(
        budget=dict(settings.budget),
        confidence=settings.confidence,
        procedure=settings.procedure,
        bound=bounds(settings, units, measured, population),
        unit=units,
        population=population,
        listed={risk: sealed.listed[risk] for risk, kind in population.items() if kind != "queries"},
        weights=dict(settings.weights),
        radius=settings.radius,
        openings=settings.openings,
        joint=settings.joint,
        sequential=settings.sequential,
        unmeasured=0 if after is None or after.measured else len(after.said["tasks"]),
        largest={risk: sealed.largest[risk] for risk, unit in units.items() if unit == WEIGHTED},
        relative=tuple(sorted(set(settings.relative))),
    )
    refuse_unknown(claim)
    claim = replace(claim, estimand=estimands(claim), keyed=True)
    candidates, more = _candidates(settings, claim, sealed.units, searched)
    document = {
        "format": 2,
        "froc": froc.__version__,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "task": {
            "name": task.name, "digest": task.digest, "split_seed": task.split_seed, "units": units,
            "notes": [*task.notes, *notes, *more], **({"seed_from": "auditor"} if task.audited else {}),
        },
        "model": {
            "name": after.name if after else base.name.replace("\\", "/").rstrip("/").rpartition("/")[2],
            "digest": base.digest,
        },
        "budget": claim.budget,
        "confidence": claim.confidence,
        "procedure": claim.procedure,
        "bound": claim.bound,
        "population": {risk: claim.kind(risk) for risk in claim.risks},
        "estimand": dict(claim.estimand),
        **({"largest": dict(claim.largest)} if claim.largest else {}),
        **({"relative": list(claim.relative)} if claim.relative else {}),
        # what training may be told on its way hangs on it, so that who trains again must know
        **({"before": {risk: settings.before[risk] for risk in claim.relative}} if claim.relative and settings.before else {}),
        "listed": dict(claim.listed),
        "weights": dict(claim.weights),
        "radius": claim.radius,
        "sequential": claim.sequential,
        "openings": claim.openings,
        "joint": claim.joint,
        "metrics": {risk: as_written(risk, one) for risk, one in measured.items()},
        "quantum": SCALE,
        "control": {risk: control_of(risk, one) for risk, one in measured.items()},
        "split": {
            "search": searched,
            "calibration": sealed.units,
            "queries": sealed.digests, "searched": {risk: ids(some) for risk, some in view.queries.items()},
            "share": settings.share,
            **({"later": settings.later} if settings.later else {}),
            **({"label": sealed.label} if sealed.label else {}),
            **({"draw": sealed.draw} if sealed.draw != "in-order" else {}),
        },
        "search": {
            "methods": list(space), "trials": settings.trials, "sampler": settings.sampler, "pruner": settings.pruner,
            "objective": settings.objective, "seed": settings.seed, "batch": settings.batch, "candidates": candidates,
            "train": settings.train, "pack": settings.pack, "sweep": settings.sweep, "autocast": settings.autocast, "parallel": settings.parallel, "until": settings.until,
            "shared": settings.storage is not None,
            "space": written(space), **({"weighing": vars(settings.weighing)} if settings.objective == "froc" else {}),
        },
        **({"rates": dict(rates)} if rates else {}),
        **({"given": given} if given else {}),
        **({"after": after.said} if after else {}),
        **({"questions": task.questions} if task.questions is not None else {}),
        "environment": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }  # fmt: skip
    return Plan(document, claim, candidates, (*task.notes, *notes, *more))


def identity(document: Mapping[str, Any]) -> str:
    """Digest of what a search was told: the same on the day after, and on another machine."""
    return digest.of_json({key: value for key, value in document.items() if key not in VOLATILE})


def parallel_of(folder: Folder) -> int | None:
    """How many packs an earlier call in this run folder had in flight; None where there was none."""
    old = folder.read(folder.plan)
    return None if old is None else int((LATER["search"] | dict(old.get("search") or {}))["parallel"])


def label_of(folder: Folder) -> str | None:
    """What an earlier call in this run folder renamed the queries' ids by, empty for nothing; None where there was none."""
    old = folder.read(folder.plan)
    return None if old is None else str(old["split"].get("label", ""))


def draw_of(plan: Mapping[str, Any] | None) -> Draw:
    """How a plan divides its queries; the way of today where there is no plan yet."""
    return "by-row" if plan is None or plan["split"].get("draw") == "by-row" else "in-order"


def as_planned(claim: Claim, old: Mapping[str, Any] | None) -> Claim:
    """The claim as the run folder's plan has it: an older one names no estimand, and its certificate stays what it was."""
    return claim if old is None or "estimand" in old else replace(claim, estimand={}, keyed=False)


def refuse_other(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """InputError naming the first field in which a run folder's plan differs from this command's."""
    for key, value in (MISSING | dict(new)).items():
        before = LATER[key] | old[key] if key in LATER and isinstance(old.get(key), dict) else old.get(key)
        if key not in VOLATILE and before != value:
            inner = ""
            if isinstance(value, dict) and isinstance(before, dict):
                inner = next((f".{k}" for k, v in value.items() if before.get(k) != v), "")
            raise InputError(f"the run folder was made by another plan ({key}{inner} differs); choose another --out")


def _refuse_samples(settings: Settings, population: Mapping[str, str]) -> None:
    for risk in (*population, *settings.sample):
        if (population.get(risk) == "sample") != (risk in settings.sample):
            raise InputError(
                f"population sample and --sample go together: --population {risk}=sample --sample {risk}=100"
            )


def _candidates(
    settings: Settings, claim: Claim, units: Mapping[str, int], searched: Mapping[str, int]
) -> tuple[int, tuple[str, ...]]:
    """How many configurations can be tested with these queries; InputError where not even one could be certified."""
    wanted = settings.candidates or min(10, settings.trials)
    for count in range(wanted, 0, -1):
        needed = required(claim, count, searched)
        short = [risk for risk, need in needed.items() if units[risk] < need]
        if not short:
            note = f"only {count} of {wanted} candidates can be tested with so few queries" if count < wanted else ""
            return count, ((note,) if note else ())
        if settings.candidates is not None:
            break
    risk = short[0]
    total = -(-needed[risk] // (1 - settings.share)) if settings.share < 1 else needed[risk]
    raise InputError(
        f"{risk}: {units[risk]} calibration units can never certify {_budgets(claim)} at confidence "
        f"{claim.confidence:g} with {count} candidate(s), even at zero loss; {needed[risk]} are needed "
        f"(about {total:.0f} before the search takes its share): add fresh queries, or raise the budget or lower --confidence; froc plan says what more would buy"
    )


def _budgets(claim: Claim) -> str:
    return ", ".join(f"budget {risk}={alpha:g}" for risk, alpha in claim.budget.items())
