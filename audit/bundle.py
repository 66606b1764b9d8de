"""A finished run folder -> a signed bundle that verifies, or an error.

The bundle is built in a hidden folder beside its final place, verified there with the signer's own key, and renamed.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from securesystemslib.signer import CryptoSigner

import froc
from froc.atomic import create
from froc.audit import (
    bundle_files,
    canonical_json,
    comparisons,
    documents,
    further_stages,
    model_folder,
    reexecution,
    rendering,
    timestamps,
    verification,
)
from froc.audit import cross_checks as facts
from froc.audit import keys as signing
from froc.audit import report as claims
from froc.audit.documents import Plan, Seal
from froc.audit.keys import Key
from froc.audit.plan_signing import plan_statement
from froc.audit.report import Facts
from froc.audit.timestamps import Proven
from froc.audit.trust import Trust
from froc.audit.writing import run_bytes, run_losses, stamped
from froc.errors import InputError, VerificationError
from froc.loss_table import SCHEMA
from froc.risk.positive_control import BASE

VALID_DAYS = 365
_PLACE = re.compile(r"(^|[\s\"'=(:,])(~?/[\w.-]+/|[A-Za-z]:\\|\\\\\w|file:/)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def build(
    run: Path,
    out: Path,
    key: Key,
    *,
    password: bytes | None = None,
    config: str | None = None,
    name: str | None = None,
    sequence: int = 1,
    role: str = "engineer",
    comparison: Path | None = None,
    trusted: Sequence[Path] = (),
    small: bool = False,
    now: datetime | None = None,
) -> Path:
    """Write the folder OUT/NAME.froc-audit about a finished run and return its path.

    config: a candidate to report on instead of the chosen one; no model is covered then, and the report cannot pass.
    name: by default the task's name and the plan's fingerprint.
    comparison: folder of `froc compare` about the same task, signed with the run.
    trusted: further public keys, where another person signed the plan.
    small: report although some number is a mean over fewer than `claims.MIN_REPORTED_UNITS` units; the report then says
        so.
    now: aware time of issue.

    Raises InputError for an unfinished run, an existing bundle, or inconsistent evidence.
    """
    reexecution.refuse_role(role)
    if not 1 <= sequence <= bundle_files.MANY:
        raise InputError(f"{sequence} is no number of a report; the first is 1")
    signer = signing.load_signer(key, password)
    keys = [signing.public_of(signer), *map(signing.load_public, trusted)]
    now = now or datetime.now(UTC)
    stamp = stamped(now)
    files, certificate = _files(run, signer, stamp)
    files |= comparisons.files(comparison) if comparison is not None else {}
    try:
        evidence = _facts(run, files, certificate, config, Trust(tuple(keys)), now)
        opening = int(certificate["opening"]["number"])
        derived = claims.derive(evidence, opening, config)
    except VerificationError as error:
        raise _unusable(run, error) from error
    if claims.SMALL in derived["limits"] and not small:
        raise InputError(
            f"some risk was measured on {claims.smallest(evidence)} units, fewer than {claims.MIN_REPORTED_UNITS}: the numbers may tell about "
            "single ones; measure more, or --allow-small-sample, which the report then says"
        )
    _refuse_other_numbers(run, certificate, derived["certificate"])
    _refuse_places(files)
    named = name or _name_of(evidence)
    if not _NAME.fullmatch(named):
        raise InputError(f"the name {named!r} cannot be a bundle's; use letters, digits, dots and dashes")
    bundle = out / f"{named}{verification.SUFFIX}"
    if bundle.exists() or bundle.is_symlink():
        raise InputError(f"{bundle} exists and is not overwritten; choose another name or folder")
    report = {
        "schema": "1", "name": named, "sequence": sequence, "issued": stamp, "expires": stamped(now, VALID_DAYS),
        "supersedes": None, "signers": [{"role": role, "keyid": keys[0].keyid}],
        "harness": {"name": "froc", "version": froc.__version__}, "assuranceLevel": "self_attested",
        "asked": config, "opening": opening, **derived,
    }  # fmt: skip
    subject = evidence.files or {"plan.json": evidence.plan_digest}
    files |= signed_report(report, files, subject, [signer], page(report, files, evidence))
    try:
        _write(bundle, files, keys, run / "model" if evidence.files else None, now)
    except VerificationError as error:
        raise _unusable(run, error) from error
    return bundle


def draft(run: Path, *, config: str | None = None, now: datetime | None = None) -> tuple[dict[str, Any], Facts]:
    """The content of a report about a finished run, and the evidence, for an unsigned page.

    The plan is signed in memory with a throw-away key, so that evidence is read as a verifier reads it. InputError as
    for `build`.
    """
    signer = CryptoSigner.generate_ed25519()
    files, certificate = _files(run, signer, "")
    try:
        created = str(canonical_json.strict_json(files["plan.json"], decimals=True)["created"])
        files["plan.dsse.json"] = plan_statement(files["plan.json"], signer, created)
        evidence = _facts(
            run, files, certificate, config, Trust((signing.public_of(signer),)), now or datetime.now(UTC)
        )
        opening = int(certificate["opening"]["number"])
        derived = claims.derive(evidence, opening, config)
    except (VerificationError, KeyError, TypeError) as error:
        raise InputError(f"{run} holds a damaged file ({error}); run the same froc search again") from error
    _refuse_other_numbers(run, certificate, derived["certificate"])
    del files["plan.dsse.json"]
    report = {
        "schema": "1", "name": _name_of(evidence), "sequence": 1, "issued": stamped(now), "expires": stamped(now),
        "supersedes": None, "signers": [], "harness": {"name": "froc", "version": froc.__version__},
        "assuranceLevel": "self_attested", "asked": config, "opening": opening, **derived,
        "evidence": bundle_files.listing(files),
    }  # fmt: skip
    return report, evidence


def page(report: Mapping[str, Any], files: Mapping[str, bytes], facts: Facts) -> bytes:
    """report.html for a predicate that lacks only its list of evidence."""
    return rendering.html({**report, "evidence": bundle_files.listing(files)}, facts).encode("utf-8")


def signed_report(
    report: Mapping[str, Any],
    files: Mapping[str, bytes],
    subject: Mapping[str, str],
    signers: Sequence[signing.PrivateKey],
    html: bytes,
) -> dict[str, bytes]:
    """The given report.html, and report.dsse.json, for a predicate that lacks only its list of evidence."""
    listed = bundle_files.listing({**files, "report.html": html})
    body = signing.statement(subject, claims.PREDICATE, {**report, "evidence": listed})
    return {"report.html": html, "report.dsse.json": signing.sign(body, signers)}


def _files(run: Path, signer: signing.PrivateKey, stamp: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The bundle's files except the report and losses, and the run's own certificate."""
    if not run.is_dir():
        raise InputError(f"{run} is no folder; give the run folder that froc search --out wrote")
    if not (run / "certificate.json").is_file():
        raise InputError(f"{run} has no certificate.json; let froc search finish, then write the report")
    files = {name: run_bytes(run / name, run) for name in ("plan.json", "seal.json", "trials.jsonl")}
    files |= further_stages.files(run)
    try:
        certificate = json.loads(run_bytes(run / "certificate.json", run))
        files["trials.jsonl"] = bundle_files.write_trials(
            json.loads(line) for line in files["trials.jsonl"].splitlines()
        )
        signed = run / "plan.dsse.json"
        files["plan.dsse.json"] = (
            run_bytes(signed, run) if signed.is_file() else plan_statement(files["plan.json"], signer, stamp)
        )
        int(certificate["opening"]["number"]), certificate["chosen"], [*certificate["certified"]]
        if (run / bundle_files.PLAN_TOKEN).is_file() and signed.is_file():
            token = files[bundle_files.PLAN_TOKEN] = run_bytes(run / bundle_files.PLAN_TOKEN, run)
            of_plan = signing.signatures(files["plan.dsse.json"]).values()
            timestamps.refuse_other(token, [*of_plan], str(run / bundle_files.PLAN_TOKEN))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, VerificationError) as error:
        raise InputError(f"{run} holds a damaged file; run the same froc search again") from error
    return files, certificate


