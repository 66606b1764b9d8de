"""Evidence -> everything in a report that follows from it. The builder writes it; the verifier computes it again.

What does not follow from evidence (dates, sequence, signers, number of openings of the calibration queries) is the
signer's claim; `Asserted` lists it completely.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from froc.audit.bundle_files import Trial
from froc.audit.canonical_json import exact
from froc.audit.documents import ComparedPlan, ComparedSeal, Plan, Seal
from froc.audit.further_stages import SealedStage
from froc.comparison import document as comparison
from froc.errors import InputError, VerificationError
from froc.loss_table import SCALE
from froc.risk.certificate import Candidate, certify
from froc.risk.claim import MIN_REPORTED_UNITS as MIN_REPORTED_UNITS
from froc.risk.positive_control import Control, vacuous

PREDICATE = "urn:froc:unlearning-audit:1"
PLAN_PREDICATE = "urn:froc:unlearning-plan:1"
PASS, FAIL, NOT_ESTABLISHED = "PASS", "FAIL", "NOT_ESTABLISHED"
PLAN_SIGNED, PLAN_ASSERTED = "signed-before-first-trial", "asserted-signed-after-run"
LIMITS = (
    "not-erasure", "not-anonymity", "self-reported-losses", "tested-population-only", "one-artefact-only",
    "dates-are-the-signers-word", "openings-are-the-signers-count",
)  # fmt: skip
"""Limits that every report states; no signer can remove one."""
SMALL = "small-sample"


@dataclass(frozen=True)
class Compared:
    """A comparison of methods, read and checked."""

    plan: ComparedPlan
    seal: ComparedSeal
    losses: pl.DataFrame
    opening: int
    planned: int

    def document(self) -> dict[str, Any]:
        """The comparison's results, which follow from it."""
        plan, seal = self.plan.model_dump(), self.seal.model_dump()
        return comparison.document(self.losses, seal, plan, self.opening, self.planned)


@dataclass(frozen=True)
class Facts:
    """Evidence, read and checked.

    files: digests of the model's files; empty if the report covers no model.
    compared: a comparison of methods on the same task and base model, if one was signed with it.
    plan_signers: trusted keys that signed the plan.
    base: rows of the base model; None if the plan requires none.
    stages: further stages with which the run was continued.
    """

    plan: Plan
    plan_digest: str
    plan_signed: str
    seal: Seal
    trials: tuple[Trial, ...]
    losses: pl.DataFrame
    files: Mapping[str, str]
    tree: str | None
    compared: Compared | None = None
    plan_signers: tuple[str, ...] = ()
    base: pl.DataFrame | None = None
    stages: tuple[SealedStage, ...] = ()

    @property
    def control(self) -> Control | None:
        """The base model's rows, where the plan requires them."""
        return None if self.base is None or self.plan.control is None else Control(self.base, self.plan.control)

    @property
    def stage_dates(self) -> list[str]:
        """When each further stage was sealed."""
        return [stage.created for stage in self.stages]

    @property
    def first(self) -> str:
        """Start of the first trial, by the log; empty without trials."""
        return min((trial.started for trial in self.trials), default="")


def derive(facts: Facts, opening: int, requested: str | None) -> dict[str, Any]:
    """The part of a report that follows from evidence, without floats.

    opening: which opening of the calibration queries this was.
    requested: a candidate to report on; None for the chosen one.

    VerificationError where the evidence allows no certificate.
    """
    plan = facts.plan
    certificate = certificate_of(facts, opening)
    config = requested or certificate["chosen"] or (certificate["closest"] or {}).get("config")
    verdict = verdict_of(certificate, config)
    return {
        "model": {
            "base": {"name": plan.model.name, "digest": plan.model.digest},
            "config": config,
            "format": "safetensors",
            "files": len(facts.files),
            "treeDigest": {"alg": "dirHash-sha256", "value": facts.tree},
            **_weights(facts, config),
        },
        "plan": {
            "sha256": facts.plan_digest, "created": plan.created, "signed": facts.plan_signed,
            "status": plan_status(facts), "task": {"name": plan.task.name, "digest": plan.task.digest},
            **({"auditSeed": str(plan.task.split_seed)} if plan.task.seed_from else {}),
        },
        "method": {
            "procedure": plan.procedure, "bound": dict(sorted(plan.bound.items())), "quantum": SCALE,
            "metric": dict(sorted(plan.metrics.items())), "selectionRule": "widest-margin-in-the-worst-risk",
        },
        "certificate": exact(certificate),
        "claims": [
            {
                "metric": risk, "comparator": "<=", "threshold": exact(alpha), "passed": verdict == PASS,
                **({"verdict": NOT_ESTABLISHED} if risk in vacuous(certificate.get("base")) else {}),
            }
            for risk, alpha in certificate["budget"].items()
        ],
        "config": config,
        "chosen": certificate["chosen"],
        "verdict": verdict,
        "trials": effort(plan, facts.trials),
        "limits": limits(facts, opening),
        "environment": plan.environment,
        # only where there are any, so that other reports do not change
        **({"plugins": [entry.model_dump() for entry in plan.plugins]} if plan.plugins else {}),
        **({"after": plan.after.model_dump()} if plan.after else {}),
        **({"comparison": exact(_compared(facts.compared))} if facts.compared else {}),
    }  # fmt: skip


