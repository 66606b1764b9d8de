"""in-toto Simple Verification Result v0.2: what a policy engine asks for, signed by who verified, and held against the report.

A consumer must ask for properties to be there, never for others to be absent: dropping the statement or a property then never
turns a refusal into a pass.
"""

from collections.abc import Sequence
from typing import Any

import froc
from froc import hashing
from froc.audit import canonical_json
from froc.audit import keys as signing
from froc.audit.exports import Given
from froc.audit.verification import Result
from froc.errors import InputError, VerificationError

PREDICATE = "https://in-toto.io/attestation/svr/v0.2"


def write(found: Result, given: Given) -> str:
    """The signed statement. InputError without a signer."""
    if given.signer is None:
        raise InputError("an svr statement is signed by who verified; give --sign KEY")
    body = signing.statement(_subject(found), PREDICATE, {**_predicate(found), "timeCreated": given.when})
    return signing.sign(body, [given.signer]).decode("ascii")


def check(data: bytes, keys: Sequence[signing.PublicKey], found: Result) -> str:
    """The fingerprint of who signed a statement that says what the bundle shows, and no more.

    Raises VerificationError: for what no given key has signed, is no such statement, is about something else, or contradicts
    the report. Properties that ask for more than this verification has checked (the model) contradict it, too.
    """
    payload, signers = signing.verify(data, keys)
    said = canonical_json.strict_json(payload)
    if (
        not isinstance(said, dict)
        or said.get("predicateType") != PREDICATE
        or not isinstance(said.get("predicate"), dict)
    ):
        raise VerificationError("svr-type", f"the statement is not of type {PREDICATE}")
    if said.get("subject") != [{"name": n, "digest": {"sha256": v}} for n, v in _subject(found).items()]:
        raise VerificationError("svr-subject", "the statement is about other files than the report")
    predicate = dict(said["predicate"])
    stamp = predicate.pop("timeCreated", None)
    wanted = _predicate(found)
    properties = predicate.pop("properties", None)
    allowed = [wanted.pop("properties"), _properties(found, model=False)]
    if not isinstance(stamp, str) or predicate != wanted or properties not in allowed:
        raise VerificationError(
            "svr-contradicts", "the statement says something else than this verification of the report"
        )
    return signers[0]


def _subject(found: Result) -> dict[str, str]:
    return dict(found.facts.files) or {"plan.json": found.facts.plan_digest}


def _predicate(found: Result) -> dict[str, Any]:
    return {
        "verifier": {
            "id": f"urn:froc:audit-verify:{froc.__version__}",
            "policies": [
                {"name": "plan.json", "digest": {"sha256": found.facts.plan_digest}},
                {
                    "name": "report.dsse.json",
                    "digest": {"sha256": hashing.sha256_bytes(found.files["report.dsse.json"])},
                },
            ],
        },
        "properties": _properties(found, model=found.model_checked),
    }


def _properties(found: Result, *, model: bool) -> list[str]:
    """What was shown, by name; the certified risks one by one, where the verdict is PASS without a reservation."""
    certificate = found.report["certificate"]
    reserved = found.verdict == "PASS" and not found.passes
    some = ["FROC_REPORT_VERIFIED", "FROC_PASS_WITH_RESERVATIONS" if reserved else f"FROC_VERDICT_{found.verdict}"]
    some += ["FROC_MODEL_FILES_MATCH"] if model else []
    if found.passes:
        some.append(f"FROC_CONFIDENCE_{certificate['confidence']}")
        some += [f"FROC_RISK_WITHIN_{risk}_{alpha}" for risk, alpha in sorted(certificate["budget"].items())]
    return some
