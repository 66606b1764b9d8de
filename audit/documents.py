"""The documents of a bundle, as far as a claim depends on them: plan, seal, comparison, and what a report asserts."""

from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import AfterValidator, Field, ValidationError, model_validator

from froc.audit.bundle_files import ENTRY, MANY, METHOD, POINT, RISK, Hex, Name, Stamp, Strict
from froc.errors import InputError, VerificationError
from froc.fidelity import Fidelity
from froc.measuring import measurement_text
from froc.risk.certificate import Claim
from froc.risk.claim import MIN_REPORTED_UNITS as MIN_REPORTED_UNITS
from froc.risk.planned_claim import claim_of
from froc.risk.positive_control import Kind

Role = Literal["engineer", "approver", "auditor"]


LONG = 1000
"""Most entries of a list that the page shows in full."""
Seed = Annotated[int, Field(gt=-(10**40), lt=10**40)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Setting = Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,40}$")]
"""Name of a search component."""


def _of_measurement(text: str) -> str:
    try:
        measurement_text.check(text)
    except InputError as error:
        raise ValueError(str(error)) from error
    return text


MeasurementText = Annotated[str, AfterValidator(_of_measurement)]
"""A measurement as froc writes it, so that no free text stands beside what was verified."""
Environment = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")], Annotated[str, Field(pattern=r"^[A-Za-z0-9.+_!-]{1,80}$")]
]
"""Package, python or device -> version or kind."""
LEAST = 1e-9
"""Smallest budget, confidence or weight, and their distance from 1; beyond, rounding dominates."""


class Lenient(Strict, extra="ignore"):
    """A document that may contain more than is needed here."""


class TaskPlan(Lenient):
    """The plan's entry about the task. units: risk -> sampling unit. seed_from: who chose `split_seed`, if stated."""

    name: str
    digest: str = Hex
    split_seed: Seed = 0
    seed_from: Literal["auditor"] | None = None
    units: dict[str, Literal["query", "group", "queries-by-group"]]


class ModelPlan(Lenient):
    """The base model."""

    name: str
    digest: str = Hex


class SplitPlan(Lenient):
    """How queries were divided.

    search, calibration: risk -> number of units.
    searched, queries: risk -> digest over the sorted ids of the search queries and of the calibration queries.
    draw: `by-row` where each unit is placed by itself; older plans say nothing and divide in the order of ids.
    label: by which the queries' ids were renamed (`froc.plan_identity.draw_label`); older plans have another, or none.
    """

    search: dict[str, Count]
    calibration: dict[str, Count]
    searched: dict[str, str]
    queries: dict[str, str]
    draw: Literal["by-row"] | None = None
    label: str | None = Field(default=None, max_length=64)


class SearchPlan(Lenient):
    """Number of planned trials, and of candidates that may be tested. The other fields only appear on the page."""

    trials: int = Field(ge=1, le=MANY)
    candidates: int = Field(ge=1, le=MANY)
    methods: list[Annotated[str, Field(pattern=rf"^{METHOD}$")]] = Field(default_factory=list)
    sampler: Setting = ""
    pruner: Setting = ""
    objective: Setting = ""
    seed: Seed = 0


class AfterPlan(Lenient):
    """The chain of runs that the plan continues. tasks: digests of what they removed, in order."""

    certificate: str = Hex
    model: str = Hex
    tasks: list[Annotated[str, Hex]] = Field(min_length=1, max_length=LONG)
    measured: bool


class Outside(Strict):
    """A plug-in of another package used by a run, see `froc.provenance`."""

    kind: Literal["attack", "bound", "method", "metric", "procedure"]
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    distribution: str = Field(pattern=r"^[A-Za-z0-9.+_-]{1,80}$")
    version: str = Field(pattern=r"^[A-Za-z0-9.+_-]{1,80}$")
    sha256: str = Hex
    rule: Literal["distribution", "module"]


class Plan(Lenient):
    """`plan.json`, as far as a claim depends on it."""

    format: Literal[2]
    created: str = Stamp
    task: TaskPlan
    model: ModelPlan
    budget: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Annotated[float, Field(ge=LEAST, le=1 - LEAST)]] = Field(
        min_length=1
    )
    confidence: float = Field(ge=LEAST, le=1 - LEAST)
    procedure: str
    bound: dict[str, str]
    population: dict[str, Literal["queries", "sample", "census"]]
    # some bounds take time proportional to the list
    listed: dict[str, Annotated[int, Field(ge=1, le=10**9)]]
    # older plans name no estimand; larger groups would overflow 64-bit integers
    estimand: dict[str, str] = Field(default_factory=dict)
    largest: dict[str, Annotated[int, Field(ge=1, le=10**9)]] = Field(default_factory=dict)
    # budgets as shares of the base model's score
    relative: list[str] = Field(default_factory=list)
    weights: dict[str, Annotated[float, Field(ge=LEAST, le=1)]]
    radius: float = Field(ge=0, lt=1)
    sequential: bool
    openings: int = Field(ge=1, le=MANY)
    joint: bool
    # in older plans every candidate has the same share of the level
    levels: Literal["own"] | None = None
    # declared attempts with fresh queries each
    series: int = Field(default=1, ge=1, le=MANY)
    # whether further stages may follow
    extendable: bool = False
    metrics: dict[str, MeasurementText]
    quantum: Literal[1000]
    split: SplitPlan
    search: SearchPlan
    environment: Environment
    # older plans do not list plug-ins
    plugins: list[Outside] | None = Field(default=None, max_length=LONG)
    # "kind name" -> how true to its paper; older plans do not say it
    fidelity: dict[str, Fidelity] | None = Field(default=None, max_length=LONG)
    # risks that had a name when it was written; older plans do not say it
    named_risks: list[Annotated[str, Field(pattern=rf"^{RISK}$")]] | None = Field(default=None, max_length=LONG)
    after: AfterPlan | None = None
    # older plans have no control by the base model, and none was ever extended
    control: dict[str, Kind] | None = None
    # seed by which the embedded task draws its queries for this plan
    questions: Seed | None = None
    # set where the model's tokenizer was made from the data, or holds texts of them
    tokenizer: Literal["from-the-data", "holds-forgotten-text"] | None = None
    extends: list[Annotated[str, Hex]] = Field(default_factory=list, max_length=LONG)

    @model_validator(mode="after")
    def _listed(self) -> Self:
        if any(self.population.get(risk, "queries") == "queries" for risk in self.listed):
            raise ValueError("only samples and censuses are of a list")
        return self

    @property
    def claim(self) -> Claim:
        """What the plan asks to be certified, before any opening."""
        after = None if self.after is None else self.after.model_dump()
        return claim_of({**vars(self), "task": vars(self.task), "after": after})


