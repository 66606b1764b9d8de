"""Numbered checks over a bundle that rely on public keys only.

The order is the argument: bytes, who signed them, what they mean, and whether it follows from the evidence. Nothing is
believed that can be computed. The first failing check raises VerificationError with its short name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from froc import hashing
from froc.audit import (
    bound_weights,
    bundle_files,
    certificate_comparison,
    chronology,
    documents,
    model_folder,
    model_hub,
    reexecution,
    rendering,
    statements,
    timestamps,
)
from froc.audit import cross_checks as facts
from froc.audit import keys as signing
from froc.audit import report as claims
from froc.audit import trust as trusting
from froc.audit.assurance import Level, levels, reservations
from froc.audit.bundle_files import moment
from froc.audit.chronology import CLOCK_SKEW
from froc.audit.cross_checks import Check, Log, same
from froc.audit.documents import Asserted, Plan
from froc.audit.reexecution import Reexecution
from froc.audit.report import Facts
from froc.audit.statements import Statement
from froc.audit.trust import Trust
from froc.errors import InputError, VerificationError
from froc.plugins import builtin_plugins_only

SUFFIX = ".froc-audit"


@dataclass(frozen=True)
class Result:
    """A bundle that verifies.

    verdict: PASS | FAIL | NOT_ESTABLISHED, recomputed.
    fingerprint: of the first trusted key that signed; roles: keyid -> role in the trust file, if there is one.
    tree: digest of the model's file names and contents, None without a model; model_checked: whether it was compared.
    report: the predicate; payload: SHA-256 of the signed bytes; facts, files: the evidence and the verified bytes.
    reexecution: what measuring again showed, if the bundle holds that; levels: the assurance levels reached.
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
    levels: tuple[Level, ...]
    facts: Facts = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def reservations(self) -> tuple[str, ...]:
        """Why a PASS needs a qualification: evidence that today's reports have and this one lacks, or losses that did not reproduce."""
        return reservations(self.facts, self.reexecution, int(self.report["opening"]))

    @property
    def passes(self) -> bool:
        """Whether the report says PASS, without a reservation."""
        return self.verdict == claims.PASS and not self.reservations

    @property
    def assurance(self) -> str:
        """What supports the losses: self_attested, or reproduced where others measured a sample again."""
        return self.reexecution.assurance if self.reexecution else str(self.report["assuranceLevel"])

    def to_polars(self) -> pl.DataFrame:
        """A row per check: number, check and what it found."""
        rows = [(check.number, check.name, check.seen) for check in self.checks]
        return pl.DataFrame(rows, schema=["number", "check", "seen"], orient="row")

    def __repr__(self) -> str:
        return f"Result({self.verdict}, {len(self.checks)} checks, signed by {', '.join(self.signers)})"


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
    share: float = reexecution.SHARE,
) -> Result:
    """Check a bundle against trusted public keys, and against the model folder if one is given.

    trust: a trust file, instead of keys and threshold.
    threshold: number of different trusted keys that must have signed.
    now: aware time, the present by default.
    audit_seed: the auditor's seed for the draw, which the plan must state.
    share: largest share of all losses that may differ (with 95 % confidence) for a report to count as reproduced (L5).

    InputError for unusable arguments, VerificationError at the first check that fails.
    """
    if bool(keys) == (trust is not None):
        raise InputError("give the signer's public key, received apart from the bundle, or a trust file, and not both")
    if threshold < 1:
        raise InputError(f"threshold {threshold} asks for no signature; give at least 1")
    trusted = trusting.read(trust) if trust else Trust(tuple(map(signing.load_public, keys)), threshold)
    return check(bundle, trusted, model=model, now=now, min_sequence=min_sequence, audit_seed=audit_seed, share=share)


def check(
    bundle: Path,
    trusted: Trust | Sequence[signing.PublicKey],
    *,
    model: Path | None = None,
    now: datetime | None = None,
    min_sequence: int = 1,
    audit_seed: int | None = None,
    share: float = reexecution.SHARE,
) -> Result:
    """`verify` with loaded keys. model: a folder, or `hub:ID@REVISION`."""
    reexecution.refuse_share(share)
    model = model_hub.local(model)
    for folder, kind in ((bundle, f"the {SUFFIX} folder"), (model, "the model's folder")):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder} is no folder; give {kind}")
    trust = trusted if isinstance(trusted, Trust) else Trust(tuple(trusted))
    log = Log()
    with builtin_plugins_only():
        try:
            return _check(bundle, trust, model, now or datetime.now(UTC), min_sequence, audit_seed, share, log)
        except VerificationError:
            raise
        except Exception as error:  # an unexpected error must not let a report pass
            step = _step(log, bundle, model)
            # a missing package or an unreadable folder says nothing about the report
            if isinstance(error, InputError) and step in ("files", "timestamps", "model", "weights"):
                raise
            raise _undone(step, error) from error


