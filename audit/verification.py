"""Numbered checks over a bundle, by someone who trusts public keys and nothing else.

The order is the argument: bytes, then who signed them, then what they mean, then whether it follows from the evidence.
Nothing is believed that can be computed. The first check that fails raises VerificationError with its short name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from audit import claims, comparisons, records, reexecution, rendering, signing
from audit import trust as trusting
from audit.claims import Asserted, Facts, Plan, Seal, SignedPlan
from audit.records import Trial
from audit.reexecution import Reexecution
from audit.trust import Trust
from froc import digest
from froc.errors import InputError, VerificationError

CLOCK_SKEW = timedelta(minutes=5)
SUFFIX = ".froc-audit"
STEPS = (
    "files", "signature", "statement", "dates", "evidence", "subject", "model", "plan", "seal", "trials", "losses",
    "comparison", "statistics", "page", "reexecution",
)  # fmt: skip
"""Every check in its order, numbered from 1: the same numbers in code, output and docs/audit.md. Some are left out where
there is nothing to check: no model given, no comparison, nothing measured again."""
STAMP = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Check:
    """A check that held: its place in the order, its name, and what was seen."""

    number: int
    name: str
    passed: str


@dataclass(frozen=True)
class Result:
    """A bundle that verifies. verdict: PASS | FAIL | NOT_ESTABLISHED, recomputed.

    fingerprint: of the (first) trusted key that signed. tree: digest of the model's names and contents, None where the
    report covers no model. model_checked: whether the model on disk was compared. report: the predicate. payload: SHA-256
    of the signed bytes. roles: keyid of each signer -> its role by the trust file; empty where keys were given by hand. reexecution:
    what measuring again has shown, where the bundle holds that. facts, files: the evidence and the bytes that were verified.
    """

    verdict: str
    checks: tuple[Check, ...]
    fingerprint: str
    signers: tuple[str, ...]
    tree: str | None
    model_checked: bool
    plan_status: str
    report: Mapping[str, Any]
    payload: str
    roles: Mapping[str, str]
    reexecution: Reexecution | None
    facts: Facts = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def assurance(self) -> str:
        """What stands behind the losses: self_attested, or reproduced where others measured a sample again."""
        return self.reexecution.assurance if self.reexecution else str(self.report["assuranceLevel"])


@dataclass(frozen=True)
class Statement:
    """A verified in-toto statement. subject: name -> SHA-256. payload: SHA-256 of its bytes."""

    subject: Mapping[str, str]
    predicate: Mapping[str, Any]
    signers: tuple[str, ...]
    payload: str


class Log:
    """Checks that held so far, in order."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def held(self, name: str, passed: str) -> None:
        """Write down the next check."""
        self.checks.append(Check(STEPS.index(name) + 1, name, passed))


def verify(
    bundle: Path,
    *,
    keys: Sequence[Path] = (),
    trust: Path | None = None,
    model: Path | None = None,
    threshold: int = 1,
    now: datetime | None = None,
    min_sequence: int = 1,
    audit_seed: int | None = None,
) -> Result:
    """Check a bundle against trusted public keys, and against the model folder where one is given.

    trust: a trust file, instead of keys and threshold. threshold: how many different trusted keys must have signed the report. now: aware time, the present by default.
    audit_seed: what an auditor gave for the draw, which the plan must then say.
    Raises InputError where the arguments cannot be used, VerificationError at the first check that fails.
    """
    if bool(keys) == (trust is not None):
        raise InputError("give the signer's public key, received apart from the bundle, or a trust file, and not both")
    trusted = trusting.read(trust) if trust else Trust(tuple(map(signing.load_public, keys)), threshold)
    return check(bundle, trusted, model=model, now=now, min_sequence=min_sequence, audit_seed=audit_seed)


