"""Trust files: roles, and windows in which a key counts."""

import json
from collections.abc import Mapping
from typing import Any

from froc.audit import canonical_json
from froc.audit import keys as signing
from tests.audit import variants
from tests.audit.cases.forging import Case, envelope, report
from tests.audit.conftest import Made


def trusting(
    made: Made, tsa: bool = False, roles: Mapping[str, int] | None = None, approver: Mapping[str, Any] | None = None,
    **first: Any,
) -> dict[str, Any]:  # fmt: skip
    """The verifier's own file: `key` is an engineer's, `other` an approver's. tsa: the trusted clock is pinned. approver, first:
    more about the approver's and the engineer's key."""
    path = made.bundle.with_name("trust.json")
    keys = [
        {"role": r, "path": str(made.key.with_name(f"{k}.pub"))}
        for r, k in (("engineer", "key"), ("approver", "other"))
    ]
    keys[0] |= first
    keys[1] |= approver or {}
    pinned = [{"root": str(variants.CLOCKS["trusted"].root)}] if tsa else []
    path.write_text(json.dumps({"format": 1, "keys": keys, "roles": roles or {}, "tsa": pinned}))
    return {"keys": (), "trust": path}


def _two_roles(made: Made) -> Mapping[str, Any]:
    """One of each must have signed."""
    return trusting(made, roles={"engineer": 1, "approver": 1})


def _keep_one(made: Made) -> None:
    envelope(lambda document: document["signatures"].pop(_place_of(made, document, "other")))(made)


def _place_of(made: Made, document: Mapping[str, Any], key: str) -> int:
    keyid = signing.load_public(made.key.with_name(f"{key}.pub")).keyid
    return next(k for k, signature in enumerate(document["signatures"]) if signature["keyid"] == keyid)


def _rename_role(made: Made) -> None:
    """Both sign a report that calls the engineer an auditor."""
    made.resign(lambda report: report["signers"][0].update(role="auditor"))
    signers = [signing.load_signer(made.key), signing.load_signer(made.key.with_name("other"))]
    (made.bundle / "report.dsse.json").write_bytes(signing.sign(canonical_json.compact(made.read()), signers))


def _next(made: Made) -> None:
    """The next report of the series: an honest one."""
    made.resign(lambda report: report.update(sequence=2))


CASES: dict[str, Case] = {
    "an approver's signature removed": Case("signature-role", _keep_one, "both", _two_roles),
    "a role of the signer's own": Case("signers-differ", _rename_role, "both", _two_roles),
    "a second signer made up": Case("signers-differ", report(lambda r: r["signers"].append({"role": "approver", "keyid": "c" * 64}))),
    "one signer named twice": Case("signers-differ", report(lambda r: r["signers"].append({**r["signers"][0], "role": "approver"}))),
    "a key revoked since": Case("key-revoked-or-out-of-window", _next, how=lambda m: trusting(m, revoked="2026-03-01T12:00:00Z")),
    "a key past its end": Case("key-revoked-or-out-of-window", _next, how=lambda m: trusting(m, not_after="2026-03-01T11:59:59Z")),
    "a key before its beginning": Case("key-revoked-or-out-of-window", _next, how=lambda m: trusting(m, not_before="2026-03-01T12:00:01Z")),
}  # fmt: skip