def _undone(step: str, error: Exception) -> VerificationError:
    number = facts.STEPS.index(step) + 1
    return VerificationError(f"failed-{step}", f"step {number} could not be done ({type(error).__name__})")


def _step(log: Log, bundle: Path, model: Path | None) -> str:
    """Name of the first step that did not hold."""
    absent = {"model"} if model is None else set[str]()
    absent |= set[str]() if any(bundle.glob("*.tsr")) else {"timestamps"}
    absent |= set[str]() if (bundle / "comparison.json").exists() else {"comparison"}
    last = log.checks[-1].number if log.checks else 0
    return next(name for name in (*facts.STEPS[last:], facts.STEPS[-1]) if name not in absent)


def _check(
    bundle: Path,
    trust: Trust,
    model: Path | None,
    now: datetime,
    min_sequence: int,
    audit_seed: int | None,
    share: float,
    log: Log,
) -> Result:
    files = bundle_files.read_bundle(bundle)
    log.held("files", f"{len(files)} files, none unlisted, linked or too large")
    proven = timestamps.check(files, trust.authorities)
    if proven.tokens:
        log.held("timestamps", proven.seen)
    data = files["report.dsse.json"]
    report = statements.read(data, trust, trust.threshold, claims.PREDICATE, now, proven.report)
    log.held("signature", f"signed by {_signed_by(report.signers, trust)}; {trust.threshold} needed")
    asserted = _asserted(report)
    trust.refuse(report.signers, asserted.signers)
    log.held("statement", "an in-toto statement of froc's report type, no floats, no duplicate keys")
    _dates(asserted, now, max(min_sequence, trust.min_sequence))
    log.held("dates", f"issued {asserted.issued}, expires {asserted.expires}, sequence {asserted.sequence}")
    _evidence(report.predicate.get("evidence"), files)
    log.held("evidence", "every evidence file has the digest and size that were signed")
    covered = _subject(report, hashing.sha256_bytes(files["plan.json"]))
    log.held("subject", f"{len(covered)} model file(s)" if covered else "no model, the plan alone")
    if model is not None:
        beside = _model(covered, model)
        log.held("model", f"the model folder holds exactly the files that were signed, and is closed{beside}")
    evidence = facts.read(files, trust, now, proven, covered, log)
    chronology.check_report(asserted, evidence.plan_signed, evidence.trials, proven, evidence.stage_dates)
    _audit_seed(evidence.plan, audit_seed)
    derived = _derived(report.predicate, evidence, asserted)
    log.held("statistics", "p-values, bounds, certified configurations, choice and verdict, computed again")
    if evidence.files:
        log.held("weights", bound_weights.check(evidence, derived["config"], model))
    if files["report.html"] != rendering.html(report.predicate, evidence).encode("utf-8"):
        raise VerificationError("html-not-rendering-of-signed-data", "report.html does not show what was signed")
    log.held("page", "report.html is the rendering of the signed report")
    repeated = _again(files, trust, now, evidence, report, share)
    if repeated is not None:
        log.held("reexecution", repeated.sentence)
    return Result(
        verdict=derived["verdict"],
        checks=tuple(log.checks),
        fingerprint=report.signers[0],
        signers=report.signers,
        tree=evidence.tree,
        model_checked=model is not None,
        plan_status=derived["plan"]["status"],
        report=report.predicate,
        payload=report.payload,
        roles={keyid: trust.roles[keyid] for keyid in report.signers if keyid in trust.roles},
        reexecution=repeated,
        levels=levels(evidence, model is not None, proven, repeated),
        facts=evidence,
        files=files,
    )


def _again(
    files: Mapping[str, bytes], trust: Trust, now: datetime, facts: Facts, report: Statement, share: float
) -> Reexecution | None:
    if reexecution.NAME not in files:
        return None
    try:
        done = statements.read(files[reexecution.NAME], trust, 1, reexecution.PREDICATE, now, {})
    except VerificationError as error:
        if error.check != "signature-threshold":
            raise
        raise VerificationError(
            "reexecution-signer",
            f"{reexecution.NAME} is signed by no trusted key; trust who measured again, or take the file out",
        ) from error
    losses, predicate = files["losses.csv"], report.predicate
    checked = reexecution.check(
        done.subject, done.predicate, done.signers, report.signers, facts, losses, predicate, report.payload, now, share
    )
    if trust.roles.get(checked.outcome.keyid, checked.outcome.role) != checked.outcome.role:
        raise VerificationError("reexecution-role", "who measured again has another role by the trust file")
    return checked