def check(
    bundle: Path,
    trusted: Trust | Sequence[signing.PublicKey],
    *,
    model: Path | None = None,
    now: datetime | None = None,
    min_sequence: int = 1,
    audit_seed: int | None = None,
) -> Result:
    """`verify` with keys that are loaded already."""
    for folder, kind in ((bundle, f"the {SUFFIX} folder"), (model, "the model's folder")):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder} is no folder; give {kind}")
    trust = trusted if isinstance(trusted, Trust) else Trust(tuple(trusted))
    log = Log()
    files = records.read_bundle(bundle)
    log.held("files", f"{len(files)} files, none unlisted, linked or too large")
    report = _statement(files["report.dsse.json"], trust.keys, trust.threshold, claims.PREDICATE)
    log.held("signature", f"signed by {_signed_by(report.signers, trust)}; {trust.threshold} needed")
    said = _asserted(report)
    trust.refuse(report.signers, said.signers)
    log.held("statement", "an in-toto statement of froc's report type, no floats, no duplicate keys")
    _dates(said, now or datetime.now(UTC), max(min_sequence, trust.min_sequence))
    log.held("dates", f"issued {said.issued}, expires {said.expires}, sequence {said.sequence}")
    _evidence(report.predicate.get("evidence"), files)
    log.held("evidence", "every evidence file has the digest and size that were signed")
    covered = _subject(report, digest.of_bytes(files["plan.json"]))
    log.held("subject", f"{len(covered)} model file(s)" if covered else "no model, the plan alone")
    if model is not None:
        _model(covered, model)
        log.held("model", "the model folder holds exactly the files that were signed")
    facts = read(files, trust.keys, covered, log)
    _audit_seed(facts.plan, audit_seed)
    derived = _derived(report.predicate, facts, said)
    log.held("statistics", "p-values, bounds, certified configurations, choice and verdict, computed again")
    if files["report.html"] != rendering.html(report.predicate, facts).encode("utf-8"):
        raise VerificationError("html-not-rendering-of-signed-data", "report.html does not show what was signed")
    log.held("page", "report.html is the rendering of the signed report")
    again = _again(files, trust, facts, report)
    if again is not None:
        log.held("reexecution", again.sentence)
    return Result(
        verdict=derived["verdict"],
        checks=tuple(log.checks),
        fingerprint=report.signers[0],
        signers=report.signers,
        tree=facts.tree,
        model_checked=model is not None,
        plan_status=derived["plan"]["status"],
        report=report.predicate,
        payload=report.payload,
        roles={keyid: trust.roles[keyid] for keyid in report.signers if keyid in trust.roles},
        reexecution=again,
        facts=facts,
        files=files,
    )


def _again(files: Mapping[str, bytes], trust: Trust, facts: Facts, report: Statement) -> Reexecution | None:
    if reexecution.NAME not in files:
        return None
    try:
        done = _statement(files[reexecution.NAME], trust.keys, 1, reexecution.PREDICATE)
    except VerificationError as error:
        if error.check != "signature-threshold":
            raise
        raise VerificationError(
            "reexecution-signer",
            f"{reexecution.NAME} is signed by no trusted key; trust who measured again, or take the file out",
        ) from error
    return reexecution.check(
        done.subject, done.predicate, done.signers, facts, files["losses.csv"], report.predicate, report.payload
    )


def _signed_by(signers: Sequence[str], trust: Trust) -> str:
    if not trust.roles:
        return f"{len(signers)} trusted key(s)"
    return ", ".join(f"{trust.roles[keyid]} {keyid[:16]}" for keyid in signers)


def read(
    files: Mapping[str, bytes], trusted: Sequence[signing.PublicKey], covered: Mapping[str, str], log: Log
) -> Facts:
    """The evidence of a bundle; the builder reads its own with this, too.

    files: a bundle's, the report's apart. covered: model file -> digest, empty for none.
    """
    plan, signed = _plan(files, trusted)
    log.held("plan", "the plan is signed by a trusted key and is what trials and seal refer to")
    seal = _seal(files, plan)
    log.held("seal", f"{len(seal.candidates)} candidate(s) sealed under this plan")
    trials = records.read_trials(files["trials.jsonl"])
    plan_digest = digest.of_bytes(files["plan.json"])
    _trials(trials, plan, seal, plan_digest)
    log.held("trials", f"{len(trials)} started trial(s), every candidate among the complete ones, none run twice")
    losses = _losses(files, plan, seal)
    log.held("losses", f"{len(losses)} calibration losses: every candidate on every sealed query, once")
    tree = digest.of_tree(dict(covered)) if covered else None
    compared = comparisons.read(files, plan) if "comparison.json" in files else None
    if compared is not None:
        log.held("comparison", f"{len(compared.losses)} losses of {len(compared.seal.candidates)} sealed points")
    return Facts(plan, plan_digest, signed, seal, trials, losses, covered, tree, compared)


