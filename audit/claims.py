"""Evidence -> everything in a report that follows from it. The builder writes it; the verifier computes it again.

What does not follow from evidence (dates, sequence, who signed, how often the calibration queries were opened) is the
signer's word; `Asserted` is the complete list of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, ValidationError

from audit.records import POINT, RISK, Hex, Name, Stamp, Strict, Trial
from audit.signing import exact
from froc import comparison
from froc.claim import FLOOR as FLOOR
from froc.control import Control, Kind, vacuous
from froc.errors import InputError, VerificationError
from froc.losses import SCALE
from froc.risk import Candidate, Claim, certify

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


Role = Literal["engineer", "approver", "auditor"]


class Lenient(Strict, extra="ignore"):
    """A document that may say more than is needed here."""


class TaskPlan(Lenient):
    """What the plan says about the task. units: risk -> sampling unit. seed_from: who gave `split_seed`, where said."""

    name: str
    digest: str = Hex
    split_seed: int = 0
    seed_from: Literal["auditor"] | None = None
    units: dict[str, Literal["query", "group", "queries-by-group"]]


class ModelPlan(Lenient):
    """The base model."""

    name: str
    digest: str = Hex


class SplitPlan(Lenient):
    """search, calibration: risk -> units. searched, queries: risk -> digest over the sorted ids of either's queries. draw: how
    units were divided: each by its own place, or (in older plans, which say nothing) in the order of their ids."""

    search: dict[str, int]
    calibration: dict[str, int]
    searched: dict[str, str]
    queries: dict[str, str]
    draw: Literal["by-row"] | None = None


class SearchPlan(Lenient):
    """How many trials were planned, and how many of them may be tested. The rest is said on the page alone."""

    trials: int = Field(ge=1)
    candidates: int = Field(ge=1)
    methods: list[str] = Field(default_factory=list)
    sampler: str = ""
    pruner: str = ""
    objective: str = ""
    seed: int = 0


class AfterPlan(Lenient):
    """The runs that a plan goes on after. tasks: digests of what they removed, in their order."""

    certificate: str = Hex
    model: str = Hex
    tasks: list[Annotated[str, Hex]] = Field(min_length=1)
    measured: bool


class Plan(Lenient):
    """`plan.json`, as far as a claim depends on it."""

    format: Literal[2]
    created: str = Stamp
    task: TaskPlan
    model: ModelPlan
    budget: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    confidence: float = Field(gt=0, lt=1)
    procedure: str
    bound: dict[str, str]
    population: dict[str, Literal["queries", "sample", "census"]]
    # some bounds take time that grows with the list; nobody lists more
    listed: dict[str, Annotated[int, Field(ge=1, le=10**9)]]
    # older plans name no estimand, and no group is larger than what whole numbers of 64 bits can be tilted by
    estimand: dict[str, str] = Field(default_factory=dict)
    largest: dict[str, Annotated[int, Field(ge=1, le=10**9)]] = Field(default_factory=dict)
    # budgets that are shares of what the base model scored
    relative: list[str] = Field(default_factory=list)
    weights: dict[str, Annotated[float, Field(gt=0, le=1)]]
    radius: float = Field(ge=0, lt=1)
    sequential: bool
    openings: int = Field(ge=1)
    joint: bool
    metrics: dict[str, str]
    quantum: Literal[1000]
    split: SplitPlan
    search: SearchPlan
    environment: dict[str, str]
    after: AfterPlan | None = None
    # plans of older versions ask nothing of the base model, and none was ever extended
    control: dict[str, Kind] | None = None
    extends: list[Annotated[str, Hex]] = Field(default_factory=list)

    @property
    def claim(self) -> Claim:
        """What the plan wants to have certified, before any opening."""
        return Claim(
            budget=dict(sorted(self.budget.items())),
            bound=dict(sorted(self.bound.items())),
            unit=dict(sorted(self.task.units.items())),
            confidence=self.confidence,
            procedure=self.procedure,
            population=dict(sorted(self.population.items())),
            listed=dict(sorted(self.listed.items())),
            weights=dict(sorted(self.weights.items())),
            radius=self.radius,
            openings=self.openings,
            joint=self.joint,
            sequential=self.sequential,
            unmeasured=0 if self.after is None or self.after.measured else len(self.after.tasks),
            largest=dict(sorted(self.largest.items())),
            estimand=dict(sorted(self.estimand.items())),
            keyed=bool(self.estimand),
            relative=tuple(sorted(set(self.relative))),
        )


class SealedCandidate(Strict):
    """A configuration in testing order."""

    config: str = Name
    method: str
    params: dict[str, Any]
    weight: float = Field(gt=0, le=1)


class Seal(Strict):
    """`seal.json`: written before the first calibration loss."""

    format: Literal[1]
    plan: str = Hex
    candidates: list[SealedCandidate]
    search_losses: str = Hex
    trials: int = Field(ge=0)
    calibration: dict[str, str]
    order: list[Annotated[list[str], Field(min_length=3, max_length=3)]] | None = None

    @property
    def units(self) -> pl.DataFrame | None:
        """risk, unit and query of everything that was to be measured, where measuring may have stopped early."""
        schema = ["risk", "unit", "query"]
        return None if self.order is None else pl.DataFrame(self.order, schema=schema, orient="row")


class SignedPlan(Strict):
    """The predicate of plan.dsse.json: plan.json without floats, and when its signer says it was signed."""

    signed: str = Stamp
    plan: dict[str, Any]


class Signer(Strict):
    """Who signed, by function and key; never by name."""

    role: Role
    keyid: str = Hex


class ComparedPlan(Lenient):
    """The plan of a comparison, as far as its document depends on it."""

    format: Literal[1]
    kind: Literal["comparison"]
    task: dict[str, Any]
    model: ModelPlan
    runs: list[dict[str, str]]
    metrics: dict[Literal["forgetting", "utility"], str] = Field(min_length=2)
    units: dict[Literal["forgetting", "utility"], Literal["query", "group"]] = Field(min_length=2)
    levels: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    confidence: float = Field(gt=0, lt=1)
    openings: int = Field(ge=1)


NAME = "[a-z0-9_]{1,40}"
"""Of a method; one that goes around another has that in brackets."""


class ComparedPoint(Strict):
    """A configuration mixed with the base model, by name."""

    config: str = Field(pattern=rf"^({POINT})$")
    method: str = Field(pattern=rf"^{NAME}(\({NAME}(\({NAME}(\({NAME}\))?\))?\))?$")
    params: dict[str, Any]
    weight: float


class ComparedSeal(Lenient):
    """The seal of a comparison: what was to be measured, and what each point stands for."""

    plan: str = Hex
    candidates: list[ComparedPoint] = Field(min_length=1)
    calibration: dict[str, str]
    stages: dict[str, dict[str, str]]
    fronts: dict[str, list[str]]
    monotone: dict[str, Any]
    failed: list[str]


class ComparedFile(Strict):
    """`comparison.json`: plan and seal of a comparison, and the openings of its queries, which are the signer's count."""

    plan: dict[str, Any]
    seal: dict[str, Any]
    opening: Annotated[int, Field(ge=1)]
    planned: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Compared:
    """A comparison, read and checked."""

    plan: ComparedPlan
    seal: ComparedSeal
    losses: pl.DataFrame
    opening: int
    planned: int

    def document(self) -> dict[str, Any]:
        """What follows from it."""
        plan, seal = self.plan.model_dump(), self.seal.model_dump()
        return comparison.document(self.losses, seal, plan, self.opening, self.planned)