def _facts(
    run: Path,
    files: dict[str, bytes],
    certificate: Mapping[str, Any],
    config: str | None,
    trust: Trust,
    now: datetime,
) -> Facts:
    """The evidence, read as a verifier reads it; adds losses.csv to `files`."""
    seal: Seal = documents.parse(Seal, canonical_json.strict_json(files["seal.json"], decimals=True), "seal-shape")
    configs = [candidate.config for candidate in seal.candidates]
    _refuse_config(config, configs, certificate)
    table = run_losses(run / "losses" / "calibration.parquet") if configs else pl.DataFrame(schema=SCHEMA)
    plan: Plan = documents.parse(Plan, canonical_json.strict_json(files["plan.json"], decimals=True), "plan-shape")
    if configs and plan.control is not None:
        listed = [risk for risk, kind in plan.population.items() if kind != "queries"]
        known = (pl.col("split") == "calibration") | pl.col("risk").is_in(listed)
        table = pl.concat([table, run_losses(run / "losses" / "base.parquet").filter(known)])
    stages = further_stages.read(files, plan, bundle_files.read_trials(files["trials.jsonl"]))
    table = pl.concat([table, *further_stages.losses(run, stages)])
    files["losses.csv"] = bundle_files.write_losses(table, [*configs, BASE])
    covers = certificate["chosen"] is not None and config in (None, certificate["chosen"])
    if covers and not (run / "model").is_dir():
        raise InputError(f"{run} has no model folder; run the same froc search again, it writes the chosen model")
    model = model_folder.read(run / "model").files if covers else {}
    return facts.read(files, trust, now, Proven(), model, facts.Log())


