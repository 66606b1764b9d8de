"""The files of a bundle against each other: plan, seal, trials and losses -> `Facts`.

The builder reads its own evidence with this code, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from froc import hashing, provenance
from froc.audit import (
    bundle_files,
    canonical_json,
    chronology,
    comparisons,
    documents,
    further_stages,
    ranking,
    report,
    statements,
)
from froc.audit.bundle_files import Trial, Variant, moment
from froc.audit.documents import Plan, Seal, SignedPlan
from froc.audit.report import Facts
from froc.audit.timestamps import Proven
from froc.audit.trust import Trust
from froc.configuration_id import EXTERNAL_METHOD, ConfigurationId
from froc.data.task import RISKS, request_of
from froc.errors import InputError, VerificationError
from froc.measuring.named_risks import KNOWN, NAMED_BEFORE_LISTS
from froc.risk.positive_control import BASE, built_in, kind_of, metric_of

STEPS = (
    "files", "timestamps", "signature", "statement", "dates", "evidence", "subject", "model", "plan", "seal", "trials",
    "losses", "comparison", "statistics", "weights", "page", "reexecution",
)  # fmt: skip
"""Every check in its order, numbered from 1: the same numbers in code, output and docs/audit.md.

A check is left out where it has no object: no time stamp, no model given, no comparison, nothing measured again.
"""


@dataclass(frozen=True)
class Check:
    """A check that held: its number, its name, and what it found."""

    number: int
    name: str
    seen: str


class Log:
    """The checks that held so far, in order."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def held(self, name: str, seen: str) -> None:
        """Record the next check."""
        self.checks.append(Check(STEPS.index(name) + 1, name, seen))


def read(
    files: Mapping[str, bytes], trust: Trust, now: datetime, proven: Proven, covered: Mapping[str, str], log: Log
) -> Facts:
    """The evidence of a bundle; the builder reads its own with this, too.

    files: the bundle's files except the report.
    proven: what time stamps show.
    covered: model file -> digest; empty if no model is covered.
    """
    plan, signed, signers = _plan(files, trust, now, proven)
    foreign = provenance.sentences(entry.model_dump() for entry in plan.plugins or ())
    code = f"; measured with code that is not froc's: {'; '.join(foreign)}" if foreign else ""
    earlier = f"; it extends {len(plan.extends)} earlier one(s), which nobody here has seen" if plan.extends else ""
    log.held("plan", f"the plan is signed by a trusted key and is what trials and seal refer to{earlier}{code}")
    seal = _seal(files, plan)
    log.held("seal", f"{len(seal.candidates)} candidate(s) sealed under this plan")
    trials = bundle_files.read_trials(files["trials.jsonl"])
    plan_digest = hashing.sha256_bytes(files["plan.json"])
    chronology.check_run(plan.created, signed, trials)
    _trials(trials, plan, seal, plan_digest)
    unlogged = ranking.check(seal, trials, list(plan.claim.risks))
    order = (
        f"their order not compared, as the log has no search losses of {', '.join(unlogged)}"
        if unlogged
        else "none before one that lost less under every risk"
    )
    log.held(
        "trials", f"{len(trials)} logged trial(s), every candidate among the complete ones, {order}, none run twice"
    )
    losses = _losses(files, plan, seal)
    stages = further_stages.read(files, plan, trials)
    further_stages.check_losses(losses, stages, plan.task.units)
    losses, base = _divided(losses)
    log.held(
        "losses",
        _measured(losses, plan) + further_stages.sentence(stages) + _control(plan, base),
    )
    tree = hashing.sha256_tree(dict(covered)) if covered else None
    compared = comparisons.read(files, plan) if "comparison.json" in files else None
    if compared is not None:
        log.held("comparison", f"{len(compared.losses)} losses of {len(compared.seal.candidates)} sealed points")
    return Facts(plan, plan_digest, signed, seal, trials, losses, covered, tree, compared, signers, base, stages)


