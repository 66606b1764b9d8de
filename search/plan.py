"""What is fixed before the first trial, and whether a run folder was made by the same plan."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol

import froc
from froc import fidelity, provenance, timestamp
from froc.bounds import Bound
from froc.data.splits import Sealed, SearchView, ids
from froc.data.task import Task, Unit
from froc.errors import InputError
from froc.loss_table import SCALE, WEIGHTED
from froc.measuring.attack import Attack
from froc.measuring.measurement import Measurement
from froc.measuring.measurement import written as as_written
from froc.measuring.metric import Metric
from froc.measuring.named_risks import KNOWN
from froc.models import vocabulary
from froc.models.base import Base
from froc.plan_identity import VOLATILE
from froc.plugins import find
from froc.risk.certificate import Claim, refuse_unknown
from froc.risk.claim import automatic, estimands
from froc.risk.requirements import required_units
from froc.risk.weighted_sum import COMBINED
from froc.search.earlier_plan import LEGACY_DEFAULTS
from froc.search.optuna.space import Spaces, written
from froc.search.settings import Settings, control_of, measures
from froc.training.method import Method

PACKAGES = ("torch", "transformers", "optuna", "numpy", "scipy", "mapie", "polars")
OPTIONAL_FIELDS: dict[str, Any] = {"relative": None, "extendable": None, "series": None, "like": None}
"""Fields that only plans have which use them."""
LEGACY_FIELD_DEFAULTS: dict[str, Any] = {"plugins": []}
"""Values of fields that older plans lack, at the top level."""


class EarlierRuns(Protocol):
    """What a plan says of the runs that it goes on after; see `froc.search.continual.chain`."""

    @property
    def measured(self) -> bool:
        """Whether what they removed is measured again."""

    @property
    def name(self) -> str:
        """Of the base model."""

    @property
    def plan_entry(self) -> dict[str, Any]:
        """Digests of the last run's certificate and model, and of the tasks."""


@dataclass(frozen=True)
class Plan:
    """The plan's document with what it decided: candidates to test, and the claim (its opening is set later)."""

    document: dict[str, Any]
    claim: Claim
    candidates: int
    notes: tuple[str, ...]


def bounds(
    settings: Settings, units: Mapping[str, Unit], measured: Mapping[str, Measurement], population: Mapping[str, str]
) -> dict[str, str]:
    """risk -> bound: what the user named, or `froc.risk.claim.automatic`, which no loss can influence."""
    named = settings.bound.replace("-", "_")
    named_bounds = {}
    for risk, measurement in measured.items():
        # a share of what the base model scored is tested with losses that are not 0 or 1
        zero_one = measurement.binary and risk not in settings.relative
        binary, kind = zero_one and units[risk] == "query", population.get(risk, "queries")
        if settings.bound == "auto" or kind == "census":
            named_bounds[risk] = automatic(
                binary=zero_one, unit=units[risk], population=kind,
                sequential=settings.sequential, procedure=settings.procedure, combined=COMBINED in settings.budget,
                extendable=settings.extendable,
            )  # fmt: skip
            continue
        if find(Bound, named).binary_only and not binary:
            raise InputError(
                f"the bound {settings.bound} needs 0-1 losses of single queries, which {risk} has not; take auto"
            )
        named_bounds[risk] = named
    return named_bounds