def _name_of(evidence: Facts) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", evidence.plan.task.name.lower()).strip("-")
    return f"{words[:40] or 'run'}-{evidence.plan_digest[:8]}"


def _refuse_config(config: str | None, configs: Sequence[str], certificate: Mapping[str, Any]) -> None:
    if config is None or config == certificate["chosen"]:
        return
    if config not in configs:
        raise InputError(f"{config} was not tested on the calibration queries; there are: {', '.join(configs)}")
    if config in certificate["certified"]:
        raise InputError(
            f"the run keeps the model of {certificate['chosen']} alone; report on that one (leave out --config)"
        )


def _refuse_other_numbers(run: Path, was: Mapping[str, Any], derived: Mapping[str, Any]) -> None:
    """InputError where the certificate on disk does not follow from the losses: it was edited, or made by another version."""
    for part, value in derived.items():
        # the sentence may list the risks in another order
        if part != "reason" and canonical_json.compact(canonical_json.exact(was.get(part))) != canonical_json.compact(
            value
        ):
            raise InputError(
                f"{run / 'certificate.json'}: {part} does not follow from the run's losses; "
                "was it edited, or made by another version? search again in a new --out"
            )


def _refuse_places(files: Mapping[str, bytes]) -> None:
    """InputError where a file names a path: reports are published, and paths reveal whose machine made the run."""
    for name in (
        "plan.json",
        "seal.json",
        "trials.jsonl",
        *(name for name in ("comparison.json", "stages.json") if name in files),
    ):
        lines = files[name].splitlines() if name.endswith("l") else [files[name]]
        for text in _texts([canonical_json.strict_json(line, decimals=True) for line in lines]):
            if _PLACE.search(text):
                raise InputError(
                    f"{name} names a file path, which a report must not show; name the task and model without"
                )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _write(
    bundle: Path,
    files: Mapping[str, bytes],
    keys: Sequence[signing.PublicKey],
    model: Path | None,
    now: datetime | None,
) -> None:
    """Write, verify, rename: a bundle that does not verify never appears under its name."""
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.", dir=bundle.parent))
    except OSError as error:
        raise InputError(f"cannot write in {bundle.parent} ({error.strerror}); choose another folder") from error
    try:
        for name, data in files.items():
            create(part / name, data)
        verification.check(part, keys, model=model, now=now)
        part.chmod(0o755)
        part.rename(bundle)
    finally:
        with suppress(FileNotFoundError):  # renamed into its place, the folder is no longer here
            shutil.rmtree(part)


def _unusable(run: Path, error: VerificationError) -> InputError:
    if error.check.startswith(("model-", "subject-", "sealed-")):
        return InputError(f"{run / 'model'}: {error}; keep the model that froc search wrote, nothing else, in it")
    return InputError(
        f"the evidence in {run} does not add up ({error}); was a file edited? search again in a new --out"
    )
