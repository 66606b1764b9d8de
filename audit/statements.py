"""Signed in-toto statements: signatures of enough valid keys, the exact type, subjects by SHA-256."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from froc import hashing
from froc.audit import canonical_json, keys
from froc.audit.trust import Trust
from froc.errors import VerificationError


@dataclass(frozen=True)
class Statement:
    """A verified in-toto statement. subject: name -> SHA-256. payload: SHA-256 of its bytes."""

    subject: Mapping[str, str]
    predicate: Mapping[str, Any]
    signers: tuple[str, ...]
    payload: str


def read(
    data: bytes, trust: Trust, threshold: int, kind: str, now: datetime, proven: Mapping[str, datetime]
) -> Statement:
    """A statement signed by enough trusted keys, each while it was valid.

    proven: keyid -> time by which its signature existed, by trusted time stamps.

    VerificationError otherwise.
    """
    payload, signed = keys.verify(data, trust.keys, threshold)
    signers = trust.counting(signed, threshold, now, proven)
    document = canonical_json.strict_json(payload)
    if not isinstance(document, dict) or document.get("_type") != keys.STATEMENT_TYPE:
        raise VerificationError("statement-type", f"the payload is no {keys.STATEMENT_TYPE}")
    if document.get("predicateType") != kind:
        raise VerificationError("predicate-type", f"the statement is not of type {kind}")
    if set(document) != {"_type", "subject", "predicateType", "predicate"} or not isinstance(
        document["predicate"], dict
    ):
        raise VerificationError("statement-shape", "a statement has a type, subjects and a predicate, nothing else")
    return Statement(_subjects(document["subject"]), document["predicate"], signers, hashing.sha256_bytes(payload))


def _subjects(listed: Any) -> dict[str, str]:
    if not isinstance(listed, list) or not listed:
        raise VerificationError("subject-name-or-digest", "the statement is about nothing")
    digests: dict[str, str] = {}
    for item in listed:
        try:
            (name, hashes), count = (item["name"], item["digest"]), len(item)
            value = hashes["sha256"]
        except (TypeError, KeyError) as error:
            raise VerificationError("subject-name-or-digest", "a subject has no name or no SHA-256") from error
        texts = isinstance(name, str) and isinstance(value, str)
        if count != 2 or not texts or set(hashes) != {"sha256"} or len(value) != 64 or value.strip("0123456789abcdef"):
            raise VerificationError("subject-name-or-digest", "a subject has a name and a SHA-256, nothing else")
        if name in digests:
            raise VerificationError("subject-duplicate", "two subjects have the same name")
        digests[name] = value
    return digests