def make_plan(
    settings: Settings,
    task: Task,
    view: SearchView,
    sealed: Sealed,
    base: Base,
    space: Spaces,
    notes: tuple[str, ...],
    external_digest: str | None = None,
    after: EarlierRuns | None = None,
    rates: Mapping[str, Any] | None = None,
) -> Plan:
    """Write the plan. external_digest: of an unlearned model from elsewhere, where that is what is measured. after: the runs
    that this one goes on after. rates: learning rates that were measured for it, see `froc.search.optuna.learning_rates`.

    Raises InputError where the queries are too few to certify the budget at all.
    """
    measured = measures(settings)
    units = {risk: task.units[measurement.pool] for risk, measurement in measured.items()}
    searched = {risk: len({q.unit for q in queries}) for risk, queries in view.queries.items()}
    plan_entry = dict(task.population) | dict(settings.population)
    _refuse_samples(settings, plan_entry)
    population = {
        risk: plan_entry.get(risk, plan_entry.get(measurement.pool, "")) for risk, measurement in measured.items()
    }
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
        unmeasured=0 if after is None or after.measured else len(after.plan_entry["tasks"]),
        largest={risk: sealed.largest[risk] for risk, unit in units.items() if unit == WEIGHTED},
        relative=tuple(sorted(set(settings.relative))),
        own_levels=True,
        extendable=settings.extendable,
        series=settings.series,
    )
    refuse_unknown(claim)
    claim = replace(claim, estimand=estimands(claim), keyed=True)
    candidates, more = _candidates(settings, claim, sealed.units, searched)
    document = {
        "format": 2,
        "froc": froc.__version__,
        "created": timestamp.stamp(),
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
        # methods may receive losses divided by it during training, so that whoever trains again must know it
        **({"before": {risk: settings.before[risk] for risk in claim.relative}} if claim.relative and settings.before else {}),
        "listed": dict(claim.listed),
        "weights": dict(claim.weights),
        "radius": claim.radius,
        "sequential": claim.sequential,
        "openings": claim.openings,
        "joint": claim.joint,
        "levels": "own",
        **({"extendable": True} if claim.extendable else {}),
        **({"series": claim.series} if claim.series > 1 else {}),
        "metrics": {risk: as_written(risk, measurement) for risk, measurement in measured.items()},
        "quantum": SCALE,
        "control": {risk: control_of(risk, measurement) for risk, measurement in measured.items()},
        "split": {
            "search": searched,
            "calibration": sealed.units,
            "queries": sealed.digests, "searched": {risk: ids(queries) for risk, queries in view.queries.items()},
            "share": settings.share,
            **({"later": settings.later} if settings.later else {}),
            **({"label": sealed.label} if sealed.label else {}),
            **({"draw": sealed.draw} if sealed.draw != "in-order" else {}),
        },
        "search": {
            "methods": list(space), "trials": settings.trials, "sampler": settings.sampler, "pruner": settings.pruner,
            "objective": settings.objective, "seed": settings.seed, "batch": settings.batch, "candidates": candidates,
            "train": settings.train, "pack": settings.pack, "sweep": settings.sweep, "autocast": settings.autocast, "parallel": settings.parallel, "until": settings.until,
            "shared": settings.storage is not None, **({"measure_dtype": settings.measure_dtype} if settings.measure_dtype else {}),
            **({"optimizer": settings.optimizer} if settings.optimizer != "adamw" else {}),
            "space": written(space), **({"weighing": vars(settings.weighing)} if settings.objective == "froc" else {}),
        },
        **({"rates": dict(rates)} if rates else {}),
        **({"given": external_digest} if external_digest else {}),
        **({"after": after.plan_entry} if after else {}),
        **({"like": dict(settings.like)} if settings.like else {}),
        **({"questions": task.questions} if task.questions is not None else {}),
        **({"tokenizer": known} if (known := vocabulary.judge(task, base.tokenizer)) else {}),
        "environment": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}, **base.environment},
    }  # fmt: skip
    document["plugins"] = provenance.outside(document)
    document["fidelity"] = _fidelity(document)
    document["named_risks"] = list(KNOWN)
    return Plan(document, claim, candidates, (*task.notes, *notes, *more))


def _fidelity(document: Mapping[str, Any]) -> dict[str, str]:
    """ "kind name" -> how true it is to its paper (`froc.fidelity`), for every method, metric and attack that a plan names."""
    bases: dict[str, type] = {"attack": Attack, "method": Method, "metric": Metric}
    named = provenance.named(document)
    return {f"{kind} {name}": fidelity.of(find(bases[kind], name)) for kind, name in named if kind in provenance.PAPERS}


def as_planned(plan: Plan, old: Mapping[str, Any], *, named_bound: bool) -> Plan:
    """The plan as the run folder has it: what an older version did not say there stays unsaid, and its certificate stays what it was.

    named_bound: whether this command names the bound, which then has to be the old one.
    """
    claim, document = plan.claim, dict(plan.document)
    if "estimand" not in old:
        claim = replace(claim, estimand={}, keyed=False)
    earlier = "star_betting" if "levels" in old else "betting"
    if not named_bound:
        bound = {
            risk: earlier if (name, old["bound"].get(risk)) == ("normal_test_betting", earlier) else name
            for risk, name in claim.bound.items()
        }
        claim, document = replace(claim, bound=bound), document | {"bound": bound}
    if "levels" not in old:
        claim = replace(claim, own_levels=False)
        document = {key: value for key, value in document.items() if key != "levels"}
    return replace(plan, claim=claim, document=document)


def refuse_other_plan(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """InputError naming the first field in which a run folder's plan differs from this command's."""
    for key, value in (OPTIONAL_FIELDS | dict(new)).items():
        before = (
            LEGACY_DEFAULTS[key] | old[key]
            if key in LEGACY_DEFAULTS and isinstance(old.get(key), dict)
            else old.get(key, LEGACY_FIELD_DEFAULTS.get(key))
        )
        if key not in VOLATILE and before != value:
            inner = ""
            if isinstance(value, dict) and isinstance(before, dict):
                # a field that only one of the two has differs, too
                inner = next((f".{k}" for k in {**value, **before} if before.get(k) != value.get(k)), "")
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
        needed = required_units(claim, count, searched)
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