def _plan(files: Mapping[str, bytes], trust: Trust, now: datetime, proven: Proven) -> tuple[Plan, str, tuple[str, ...]]:
    statement = statements.read(files["plan.dsse.json"], trust, 1, report.PLAN_PREDICATE, now, proven.plan)
    signed: SignedPlan = documents.parse(SignedPlan, statement.predicate, "plan-shape")
    moment(signed.signed)
    if statement.subject != {"plan.json": hashing.sha256_bytes(files["plan.json"])}:
        raise VerificationError("plan-digest", "plan.json is not the plan that was signed")
    document = canonical_json.strict_json(files["plan.json"], decimals=True)
    if not same(canonical_json.exact(document), signed.plan):
        raise VerificationError("plan-digest", "plan.json says something else than the signed plan")
    plan: Plan = documents.parse(Plan, document, "plan-shape")
    moment(plan.created)
    risks = set(plan.claim.risks) if set(plan.weights) <= set(plan.bound) else set()
    for name in ("bound", "metrics", "population"):
        if getattr(plan, name).keys() != risks:
            raise VerificationError("plan-shape", f"the plan's {name} are not those of its budget")
    if any(part.keys() != risks for part in (plan.task.units, plan.split.calibration, plan.split.search)):
        raise VerificationError("plan-shape", "the plan's sampling units are not those of its budget")
    if plan.after is not None and plan.after.measured != _measures_earlier(plan):
        raise VerificationError("plan-after", "the plan says of what was removed earlier what its risks do not")
    _plugins(plan)
    _named_risks(plan)
    return plan, signed.signed, statement.signers


def _plugins(plan: Plan) -> None:
    """VerificationError unless the plan names exactly the plug-ins of other packages; bounds and procedures must be froc's own."""
    foreign = provenance.unknown(plan.model_dump())
    if any(kind in ("bound", "procedure") for kind, _ in foreign):
        raise VerificationError(
            "plan-plugins", "a bound or procedure is not froc's own, and nobody verifies with code of other packages"
        )
    if plan.plugins is not None and sorted(foreign) != [(entry.kind, entry.name) for entry in plan.plugins]:
        raise VerificationError("plan-plugins", "the plan does not name exactly the code that is not froc's")
    papers = {f"{kind} {name}" for kind, name in provenance.named(plan.model_dump()) if kind in provenance.PAPERS}
    if plan.fidelity is not None and plan.fidelity.keys() != papers:
        raise VerificationError(
            "plan-fidelity", "the plan does not say of exactly its methods and measurements how true they are"
        )


def _named_risks(plan: Plan) -> None:
    """VerificationError unless the plan lists, of risks that froc knows by name, all that older plans take for granted."""
    if plan.named_risks is not None and not set(NAMED_BEFORE_LISTS) <= set(plan.named_risks) <= set(KNOWN):
        raise VerificationError(
            "plan-named-risks",
            "the plan does not list the risks that have a name, of which the page says which were not run",
        )


def _measures_earlier(plan: Plan) -> bool:
    """Whether any risk measures what earlier requests removed."""
    return any(request_of(metric.rpartition("/")[2]) is not None for metric in plan.metrics.values())


def _seal(files: Mapping[str, bytes], plan: Plan) -> Seal:
    seal: Seal = documents.parse(Seal, canonical_json.strict_json(files["seal.json"], decimals=True), "seal-shape")
    if seal.plan != hashing.sha256_bytes(files["plan.json"]):
        raise VerificationError("seal-other-plan", "the seal was made under another plan")
    configs = [candidate.config for candidate in seal.candidates]
    bound = [
        seal.model_files is not None,
        seal.base_weights_digest is not None,
        *(candidate.weights_digest is not None for candidate in seal.candidates),
    ]
    if any(bound) and not all(bound):
        raise VerificationError(
            "seal-weights", "the seal names the weights of some candidates, and not of all and the base"
        )
    if len(set(configs)) != len(configs) or len(configs) > plan.search.candidates:
        raise VerificationError("seal-candidates", "the seal lists a candidate twice, or more than were planned")
    if plan.split.queries != seal.calibration:
        raise VerificationError("seal-other-queries", "the sealed calibration queries are not the planned ones")
    if plan.sequential != (seal.order is not None):
        raise VerificationError("seal-order", "a plan that may stop early seals the order of measuring, others none")
    if seal.units is not None:
        _order(seal.units, plan, seal)
    return seal