def _statement(data: bytes, keys: Sequence[signing.PublicKey], threshold: int, kind: str) -> Statement:
    payload, signers = signing.verify(data, keys, threshold)
    found = signing.strict_json(payload)
    if not isinstance(found, dict) or found.get("_type") != signing.STATEMENT_TYPE:
        raise VerificationError("statement-type", f"the payload is no {signing.STATEMENT_TYPE}")
    if found.get("predicateType") != kind:
        raise VerificationError("predicate-type", f"the statement is not of type {kind}")
    if set(found) != {"_type", "subject", "predicateType", "predicate"} or not isinstance(found["predicate"], dict):
        raise VerificationError("statement-shape", "a statement has a type, subjects and a predicate, nothing else")
    return Statement(_subjects(found["subject"]), found["predicate"], signers, digest.of_bytes(payload))


def _subjects(listed: Any) -> dict[str, str]:
    if not isinstance(listed, list) or not listed:
        raise VerificationError("subject-name-or-digest", "the statement is about nothing")
    found: dict[str, str] = {}
    for item in listed:
        try:
            (name, hashes), count = (item["name"], item["digest"]), len(item)
            value = hashes["sha256"]
        except (TypeError, KeyError) as error:
            raise VerificationError("subject-name-or-digest", "a subject has no name or no SHA-256") from error
        texts = isinstance(name, str) and isinstance(value, str)
        if count != 2 or not texts or set(hashes) != {"sha256"} or len(value) != 64 or value.strip("0123456789abcdef"):
            raise VerificationError("subject-name-or-digest", "a subject has a name and a SHA-256, nothing else")
        if name in found:
            raise VerificationError("subject-duplicate", "two subjects have the same name")
        found[name] = value
    return found


def _asserted(report: Statement) -> Asserted:
    names = [field.alias or name for name, field in Asserted.model_fields.items()]
    said: Asserted = claims.parse(
        Asserted, {n: report.predicate[n] for n in names if n in report.predicate}, "report-shape"
    )
    named = [signer.keyid for signer in said.signers]
    if not set(named) <= set(report.signers) or len(set(named)) != len(named):
        raise VerificationError("signers-differ", "the report names a signer whose trusted key did not sign it")
    return said


def _moment(stamp: str) -> datetime:
    try:
        return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
    except ValueError as error:
        raise VerificationError("bad-timestamp", "a date is no RFC 3339 time in UTC") from error


def _dates(said: Asserted, now: datetime, min_sequence: int) -> None:
    issued, expires = _moment(said.issued), _moment(said.expires)
    if issued > now + CLOCK_SKEW:
        raise VerificationError("issued-in-future", f"the report says it was issued at {said.issued}")
    if expires <= now or expires <= issued:
        raise VerificationError("expired", f"the report expired at {said.expires}; ask for a new one")
    if said.sequence < min_sequence:
        raise VerificationError("rollback", f"report {said.sequence} is older than report {min_sequence}")


def _evidence(listed: Any, files: Mapping[str, bytes]) -> None:
    """Compare in the list's own order of names; report.html last, so that a page alone is never blamed on others."""
    now = records.listing(files)
    if not isinstance(listed, list) or len(listed) != len(now):
        raise VerificationError("evidence-list", "the report does not list the bundle's files")
    for was, found in zip(listed, now, strict=True):
        if not _same(was, found):
            raise VerificationError(
                f"evidence-digest:{found['name']}", f"{found['name']} is not the file that was signed"
            )


def _subject(report: Statement, plan_digest: str) -> Mapping[str, str]:
    """The model's files; empty where the report covers none, which it then says by being about its plan."""
    if report.subject == {"plan.json": plan_digest}:
        return {}
    records.refuse_model_names(list(report.subject))
    if list(report.subject) != sorted(report.subject, key=str.encode):
        raise VerificationError("subject-name-or-digest", "the subjects are not sorted by name")
    return report.subject


def _model(covered: Mapping[str, str], folder: Path) -> None:
    found = records.model_files(folder)
    if found != dict(covered):
        missing, extra = sorted(covered.keys() - found.keys()), sorted(found.keys() - covered.keys())
        changed = sorted(name for name in covered.keys() & found.keys() if covered[name] != found[name])
        counts = f"{len(changed)} file(s) changed, {len(missing)} missing, {len(extra)} not signed"
        raise VerificationError("model-mismatch", f"{counts}; this is not the model that the report is about")