class Harness(Strict):
    """What wrote the report."""

    name: Literal["froc"]
    version: str = Field(pattern=r"^[0-9A-Za-z.+_-]{1,40}$")


class Asserted(Strict):
    """What a report says that no evidence in the bundle can show."""

    schema_: Literal["1"] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sequence: int = Field(ge=1)
    issued: str = Stamp
    expires: str = Stamp
    supersedes: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    signers: list[Signer] = Field(min_length=1)
    harness: Harness
    assurance: Literal["self_attested"] = Field(alias="assuranceLevel")
    asked: str | None
    opening: int = Field(ge=1)


@dataclass(frozen=True)
class Facts:
    """Evidence, read and checked. files: digests of the model's files, empty where the report covers no model.

    compared: a comparison of methods on the same task and base model, where one was signed with it. plan_signers: trusted
    keys that signed the plan. base: rows of the base model, None where the plan asks for none.
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

    @property
    def control(self) -> Control | None:
        """The base model's rows, where the plan asks for them."""
        return None if self.base is None or self.plan.control is None else Control(self.base, self.plan.control)

    @property
    def first(self) -> str:
        """When the first trial was started, by the log; empty where none was."""
        return min((trial.started for trial in self.trials), default="")


def parse(model: type[Strict], document: Any, check: str) -> Any:
    """A document as `model`; VerificationError `check` naming the field that is not as it must be."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise VerificationError(check, f"{where or 'the document'} is not as it must be") from error


def derive(facts: Facts, opening: int, asked: str | None) -> dict[str, Any]:
    """The part of a report that follows from evidence, float-free.

    opening: which opening of the calibration queries this was. asked: a candidate to report on, None for the chosen.
    Raises VerificationError where the evidence allows no certificate.
    """
    plan = facts.plan
    certificate = certificate_of(facts, opening)
    config = asked or certificate["chosen"] or (certificate["closest"] or {}).get("config")
    verdict = verdict_of(certificate, config)
    return {
        "model": {
            "base": {"name": plan.model.name, "digest": plan.model.digest},
            "config": config,
            "format": "safetensors",
            "files": len(facts.files),
            "treeDigest": {"alg": "dirHash-sha256", "value": facts.tree},
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
        # reports on other runs stay as they were
        **({"after": plan.after.model_dump()} if plan.after else {}),
        **({"comparison": exact(_compared(facts.compared))} if facts.compared else {}),
    }  # fmt: skip


def _compared(compared: Compared) -> dict[str, Any]:
    try:
        return compared.document()
    except (InputError, KeyError) as error:
        raise VerificationError("comparison-refused", "the evidence allows no comparison under its plan") from error


def certificate_of(facts: Facts, opening: int) -> dict[str, Any]:
    """The certificate, computed from integer losses, sealed candidates and the plan's claim alone."""
    claim = replace(facts.plan.claim, opening=opening)
    candidates = [Candidate(c.config, c.method, c.params, c.weight) for c in facts.seal.candidates]
    try:
        return certify(facts.losses, candidates, claim, facts.seal.units, facts.control)
    except (InputError, KeyError) as error:
        raise VerificationError("statistics-refused", "the evidence allows no certificate under this plan") from error