class SealedCandidate(Strict):
    """A configuration in testing order."""

    config: str = Name
    method: str = Field(pattern=rf"^{METHOD}$")
    params: dict[str, Any]
    weight: float = Field(ge=LEAST, le=1)
    # older seals have no weights
    weights_digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Seal(Strict):
    """`seal.json`: written before the first calibration loss."""

    format: Literal[1]
    plan: str = Hex
    candidates: list[SealedCandidate]
    search_losses: str = Hex
    trials: int = Field(ge=0, le=MANY)
    calibration: dict[str, str]
    order: list[Annotated[list[str], Field(min_length=3, max_length=3)]] | None = None
    base_weights_digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    # file name -> SHA-256 of the files beside the chosen candidate's weights
    model_files: dict[str, Annotated[str, Hex]] | None = None

    def weights_of(self, config: str | None) -> str | None:
        """Digest of a candidate's weights; None if not sealed, or sealed without one."""
        return next((candidate.weights_digest for candidate in self.candidates if candidate.config == config), None)

    @property
    def units(self) -> pl.DataFrame | None:
        """risk, unit and query of everything that was to be measured, where measuring may have stopped early; else None."""
        schema = ["risk", "unit", "query"]
        return None if self.order is None else pl.DataFrame(self.order, schema=schema, orient="row")


class SignedPlan(Strict):
    """The predicate of plan.dsse.json: plan.json without floats, and when its signer says it was signed."""

    signed: str = Stamp
    plan: dict[str, Any]


class Signer(Strict):
    """A signer by function and key, never by name."""

    role: Role
    keyid: str = Hex


class ComparedPlan(Lenient):
    """The plan of a comparison, as far as its document depends on it."""

    format: Literal[1]
    kind: Literal["comparison"]
    task: dict[str, Any]
    model: ModelPlan
    runs: list[dict[str, str]]
    metrics: dict[Literal["forgetting", "utility"], MeasurementText] = Field(min_length=2)
    units: dict[Literal["forgetting", "utility"], Literal["query", "group"]] = Field(min_length=2)
    levels: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    confidence: float = Field(ge=LEAST, le=1 - LEAST)
    openings: int = Field(ge=1, le=MANY)


def split_point(name: str) -> tuple[str, str, str]:
    """Configuration, "@" and share of a comparison's point; "", "" and the name for one without a share."""
    return name.rpartition("@")


class Mixture(Strict):
    """The share of the unlearned model in a point, and the configuration that it is a mixture of."""

    mix: float = Field(ge=0, le=1)
    entry: str | None = Field(default=None, pattern=rf"^{ENTRY}$")


class ComparedPoint(Strict):
    """A configuration mixed with the base model by the share in its name; the base model itself has none of it."""

    config: str = Field(pattern=rf"^({POINT})$")
    method: str = Field(pattern=rf"^{METHOD}$")
    params: Mixture
    weight: float

    @model_validator(mode="after")
    def _as_named(self) -> Self:
        entry, at, share = split_point(self.config)
        if f"{self.params.mix:.4f}" != (share if at else "0.0000") or self.params.entry not in (None, entry):
            raise ValueError("the point is mixed by another share than its name says")
        return self


class ComparedSeal(Lenient):
    """The seal of a comparison: what was to be measured, and the configuration of each point."""

    plan: str = Hex
    candidates: list[ComparedPoint] = Field(min_length=1)
    calibration: dict[str, str]
    stages: dict[str, dict[str, str]]
    fronts: dict[str, list[str]]
    monotone: dict[Literal["bends", "entries", "worst"], int | float]
    failed: list[Annotated[str, Field(pattern=rf"^{ENTRY}$")]]


class ComparedFile(Strict):
    """`comparison.json`: plan and seal of a comparison, and the signer's count of openings of its queries."""

    plan: dict[str, Any]
    seal: dict[str, Any]
    opening: Annotated[int, Field(ge=1, le=MANY)]
    planned: Annotated[int, Field(ge=1, le=MANY)]


class Harness(Strict):
    """The program that wrote the report."""

    name: Literal["froc"]
    version: str = Field(pattern=r"^[0-9A-Za-z.+_-]{1,40}$")


class Asserted(Strict):
    """What a report asserts without evidence in the bundle."""

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
    opening: int = Field(ge=1, le=MANY)


def parse(model: type[Strict], document: Any, check: str) -> Any:
    """A document as `model`; VerificationError `check` names the invalid field."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise VerificationError(check, f"{where or 'the document'} is not as it must be") from error
