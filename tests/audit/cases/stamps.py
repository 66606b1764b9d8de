"""Time stamps, which outlive the keys that were stamped."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from froc.audit import keys
from tests.audit import variants
from tests.audit.cases.forging import Case
from tests.audit.cases.trust import trusting
from tests.audit.conftest import NOW, Made


def _pinned(made: Made) -> Mapping[str, Any]:
    return trusting(made, tsa=True)


def _revoked(made: Made) -> Mapping[str, Any]:
    """Two days after the key was revoked, which was the day after the report."""
    return trusting(made, tsa=True, revoked="2026-03-02T12:00:00Z") | {"now": NOW + timedelta(days=3)}


def _earlier(made: Made) -> bytes:
    (signature,) = keys.signatures((made.bundle / "plan.dsse.json").read_bytes()).values()
    return variants.CLOCKS["trusted"].stamp(signature, variants.PLANNED - timedelta(minutes=20))


CASES: dict[str, Case] = {
    "stamped after the key was revoked": Case("key-revoked-or-out-of-window", lambda m: variants.token(m, NOW + timedelta(days=2)), "stamped", _revoked),
    "a stamped plan under a report that nobody stamped": Case("key-revoked-or-out-of-window", lambda m: next(m.bundle.glob("report-*.tsr")).unlink(), "stamped", _revoked),
    "a stamped report over a plan that nobody stamped": Case("key-revoked-or-out-of-window", lambda m: variants.token(m, NOW), "good", _revoked),
    "a report dated after its time stamp": Case("timestamp-before-date", lambda m: variants.token(m, NOW - timedelta(hours=1)), "stamped", _pinned),
    "a time stamp by another authority": Case("timestamp-untrusted", lambda m: variants.token(m, NOW, "other"), "stamped", _pinned),
    "a time stamp over something else": Case("timestamp-other-signature", lambda m: variants.token(m, NOW, over=b"another signature"), "stamped", _pinned),
    "a time stamp of a signature that is not there": Case("timestamp-other-signature", lambda m: variants.token(m, NOW, keyid="c" * 64), "stamped"),
    "a time stamp that is none": Case("timestamp-shape", lambda m: next(m.bundle.glob("report-*.tsr")).write_bytes(b"a time stamp"), "stamped", _pinned),
    "an earlier time stamp of the plan": Case("evidence-digest:plan.tsr", lambda m: (m.bundle / "plan.tsr").write_bytes(_earlier(m)), "stamped", _pinned),
    "the plan's time stamp removed": Case("evidence-list", lambda m: (m.bundle / "plan.tsr").unlink(), "stamped"),
}  # fmt: skip