def verdict_of(certificate: Mapping[str, Any], config: str | None) -> str:
    """PASS: certified. FAIL: measured above a budget. NOT_ESTABLISHED: measured within, but not surely enough, or vacuous."""
    if config is None:
        return NOT_ESTABLISHED
    row = next(row for row in certificate["candidates"] if row["config"] == config)
    if row["certified"]:
        return PASS
    above = any(row["empirical"][risk] > alpha for risk, alpha in certificate["budget"].items())
    return FAIL if above else NOT_ESTABLISHED


def plan_status(facts: Facts) -> str:
    """Whether the plan's signer says that it was signed before the first trial started."""
    return PLAN_SIGNED if facts.plan_signed <= facts.first else PLAN_ASSERTED


def effort(plan: Plan, trials: Sequence[Trial]) -> dict[str, int]:
    """Trials planned and started, and how the started ones ended."""
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
        SMALL: smallest(facts) < FLOOR,
    }
    return [*LIMITS, *(name for name, holds in more.items() if holds)]


def smallest(facts: Facts) -> int:
    """The fewest sampling units that any number of the report is a mean over; `FLOOR` where there are no numbers."""
    tables: list[tuple[pl.DataFrame, Mapping[Any, str]]] = [(facts.losses, facts.plan.task.units)]
    if facts.compared is not None:
        tables.append((facts.compared.losses, facts.compared.plan.units))
    counts = [FLOOR]
    for table, units in tables:
        for risk, unit in units.items():
            some = table.filter(pl.col("risk") == risk).group_by("config")
            column = "query" if unit == "query" else "unit"
            counts += some.agg(pl.col(column).n_unique().alias("units"))["units"].to_list()
    return min(counts)
