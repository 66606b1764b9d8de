"""in-toto Simple Verification Result v0.2 for policy engines, signed by the verifier, and checked against the report.

A consumer must require properties to be present, never others to be absent: dropping the statement or a property then
never turns a refusal into a pass.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import froc
from froc import hashing
from froc.audit import canonical_json
from froc.audit import keys as signing
from froc.audit.bundle_files import moment
from froc.audit.chronology import CLOCK_SKEW
from froc.audit.exports import ExportContext
from froc.audit.verification import Result
from froc.errors import InputError, VerificationError

PREDICATE = "https://in-toto.io/attestation/svr/v0.2"
STATEMENT_BYTES = 2**20
"""Of a statement that is held against the report: it has a line for each file of the model."""


def write(result: Result, context: ExportContext) -> str:
    """The signed statement. InputError without a signer."""
    if context.signer is None:
        raise InputError("an svr statement is signed by who verified; give --sign KEY")
    body = signing.statement(_subject(result), PREDICATE, {**_predicate(result), "timeCreated": context.when})
    return signing.sign(body, [context.signer]).decode("ascii")


def check(
    data: bytes, keys: Sequence[signing.PublicKey], result: Result, now: datetime | None = None
) -> tuple[str, str]:
    """The fingerprint of the signer of a statement that says what the bundle shows, and no more; and when it was made, by its signer.

    VerificationError where no given key has signed it, it has another type or subject, or it contradicts the report.
    Properties beyond what this verification checked (the model) contradict it, too.
    """
    payload, signers = signing.verify(data, keys)
    statement = canonical_json.strict_json(payload)
    if (
        not isinstance(statement, dict)
        or set(statement) != {"_type", "subject", "predicateType", "predicate"}
        or (statement["_type"], statement["predicateType"]) != (signing.STATEMENT_TYPE, PREDICATE)
        or not isinstance(statement.get("predicate"), dict)
    ):
        raise VerificationError("svr-type", f"the statement is not of type {PREDICATE}")
    if statement.get("subject") != [{"name": n, "digest": {"sha256": v}} for n, v in _subject(result).items()]:
        raise VerificationError("svr-subject", "the statement is about other files than the report")
    predicate = dict(statement["predicate"])
    stamp = str(predicate.pop("timeCreated", ""))
    made = moment(stamp)
    if not moment(result.report["issued"]) - CLOCK_SKEW <= made <= (now or datetime.now(UTC)) + CLOCK_SKEW:
        raise VerificationError(
            "svr-time", f"the statement says it was made at {stamp}, before the report or after now"
        )
    wanted = _predicate(result)
    properties = predicate.pop("properties", None)
    allowed = [wanted.pop("properties"), _properties(result, model=False)]
    if predicate != wanted or properties not in allowed:
        raise VerificationError(
            "svr-contradicts", "the statement says something else than this verification of the report"
        )
    return signers[0], stamp


def _subject(result: Result) -> dict[str, str]:
    return dict(result.facts.files) or {"plan.json": result.facts.plan_digest}


def _predicate(result: Result) -> dict[str, Any]:
    return {
        "verifier": {
            "id": f"urn:froc:audit-verify:{froc.__version__}",
            "policies": [
                {"name": "plan.json", "digest": {"sha256": result.facts.plan_digest}},
                {
                    "name": "report.dsse.json",
                    "digest": {"sha256": hashing.sha256_bytes(result.files["report.dsse.json"])},
                },
            ],
        },
        "properties": _properties(result, model=result.model_checked),
    }


def _properties(result: Result, *, model: bool) -> list[str]:
    """Names of what was shown; the certified risks one by one, where the verdict is PASS without a reservation."""
    certificate = result.report["certificate"]
    reserved = result.verdict == "PASS" and not result.passes
    names = ["FROC_REPORT_VERIFIED", "FROC_PASS_WITH_RESERVATIONS" if reserved else f"FROC_VERDICT_{result.verdict}"]
    names += ["FROC_MODEL_FILES_MATCH"] if model else []
    names += [f"FROC_OUTSIDE_CODE_{entry['kind']}_{entry['name']}" for entry in result.report.get("plugins", [])]
    if result.passes:
        names.append(f"FROC_CONFIDENCE_{certificate['confidence']}")
        names += [f"FROC_RISK_WITHIN_{risk}_{alpha}" for risk, alpha in sorted(certificate["budget"].items())]
    return names