def _order(order: pl.DataFrame, plan: Plan, seal: Seal) -> None:
    """VerificationError unless a sealed order lists the sealed queries, each once, in as many units as planned."""
    for risk, unit in plan.task.units.items():
        of_risk = order.filter(pl.col("risk") == risk)
        if hashing.sha256_json(sorted(of_risk["query"].to_list())) != seal.calibration.get(risk):
            raise VerificationError("seal-order", "the sealed order is not one of the sealed calibration queries")
        if of_risk["query" if unit == "query" else "unit"].n_unique() != plan.split.calibration[risk]:
            raise VerificationError("plan-units", f"{risk} was not sealed on as many units as planned")


def _configurations(line: Trial) -> list[tuple[str, dict[str, Any]]]:
    """Name and hyperparameters of a trial's end and of each of its stops and mixes."""
    others = [(variant.config, {**line.params, "stop": variant.stop, "mix": variant.mix}) for variant in line.variants]
    return [(line.config, dict(line.params)), *others]


def _is_of(config: str, trial: int) -> bool:
    """Whether a name belongs to a configuration of this trial."""
    try:
        return ConfigurationId.parse(config).trial == trial
    except InputError:
        return False


def _trials(trials: Sequence[Trial], plan: Plan, seal: Seal, plan_digest: str) -> None:
    attempts: dict[int, int] = {}
    complete: dict[str, tuple[str, Any]] = {}
    finished = 0
    for line in trials:
        if line.plan not in (plan_digest, *plan.extends):
            raise VerificationError("trial-other-plan", f"trial {line.trial} was started under another plan")
        # plans that list plug-ins list methods too: a method left out would be code that nobody is told of
        listed = plan.search.methods or plan.plugins is not None
        if listed and line.method not in (plan.search.methods or [EXTERNAL_METHOD]):
            raise VerificationError("trial-method", f"trial {line.trial} is of a method that was not planned")
        if any(variant.stop > line.steps for variant in line.variants):
            raise VerificationError("trial-steps", f"trial {line.trial} has a stop after its last step")
        ends: list[Trial | Variant] = [line, *line.variants]
        if not {risk for end in ends for risk in {**(end.search or {}), **(end.averages or {})}} <= {
            *plan.claim.risks,
            *RISKS,
        }:
            raise VerificationError("trial-risks", f"trial {line.trial} has means of a risk that was not planned")
        if line.config in complete:
            raise VerificationError("trial-repeated", f"trial {line.trial} was started again after it was completed")
        attempts[line.trial] = attempts.get(line.trial, 0) + 1
        if line.attempt != attempts[line.trial] or line.config != str(ConfigurationId(line.trial)):
            raise VerificationError("trial-index", f"trial {line.trial}: attempts or names are not in order")
        finished += line.status == "complete"
        for config, params in _configurations(line) if line.status == "complete" else ():
            if config in complete or not _is_of(config, line.trial):
                raise VerificationError("trial-repeated", f"{config} was completed twice")
            complete[config] = line.method, params
    if sorted(attempts) != list(range(len(attempts))) or len(attempts) > plan.search.trials:
        raise VerificationError("trial-index", "the log lacks a trial, or has more than were planned")
    for candidate in seal.candidates:
        ran = complete.get(candidate.config)
        if ran is None or not same(list(ran), [candidate.method, canonical_json.exact(candidate.params)]):
            raise VerificationError("trial-config-set", f"{candidate.config} is sealed but is no complete trial")
    ended = sum(line.status != "interrupted" for line in trials)
    if not finished <= seal.trials <= ended:
        raise VerificationError("trial-count", "the seal counts other trials than the log")


