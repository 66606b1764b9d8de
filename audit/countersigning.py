"""Additions to a bundle after its report was signed: another person's signature, and time stamps."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from froc.atomic import write_bytes
from froc.audit import bundle_files, keys, timestamps, verification
from froc.audit.keys import Key
from froc.audit.plan_signing import Stamper
from froc.audit.timestamps import Authority
from froc.audit.trust import Trust
from froc.audit.writing import replace_file, run_bytes
from froc.errors import InputError, VerificationError


def countersign(
    bundle: Path,
    key: Key,
    trust: Trust,
    *,
    password: bytes | None = None,
    model: Path | None = None,
    now: datetime | None = None,
) -> verification.Result:
    """Verify a bundle, then add a signature over the same bytes; nothing else changes.

    trust: keys whose signatures it already has; the number finally required is not checked yet.

    InputError for a key that the trust file does not list or that has already signed, VerificationError for a bundle
    that does not verify.
    """
    signer = keys.load_signer(key, password)
    mine = keys.public_of(signer)
    if trust.roles and not (mine.keyid in trust.roles and trust.counts(mine.keyid, now or datetime.now(UTC))):
        raise InputError(
            f"{key} is not in the trust file, or revoked or outside its dates there; its signature would count for nothing"
        )
    verified = verification.check(bundle, replace(trust, threshold=1, needed={}), model=model, now=now)
    replace_file(bundle / "report.dsse.json", keys.add(verified.files["report.dsse.json"], signer))
    return verified


def stamp(bundle: Path, ask: Stamper) -> list[str]:
    """Add a time stamp for each signature of the report that has none; returns the names of the new files.

    InputError where every signature has one.
    """
    made = []
    for name, signature in _unstamped(bundle).items():
        replace_file(bundle / name, ask(signature).data)
        made.append(name)
    return made


def write_requests(bundle: Path, folder: Path) -> list[str]:
    """Write the requests that `stamp` would send: a file (.tsq) per signature without a time stamp, to be sent from elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {str((folder / name).with_suffix(".tsq")): signature for name, signature in _unstamped(bundle).items()}
    for path, signature in wanted.items():
        write_bytes(Path(path), timestamps.request(signature))
    return list(wanted)


def take_responses(bundle: Path, folder: Path, trusted: Authority) -> list[str]:
    """Add the answers to `write_requests`, each checked first. InputError where one is missing or wrong."""
    tokens = {}
    for name, signature in _unstamped(bundle).items():
        tokens[name] = timestamps.usable(run_bytes(folder / name, folder), signature, trusted, str(folder / name))
    for name, token in tokens.items():
        replace_file(bundle / name, token.data)
    return list(tokens)


def _unstamped(bundle: Path) -> dict[str, bytes]:
    """File name of a token -> the signature that it must cover. InputError where every signature has one."""
    try:
        signatures = keys.signatures(bundle_files.read_bundle(bundle)["report.dsse.json"])
    except VerificationError as error:
        raise InputError(f"{bundle} is no bundle ({error}); give a {verification.SUFFIX} folder") from error
    wanted = {bundle_files.report_token(keyid): signature for keyid, signature in signatures.items()}
    missing = {name: signature for name, signature in wanted.items() if not (bundle / name).exists()}
    if not missing:
        raise InputError(
            f"every signature of {bundle} has a time stamp; it could have another one after another signature"
        )
    return missing