def _plan(files: Mapping[str, bytes], keys: Sequence[signing.PublicKey]) -> tuple[Plan, str]:
    statement = _statement(files["plan.dsse.json"], keys, 1, claims.PLAN_PREDICATE)
    signed: SignedPlan = claims.parse(SignedPlan, statement.predicate, "plan-shape")
    _moment(signed.signed)
    if statement.subject != {"plan.json": digest.of_bytes(files["plan.json"])}:
        raise VerificationError("plan-digest", "plan.json is not the plan that was signed")
    document = signing.strict_json(files["plan.json"], decimals=True)
    if not _same(signing.exact(document), signed.plan):
        raise VerificationError("plan-digest", "plan.json says something else than the signed plan")
    plan: Plan = claims.parse(Plan, document, "plan-shape")
    _moment(plan.created)
    risks = set(plan.claim.risks) if set(plan.weights) <= set(plan.bound) else set()
    for name in ("bound", "metrics", "population"):
        if getattr(plan, name).keys() != risks:
            raise VerificationError("plan-shape", f"the plan's {name} are not those of its budget")
    if any(some.keys() != risks for some in (plan.task.units, plan.split.calibration, plan.split.search)):
        raise VerificationError("plan-shape", "the plan's sampling units are not those of its budget")
    return plan, signed.signed


def _seal(files: Mapping[str, bytes], plan: Plan) -> Seal:
    seal: Seal = claims.parse(Seal, signing.strict_json(files["seal.json"], decimals=True), "seal-shape")
    if seal.plan != digest.of_bytes(files["plan.json"]):
        raise VerificationError("seal-other-plan", "the seal was made under another plan")
    configs = [candidate.config for candidate in seal.candidates]
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
    """A sealed order names the sealed queries, each once, in as many units as planned."""
    for risk, unit in plan.task.units.items():
        some = order.filter(pl.col("risk") == risk)
        if digest.of_json(sorted(some["query"].to_list())) != seal.calibration.get(risk):
            raise VerificationError("seal-order", "the sealed order is not one of the sealed calibration queries")
        if some["query" if unit == "query" else "unit"].n_unique() != plan.split.calibration[risk]:
            raise VerificationError("plan-units", f"{risk} was not sealed on as many units as planned")


def _configurations(line: Trial) -> list[tuple[str, dict[str, Any]]]:
    """Name and hyperparameters of a trial's end, and of each stop and mix of it."""
    others = [(one.config, {**line.params, "stop": one.stop, "mix": one.mix}) for one in line.variants]
    return [(line.config, dict(line.params)), *others]


def _trials(trials: Sequence[Trial], plan: Plan, seal: Seal, plan_digest: str) -> None:
    attempts: dict[int, int] = {}
    complete: dict[str, tuple[str, Any]] = {}
    finished = 0
    for line in trials:
        if line.plan != plan_digest:
            raise VerificationError("trial-other-plan", f"trial {line.trial} was started under another plan")
        if line.started < plan.created:
            raise VerificationError("trial-before-plan", f"trial {line.trial} was started before the plan existed")
        attempts[line.trial] = attempts.get(line.trial, 0) + 1
        if line.attempt != attempts[line.trial] or (line.config[:5] != f"c{line.trial:04d}"[:5]):
            raise VerificationError("trial-index", f"trial {line.trial}: attempts or names are not in order")
        finished += line.status == "complete"
        for config, params in _configurations(line) if line.status == "complete" else ():
            if config in complete or not config.startswith(line.config):
                raise VerificationError("trial-repeated", f"{config} was completed twice")
            complete[config] = line.method, params
    if sorted(attempts) != list(range(len(attempts))) or len(attempts) > plan.search.trials:
        raise VerificationError("trial-index", "the log lacks a trial, or has more than were planned")
    for candidate in seal.candidates:
        ran = complete.get(candidate.config)
        if ran is None or not _same(list(ran), [candidate.method, signing.exact(candidate.params)]):
            raise VerificationError("trial-config-set", f"{candidate.config} is sealed but is no complete trial")
    ended = sum(line.status != "interrupted" for line in trials)
    if not finished <= seal.trials <= ended:
        raise VerificationError("trial-count", "the seal counts other trials than the log")


def _losses(files: Mapping[str, bytes], plan: Plan, seal: Seal) -> Any:
    configs = [candidate.config for candidate in seal.candidates]
    losses = records.read_losses(files["losses.csv"], configs, plan.metrics, ragged=plan.sequential)
    for risk, unit in plan.task.units.items() if seal.candidates else ():
        of_risk, key = losses.filter(pl.col("risk") == risk), "query" if unit == "query" else "unit"
        known = sorted(set(of_risk.filter(pl.col("split") == "search")["query"].to_list()))
        listed = plan.population[risk] != "queries"
        if bool(known) != listed or (listed and digest.of_json(known) != plan.split.searched.get(risk)):
            raise VerificationError("table-other-queries", f"the {risk} search rows are not those of a planned list")
        if listed and plan.task.seed_from:
            _draw(of_risk, risk)
        if plan.sequential:
            continue  # whether these are the first units of the sealed order is checked with the statistics
        some = of_risk.filter(pl.col("split") == "calibration")
        if digest.of_json(sorted(set(some["query"].to_list()))) != seal.calibration.get(risk):
            raise VerificationError("table-other-queries", f"the {risk} queries are not the sealed ones")
        if some[key].n_unique() != plan.split.calibration[risk]:
            raise VerificationError("plan-units", f"{risk} was not measured on as many units as planned")
    return losses