def _signed_by(signers: Sequence[str], trust: Trust) -> str:
    if not trust.roles:
        return f"{len(signers)} trusted key(s)"
    return ", ".join(f"{trust.roles[keyid]} {keyid[:16]}" for keyid in signers)


def _asserted(report: Statement) -> Asserted:
    names = [field.alias or name for name, field in Asserted.model_fields.items()]
    asserted: Asserted = documents.parse(
        Asserted, {n: report.predicate[n] for n in names if n in report.predicate}, "report-shape"
    )
    named = [signer.keyid for signer in asserted.signers]
    if not set(named) <= set(report.signers) or len(set(named)) != len(named):
        raise VerificationError("signers-differ", "the report names a signer whose trusted key did not sign it")
    return asserted


def _dates(asserted: Asserted, now: datetime, min_sequence: int) -> None:
    issued, expires = moment(asserted.issued), moment(asserted.expires)
    if issued > now + CLOCK_SKEW:
        raise VerificationError("issued-in-future", f"the report says it was issued at {asserted.issued}")
    if expires <= now or expires <= issued:
        raise VerificationError("expired", f"the report expired at {asserted.expires}; ask for a new one")
    if asserted.sequence < min_sequence:
        raise VerificationError("rollback", f"report {asserted.sequence} is older than report {min_sequence}")


def _evidence(listed: Any, files: Mapping[str, bytes]) -> None:
    """Compare in the order of names; report.html last, so that a page is not blamed for other files."""
    now = bundle_files.listing(files)
    if not isinstance(listed, list) or len(listed) != len(now):
        raise VerificationError("evidence-list", "the report does not list the bundle's files")
    for was, present in zip(listed, now, strict=True):
        if not same(was, present):
            raise VerificationError(
                f"evidence-digest:{present['name']}", f"{present['name']} is not the file that was signed"
            )


def _subject(report: Statement, plan_digest: str) -> Mapping[str, str]:
    """The model's files; empty where the report covers none, and is about its plan instead."""
    if report.subject == {"plan.json": plan_digest}:
        return {}
    model_folder.refuse_names(list(report.subject))
    if list(report.subject) != sorted(report.subject, key=str.encode):
        raise VerificationError("subject-name-or-digest", "the subjects are not sorted by name")
    model_folder.refuse_open(report.subject)
    return report.subject


def _model(covered: Mapping[str, str], folder: Path) -> str:
    """Remark about files beside the model. VerificationError where the folder is not the signed model, or not closed."""
    read = model_folder.read(folder, covered)
    files = read.files
    if files != dict(covered):
        missing, extra = sorted(covered.keys() - files.keys()), sorted(files.keys() - covered.keys())
        changed = sorted(name for name in covered.keys() & files.keys() if covered[name] != files[name])
        counts = f"{len(changed)} file(s) changed, {len(missing)} missing, {len(extra)} not signed"
        raise VerificationError("model-mismatch", f"{counts}; this is not the model that the report is about")
    if covered:
        model_folder.refuse_content(folder, covered)
    return read.beside


def _audit_seed(plan: Plan, wanted: int | None) -> None:
    if wanted is not None and (plan.task.seed_from is None or plan.task.split_seed != wanted):
        named = f"names {plan.task.split_seed}" if plan.task.seed_from else "names no auditor's seed"
        raise VerificationError("audit-seed-differs", f"the plan {named}; the auditor gave {wanted}")


def _derived(report: Mapping[str, Any], facts: Facts, asserted: Asserted) -> Mapping[str, Any]:
    """The part of the report that follows from evidence; VerificationError where it differs from what was signed."""
    if asserted.asked is not None and asserted.asked not in {candidate.config for candidate in facts.seal.candidates}:
        raise VerificationError("selected-differ", "the report is about a configuration that was not tested")
    derived = claims.derive(facts, asserted.opening, asserted.asked)
    certificate_comparison.refuse_other(report.get("certificate"), derived["certificate"])
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
        if not same(report.get(part), value):
            raise VerificationError(f"{part}-differ", f"{part} is not what follows from the evidence")
    if derived["verdict"] == claims.PASS and derived["config"] != derived["chosen"]:
        raise VerificationError("selected-differ", "only the chosen configuration can pass")
    known = {*derived, "evidence", *(field.alias or name for name, field in Asserted.model_fields.items())}
    if set(report) != known:
        raise VerificationError("report-shape", "the report says something that no report says")
    return derived
