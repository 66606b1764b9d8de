"""A finished run folder -> a signed bundle that verifies, or nothing.

The bundle is built in a hidden folder beside its place, verified there with the signer's own key, and renamed.
"""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from securesystemslib.signer import CryptoSigner

import froc
from audit import claims, comparisons, facts, records, rendering, signing, timestamps, verification
from audit.claims import Facts, Seal
from audit.signing import Key
from audit.timestamps import Authority, Proven, Token
from audit.trust import Trust
from froc import digest
from froc.control import BASE
from froc.errors import InputError, VerificationError
from froc.losses import SCHEMA

VALID_DAYS = 365
PATIENCE = 5.0
"""Seconds that a first trial waits for its machine's clock to reach the time at which its plan was stamped."""
Stamper = Callable[[bytes], Token]
_PLACE = re.compile(r"(^|[\s\"'=(:,])(~?/[\w.-]+/|[A-Za-z]:\\|\\\\\w|file:/)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def sign_plan(run: Path, key: Key, *, password: bytes | None = None, now: datetime | None = None) -> Path:
    """Sign a run's plan.json before its first trial: writes plan.dsse.json beside it.

    Raises InputError where there is no plan yet, or it is signed already.
    """
    return PlanSigner(run, key, password).sign(now)


class PlanSigner:
    """Signs a run's plan between its writing and the first trial.

    The key is read at once, so that one that cannot be used is refused before anything is trained; so is one that did
    not make the signature which an earlier call left in the run. stamp: asks an authority for a time stamp.
    """

    def __init__(self, run: Path, key: Key, password: bytes | None = None, stamp: Stamper | None = None) -> None:
        self._run, self._place, self._stamp = run, run / "plan.dsse.json", stamp
        self._signer = signing.load_signer(key, password)
        if self._place.exists():
            self._refuse_other(key)

    def sign(self, now: datetime | None = None) -> Path:
        """Write plan.dsse.json. InputError where it is there already."""
        if self._place.exists():
            raise InputError(f"{self._place} exists and is not overwritten; a plan is signed once")
        data = plan_statement(_bytes(self._run / "plan.json", self._run), self._signer, stamped(now))
        part = self._place.with_name(f".{self._place.name}.part")
        part.write_bytes(data)
        part.rename(self._place)
        return self._place

    def before_first_trial(self) -> str:
        """Sign unless that was done; returns what is to be said about it.

        A plan whose trials have begun is left unsigned: no signature could show any more that it came first. So is one
        left without a time stamp.
        """
        begun = (self._run / "trials.jsonl").exists()
        if not self._place.exists() and begun:
            return "trials began before the plan was signed, so it stays unsigned; reports will call it asserted"
        if self._place.exists():
            said = "the plan keeps the signature that it was given before the first trial"
        else:
            self.sign()
            said = f"plan signed before the first trial by {self._signer.public_key.keyid[:16]}"
        return said if self._stamp is None else f"{said}; {self._stamped(self._stamp, begun)}"

    def _stamped(self, stamp: Stamper, begun: bool) -> str:
        place = self._run / records.PLAN_TOKEN
        if place.exists():
            return "it keeps its time stamp"
        if begun:
            return "trials began before it was stamped, so it has no time stamp"
        token = stamp(signing.signatures(self._place.read_bytes())[self._signer.public_key.keyid])
        behind = (token.time.replace(microsecond=0) - datetime.now(UTC)).total_seconds()
        if behind > PATIENCE:
            raise InputError(
                f"this machine's clock is {behind:.0f} s behind the time stamp's, so that trials would seem to start before "
                "their plan; set the clock"
            )
        time.sleep(max(0.0, behind))
        replace_file(place, token.data)
        return f"stamped at {stamped(token.time)}"

    def _refuse_other(self, key: Key) -> None:
        try:
            payload, _ = signing.verify(self._place.read_bytes(), [signing.public_of(self._signer)])
            subject = signing.strict_json(payload)["subject"]
        except (OSError, VerificationError) as error:
            raise InputError(
                f"{self._place} was not signed with {key}; give the key that signed it, or leave --key out"
            ) from error
        if subject[0]["digest"]["sha256"] != digest.of_bytes(_bytes(self._run / "plan.json", self._run)):
            raise InputError(f"{self._place} is not about {self._run / 'plan.json'}; choose another --out")


def plan_statement(plan: bytes, signer: signing.PrivateKey, signed: str) -> bytes:
    """plan.dsse.json: a signed statement about the bytes of plan.json, which repeats it without floats."""
    document = signing.strict_json(plan, decimals=True)
    predicate = {"signed": signed, "plan": signing.exact(document)}
    body = signing.statement({"plan.json": digest.of_bytes(plan)}, claims.PLAN_PREDICATE, predicate)
    return signing.sign(body, [signer])


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

    config: a candidate to report on instead of the chosen one; no model is covered then, and it cannot pass.
    name: by default the task's name and the plan's fingerprint. trusted: further public keys, where another person
    signed the plan. small: report although some number is a mean over fewer than `claims.FLOOR` units; the report then says
    so. comparison: folder of `froc compare` about the same task, signed with the run. now: aware time of issue. Raises InputError for a run that is not finished, a bundle that exists,
    or evidence that does not add up.
    """
    signer = signing.load_signer(key, password)
    keys = [signing.public_of(signer), *map(signing.load_public, trusted)]
    now = now or datetime.now(UTC)
    stamp = stamped(now)
    files, certificate = _files(run, signer, stamp)
    files |= comparisons.files(comparison) if comparison is not None else {}
    try:
        found = _facts(run, files, certificate, config, Trust(tuple(keys)), now)
        opening = int(certificate["opening"]["number"])
        derived = claims.derive(found, opening, config)
    except VerificationError as error:
        raise _unusable(run, error) from error
    if claims.SMALL in derived["limits"] and not small:
        raise InputError(
            f"some risk was measured on {claims.smallest(found)} units, fewer than {claims.FLOOR}: the numbers may tell about "
            "single ones; measure more, or --allow-small-sample, which the report then says"
        )
    _refuse_other_numbers(run, certificate, derived["certificate"])
    _refuse_places(files)
    named = name or _name_of(found)
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
    subject = found.files or {"plan.json": found.plan_digest}
    files |= signed_report(report, files, subject, [signer], page(report, files, found))
    try:
        _write(bundle, files, keys, run / "model" if found.files else None, now)
    except VerificationError as error:
        raise _unusable(run, error) from error
    return bundle


def draft(run: Path, *, config: str | None = None, now: datetime | None = None) -> tuple[dict[str, Any], Facts]:
    """What a report about a finished run would say, and the evidence, for a page that nobody has signed.

    The plan is signed in memory, with a key that nobody keeps, so that evidence is read as a verifier reads it. Raises
    InputError as `build` does.
    """
    signer = CryptoSigner.generate_ed25519()
    files, certificate = _files(run, signer, "")
    try:
        created = str(signing.strict_json(files["plan.json"], decimals=True)["created"])
        files["plan.dsse.json"] = plan_statement(files["plan.json"], signer, created)
        found = _facts(run, files, certificate, config, Trust((signing.public_of(signer),)), now or datetime.now(UTC))
        opening = int(certificate["opening"]["number"])
        derived = claims.derive(found, opening, config)
    except (VerificationError, KeyError, TypeError) as error:
        raise InputError(f"{run} holds a damaged file ({error}); run the same froc search again") from error
    _refuse_other_numbers(run, certificate, derived["certificate"])
    del files["plan.dsse.json"]
    report = {
        "schema": "1", "name": _name_of(found), "sequence": 1, "issued": stamped(now), "expires": stamped(now),
        "supersedes": None, "signers": [], "harness": {"name": "froc", "version": froc.__version__},
        "assuranceLevel": "self_attested", "asked": config, "opening": opening, **derived,
        "evidence": records.listing(files),
    }  # fmt: skip
    return report, found


def countersign(
    bundle: Path,
    key: Key,
    trust: Trust,
    *,
    password: bytes | None = None,
    model: Path | None = None,
    now: datetime | None = None,
) -> verification.Result:
    """Verify a bundle, then add a signature over the same bytes to it; nothing else changes.

    trust: keys whose signatures it carries already; how many it will need is not asked yet. Raises InputError for a key
    that the trust file does not list or that has signed, VerificationError where the bundle does not verify.
    """
    signer = signing.load_signer(key, password)
    mine = signing.public_of(signer)
    if trust.roles and not (mine.keyid in trust.roles and trust.counts(mine.keyid, now or datetime.now(UTC))):
        raise InputError(
            f"{key} is not in the trust file, or revoked or outside its dates there; its signature would count for nothing"
        )
    found = verification.check(bundle, replace(trust, threshold=1, needed={}), model=model, now=now)
    replace_file(bundle / "report.dsse.json", signing.add(found.files["report.dsse.json"], signer))
    return found


def stamp(bundle: Path, ask: Stamper) -> list[str]:
    """Put a time stamp of each signature of a bundle's report into it, those apart that have one; names of the new files.

    Raises InputError where there is none to be stamped.
    """
    made = []
    for name, signature in _unstamped(bundle).items():
        replace_file(bundle / name, ask(signature).data)
        made.append(name)
    return made


def write_requests(bundle: Path, folder: Path) -> list[str]:
    """Write what `stamp` would send: a request (.tsq) per signature without a time stamp, for an authority elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {str((folder / name).with_suffix(".tsq")): one for name, one in _unstamped(bundle).items()}
    for path, signature in wanted.items():
        Path(path).write_bytes(timestamps.request(signature))
    return list(wanted)


def take_responses(bundle: Path, folder: Path, trusted: Authority) -> list[str]:
    """Put the answers to `write_requests` into a bundle, each checked first. InputError where one is missing or wrong."""
    found = {}
    for name, signature in _unstamped(bundle).items():
        found[name] = timestamps.usable(_bytes(folder / name, folder), signature, trusted, str(folder / name))
    for name, token in found.items():
        replace_file(bundle / name, token.data)
    return list(found)


def _unstamped(bundle: Path) -> dict[str, bytes]:
    """Name of a token's file -> the signature that it has to be over. InputError where every signature has one."""
    try:
        signatures = signing.signatures(records.read_bundle(bundle)["report.dsse.json"])
    except VerificationError as error:
        raise InputError(f"{bundle} is no bundle ({error}); give a {verification.SUFFIX} folder") from error
    wanted = {records.report_token(keyid): signature for keyid, signature in signatures.items()}
    missing = {name: one for name, one in wanted.items() if not (bundle / name).exists()}
    if not missing:
        raise InputError(
            f"every signature of {bundle} has a time stamp; it could have another one after another signature"
        )
    return missing


def replace_file(place: Path, data: bytes) -> None:
    """Write a file of a bundle, whole or not at all; what a killed process leaves lies beside the bundle, not in it."""
    part = place.parent.with_name(f".{place.parent.name}.{place.name}.part")
    try:
        part.write_bytes(data)
        part.replace(place)
    except OSError as error:
        raise InputError(f"cannot write {place} ({error.strerror}); make its folder writable") from error


def page(report: Mapping[str, Any], files: Mapping[str, bytes], facts: Facts) -> bytes:
    """report.html for a predicate that lacks only its list of evidence."""
    return rendering.html({**report, "evidence": records.listing(files)}, facts).encode("utf-8")


def signed_report(
    report: Mapping[str, Any],
    files: Mapping[str, bytes],
    subject: Mapping[str, str],
    signers: Sequence[signing.PrivateKey],
    html: bytes,
) -> dict[str, bytes]:
    """report.html, as it is given, and report.dsse.json for a predicate that lacks only its list of evidence."""
    listed = records.listing({**files, "report.html": html})
    body = signing.statement(subject, claims.PREDICATE, {**report, "evidence": listed})
    return {"report.html": html, "report.dsse.json": signing.sign(body, signers)}


def _files(run: Path, signer: signing.PrivateKey, stamp: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The bundle's files before the report, losses apart, and the run's own certificate."""
    if not run.is_dir():
        raise InputError(f"{run} is no folder; give the run folder that froc search --out wrote")
    if not (run / "certificate.json").is_file():
        raise InputError(f"{run} has no certificate.json; let froc search finish, then write the report")
    files = {name: _bytes(run / name, run) for name in ("plan.json", "seal.json", "trials.jsonl")}
    try:
        certificate = json.loads(_bytes(run / "certificate.json", run))
        files["trials.jsonl"] = records.write_trials(json.loads(line) for line in files["trials.jsonl"].splitlines())
        signed = run / "plan.dsse.json"
        files["plan.dsse.json"] = (
            _bytes(signed, run) if signed.is_file() else plan_statement(files["plan.json"], signer, stamp)
        )
        int(certificate["opening"]["number"])
        if (run / records.PLAN_TOKEN).is_file() and signed.is_file():
            files[records.PLAN_TOKEN] = _bytes(run / records.PLAN_TOKEN, run)
    except (ValueError, TypeError, KeyError, AttributeError, VerificationError) as error:
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
    """Read the evidence as the verifier will; adds losses.csv to `files`."""
    seal: Seal = claims.parse(Seal, signing.strict_json(files["seal.json"], decimals=True), "seal-shape")
    configs = [candidate.config for candidate in seal.candidates]
    _refuse_config(config, configs, certificate)
    table = _table(run, "calibration") if configs else pl.DataFrame(schema=SCHEMA)
    plan = signing.strict_json(files["plan.json"], decimals=True)
    if configs and "control" in plan:
        listed = [risk for risk, kind in plan["population"].items() if kind != "queries"]
        known = (pl.col("split") == "calibration") | pl.col("risk").is_in(listed)
        table = pl.concat([table, _table(run, "base").filter(known)])
    files["losses.csv"] = records.write_losses(table, [*configs, BASE])
    covers = certificate["chosen"] is not None and config in (None, certificate["chosen"])
    if covers and not (run / "model").is_dir():
        raise InputError(f"{run} has no model folder; run the same froc search again, it writes the chosen model")
    model = records.model_files(run / "model") if covers else {}
    return facts.read(files, trust, now, Proven(), model, facts.Log())


def _name_of(found: Facts) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", found.plan.task.name.lower()).strip("-")
    return f"{words[:40] or 'run'}-{found.plan_digest[:8]}"


def _refuse_config(config: str | None, configs: Sequence[str], certificate: Mapping[str, Any]) -> None:
    if config is None or config == certificate["chosen"]:
        return
    if config not in configs:
        raise InputError(f"{config} was not tested on the calibration queries; there are: {', '.join(configs)}")
    if config in certificate["certified"]:
        raise InputError(
            f"the run keeps the model of {certificate['chosen']} alone; report on that one (leave out --config)"
        )


def _table(run: Path, name: str) -> pl.DataFrame:
    path = run / "losses" / f"{name}.parquet"
    try:
        return pl.read_parquet(path, columns=list(SCHEMA))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is missing or damaged; run the same froc search again") from error


def _bytes(path: Path, run: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{run} has no readable {path.name}; give the run folder that froc search --out wrote"
        ) from error


def _refuse_other_numbers(run: Path, was: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """A certificate on disk that is not the one that follows from the losses was edited, or made by another froc."""
    for part, value in found.items():
        # the sentence may name the risks in another order
        if part != "reason" and signing.compact(signing.exact(was.get(part))) != signing.compact(value):
            raise InputError(
                f"{run / 'certificate.json'}: {part} does not follow from the run's losses; "
                "was it edited, or made by another version? search again in a new --out"
            )


def _refuse_places(files: Mapping[str, bytes]) -> None:
    """A report leaves the house: it must not tell where on whose machine the run was made."""
    for name in ("plan.json", "seal.json", "trials.jsonl", *(name for name in ("comparison.json",) if name in files)):
        lines = files[name].splitlines() if name.endswith("l") else [files[name]]
        for text in _texts([signing.strict_json(line, decimals=True) for line in lines]):
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
    """Write, verify, rename: a bundle that does not verify never stands in its place."""
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.", dir=bundle.parent))
    except OSError as error:
        raise InputError(f"cannot write in {bundle.parent} ({error.strerror}); choose another folder") from error
    try:
        for name, data in files.items():
            (part / name).write_bytes(data)
        verification.check(part, keys, model=model, now=now)
        part.chmod(0o755)
        part.rename(bundle)
    finally:
        with suppress(FileNotFoundError):  # renamed into its place, the folder is no longer here
            shutil.rmtree(part)


def _unusable(run: Path, error: VerificationError) -> InputError:
    if error.check.startswith(("model-", "subject-")):
        return InputError(f"{run / 'model'}: {error}; keep the model that froc search wrote, nothing else, in it")
    return InputError(
        f"the evidence in {run} does not add up ({error}); was a file edited? search again in a new --out"
    )


def stamped(now: datetime | None, days: int = 0) -> str:
    """RFC 3339 time in UTC, to the second, so many days from `now` (the present by default)."""
    return ((now or datetime.now(UTC)).astimezone(UTC) + timedelta(days=days)).strftime(records.STAMP)