def _audit_seed(plan: Plan, wanted: int | None) -> None:
    if wanted is not None and (plan.task.seed_from is None or plan.task.split_seed != wanted):
        said = f"names {plan.task.split_seed}" if plan.task.seed_from else "names no auditor's seed"
        raise VerificationError("audit-seed-differs", f"the plan {said}; the auditor gave {wanted}")


def _draw(of_risk: pl.DataFrame, risk: str) -> None:
    """The auditor's seed orders units by id and gives the first ones to the search; what is left is calibrated on.

    Ids are keyed digests of rows, so that this order is all that can be seen without the data.
    """
    last = of_risk.filter(pl.col("split") == "search")["unit"].max()
    first = of_risk.filter(pl.col("split") == "calibration")["unit"].min()
    if str(last) >= str(first):
        raise VerificationError("plan-draw", f"the {risk} units were not divided in the order that the seed gives")


def _derived(report: Mapping[str, Any], facts: Facts, said: Asserted) -> Mapping[str, Any]:
    """The part of the report that follows from evidence, which must be what was signed, to the last digit."""
    if said.asked is not None and said.asked not in {candidate.config for candidate in facts.seal.candidates}:
        raise VerificationError("selected-differ", "the report is about a configuration that was not tested")
    derived = claims.derive(facts, said.opening, said.asked)
    _certificate(report.get("certificate"), derived["certificate"])
    if bool(facts.files) != (derived["config"] is not None and derived["config"] == derived["chosen"]):
        raise VerificationError(
            "selected-differ", "a report covers a model when it is about the chosen configuration, else none"
        )
    for part in ("config", "chosen"):
        if report.get(part) != derived[part]:
            raise VerificationError("selected-differ", f"{part} is not the one that the rule selects")
    if report.get("model") != derived["model"]:
        raise VerificationError("subject-tree", "the model's description is not that of the signed files")
    for part, value in derived.items():
        if not _same(report.get(part), value):
            raise VerificationError(f"{part}-differ", f"{part} is not what follows from the evidence")
    if derived["verdict"] == claims.PASS and derived["config"] != derived["chosen"]:
        raise VerificationError("selected-differ", "only the chosen configuration can pass")
    known = {*derived, "evidence", *(field.alias or name for name, field in Asserted.model_fields.items())}
    if set(report) != known:
        raise VerificationError("report-shape", "the report says something that no report says")
    return derived


def _certificate(was: Any, found: Mapping[str, Any]) -> None:
    """Compare certificates from the numbers to what follows from them, so that the error names the first lie."""
    if not isinstance(was, dict) or not isinstance(was.get("candidates"), list):
        raise VerificationError("report-shape", "the report holds no certificate")
    if not _same(_numbers(was), _numbers(found)):
        raise VerificationError("statistics-differ", "the numbers are not those that follow from the losses")
    if not (_same(was.get("certified"), found["certified"]) and _same(was["candidates"], found["candidates"])):
        raise VerificationError(
            "feasible-differ", "the certified configurations are not those that follow from the losses"
        )
    if was.get("chosen") != found["chosen"]:
        raise VerificationError("selected-differ", "the chosen configuration is not the one that the rule selects")
    if not _same(was, found):
        raise VerificationError("statistics-differ", "the certificate is not the one that follows from the losses")


def _numbers(certificate: Mapping[str, Any]) -> list[Any]:
    rows = [row if isinstance(row, dict) else {} for row in certificate["candidates"]]
    whole = [
        certificate.get(part)
        for part in ("budget", "confidence", "level", "n", "opening", "population", "radius", "sequential")
    ]
    return [*whole, *({name: value for name, value in row.items() if name != "certified"} for row in rows)]


def _same(one: Any, other: Any) -> bool:
    """Whether two float-free documents are the same to a reader; in Python alone, 1 equals True."""
    return signing.compact(one) == signing.compact(other)