def _weights(facts: Facts, config: str | None) -> dict[str, Any]:
    """Digests of the measured weights and of the base model's; empty if the seal has none."""
    sealed = facts.seal.weights_of(config)
    if sealed is None:
        return {}
    return {"weightsDigest": {"alg": "tensors-sha256", "value": sealed, "base": facts.seal.base_weights_digest}}


def _compared(compared: Compared) -> dict[str, Any]:
    try:
        return compared.document()
    except (InputError, KeyError) as error:
        raise VerificationError("comparison-refused", "the evidence allows no comparison under its plan") from error


def certificate_of(facts: Facts, opening: int) -> dict[str, Any]:
    """The certificate, computed only from integer losses, sealed candidates and the plan's claim."""
    claim = replace(facts.plan.claim, opening=opening, stages=tuple(stage.of_claim for stage in facts.stages))
    candidates = [Candidate(c.config, c.method, c.params, c.weight, c.weights_digest) for c in facts.seal.candidates]
    try:
        return certify(facts.losses, candidates, claim, facts.seal.units, facts.control)
    except (InputError, KeyError) as error:
        raise VerificationError("statistics-refused", "the evidence allows no certificate under this plan") from error


def verdict_of(certificate: Mapping[str, Any], config: str | None) -> str:
    """PASS: certified. FAIL: measured above a budget. NOT_ESTABLISHED: measured within all budgets without enough confidence, or vacuous."""
    if config is None:
        return NOT_ESTABLISHED
    row = next(row for row in certificate["candidates"] if row["config"] == config)
    if row["certified"]:
        return PASS
    above = any(row["empirical"][risk] > alpha for risk, alpha in certificate["budget"].items())
    return FAIL if above else NOT_ESTABLISHED


def plan_status(facts: Facts) -> str:
    """Whether the plan's signature is dated before the first trial."""
    return PLAN_SIGNED if facts.plan_signed <= facts.first else PLAN_ASSERTED


def effort(plan: Plan, trials: Sequence[Trial]) -> dict[str, int]:
    """Number of trials planned and started, and of each way in which they ended."""
    ended: Counter[str] = Counter(trial.status for trial in trials)
    return {
        "planned": plan.search.trials,
        "started": len(trials),
        "completed": ended["complete"],
        "pruned": ended["pruned"],
        "failed": ended["diverged"] + ended["out-of-memory"] + ended["timed-out"] + ended["failed"],
        "interrupted": ended["interrupted"],
    }


def limits(facts: Facts, opening: int) -> list[str]:
    """Ids of the limits that this report must state; their words are fixed in `rendering`."""
    more = {
        "plan-signed-after-run": plan_status(facts) == PLAN_ASSERTED,
        "unplanned-opening": opening > facts.plan.openings,
        "earlier-not-measured": facts.plan.after is not None and not facts.plan.after.measured,
        "no-model-covered": not facts.files,
        "tokenizer-from-the-data": bool(facts.files) and facts.plan.tokenizer is not None,
        SMALL: smallest(facts) < MIN_REPORTED_UNITS,
    }
    return [*LIMITS, *(name for name, holds in more.items() if holds)]


def smallest(facts: Facts) -> int:
    """Smallest number of sampling units behind any number of the report; `MIN_REPORTED_UNITS` if there are no numbers."""
    tables: list[tuple[pl.DataFrame, Mapping[Any, str]]] = [(facts.losses, facts.plan.task.units)]
    if facts.compared is not None:
        tables.append((facts.compared.losses, facts.compared.plan.units))
    counts = [MIN_REPORTED_UNITS]
    for table, units in tables:
        for risk, unit in units.items():
            by_config = table.filter(pl.col("risk") == risk).group_by("config")
            column = "query" if unit == "query" else "unit"
            counts += by_config.agg(pl.col(column).n_unique().alias("units"))["units"].to_list()
    return min(counts)