def _losses(files: Mapping[str, bytes], plan: Plan, seal: Seal) -> Any:
    configs = [candidate.config for candidate in seal.candidates]
    configs += [BASE] if plan.control is not None and configs else []
    losses = bundle_files.read_losses(files["losses.csv"], configs, plan.metrics, ragged=plan.sequential)
    for risk, unit in plan.task.units.items() if seal.candidates else ():
        of_risk, key = losses.filter(pl.col("risk") == risk), "query" if unit == "query" else "unit"
        known = sorted(set(of_risk.filter(pl.col("split") == "search")["query"].to_list()))
        listed = plan.population[risk] != "queries"
        if bool(known) != listed or (listed and hashing.sha256_json(known) != plan.split.searched.get(risk)):
            raise VerificationError("table-other-queries", f"the {risk} search rows are not those of a planned list")
        if listed and of_risk.filter(pl.col("split") == "search")[key].n_unique() != plan.split.search[risk]:
            raise VerificationError("plan-search-units", f"the {risk} search has other units than planned")
        if listed and plan.task.seed_from and plan.split.draw is None:
            _draw(of_risk, risk)
        if plan.sequential:
            continue  # the statistics check that these are the first units of the sealed order
        measured = of_risk.filter(pl.col("split") == "calibration")
        if hashing.sha256_json(sorted(set(measured["query"].to_list()))) != seal.calibration.get(risk):
            raise VerificationError("table-other-queries", f"the {risk} queries are not the sealed ones")
        if measured[key].n_unique() != plan.split.calibration[risk]:
            raise VerificationError("plan-units", f"{risk} was not measured on as many units as planned")
    return losses


def _measured(losses: pl.DataFrame, plan: Plan) -> str:
    """What the table holds of the candidates."""
    calibration = losses.filter(pl.col("split") != "search")
    scope = (
        "the first units of the sealed order, as many as each candidate was measured on"
        if plan.sequential
        else "every sealed query"
    )
    search = f", and {len(losses) - len(calibration)} of the search" if len(losses) > len(calibration) else ""
    return f"{len(calibration)} calibration losses: every candidate on {scope}, once{search}"


def _divided(losses: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Rows of candidates, and those of the base model; None without any."""
    base = losses.filter(pl.col("config") == BASE)
    return losses.filter(pl.col("config") != BASE), None if base.is_empty() else base


def _control(plan: Plan, base: pl.DataFrame | None) -> str:
    """What to report about the base model. VerificationError where the plan requires less of it than its metrics demand."""
    if plan.control is None:
        return "; the base model was not measured, so nothing shows that there was anything to remove"
    for risk, measurement in plan.metrics.items():
        kind = plan.control.get(risk)
        # of forgetting and utility the same is asked whatever measures them, so that an unknown name evades nothing
        known = risk in RISKS or built_in(metric_of(measurement))
        if kind is None or (known and kind != kind_of(risk, measurement)):
            raise VerificationError(
                "plan-control", f"the plan asks another thing of the base model's {risk} than froc does"
            )
        if base is not None and plan.sequential:
            whole = base.filter(pl.col("risk") == risk, pl.col("split") == "calibration")["query"].to_list()
            if hashing.sha256_json(sorted(whole)) != plan.split.queries[risk]:
                raise VerificationError(
                    "table-other-queries", f"the base model's {risk} queries are not the sealed ones"
                )
    return "" if base is None else f"; the base model on the same queries: {len(base)}"


def _draw(of_risk: pl.DataFrame, risk: str) -> None:
    """VerificationError where older plans' units are not divided in the seed's order.

    In older plans the auditor's seed orders units by id; the first ones go to the search, the rest to calibration. Ids
    are keyed digests of rows, so this order is all that is visible without the data. Where each unit is placed by
    itself (`draw`), nothing is visible, since visible places would allow guessed texts to be tested. Measuring again
    repeats the draw.
    """
    last = of_risk.filter(pl.col("split") == "search")["unit"].max()
    first = of_risk.filter(pl.col("split") == "calibration")["unit"].min()
    if str(last) >= str(first):
        raise VerificationError("plan-draw", f"the {risk} units were not divided in the order that the seed gives")


def same(first: Any, second: Any) -> bool:
    """Whether two float-free documents are equal as JSON; in Python, 1 equals True."""
    return canonical_json.compact(first) == canonical_json.compact(second)
