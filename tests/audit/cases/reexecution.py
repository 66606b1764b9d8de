"""Losses that were measured again, and what is said of them."""

from typing import Any

from audit import signing
from tests.audit import variants
from tests.audit.cases.forging import Attack, Case, Change
from tests.audit.cases.trust import trusting
from tests.audit.conftest import Made


def _again(change: Change, **more: Any) -> Attack:
    """Another statement of what was measured again, signed; more: arguments of `variants.measured_again`."""
    return lambda made: variants.measured_again(made, change, **more)


def _by_other(made: Made) -> None:
    """Signed by the approver's key, in its own name."""
    keyid = signing.load_public(made.key.with_name("other.pub")).keyid
    variants.measured_again(made, lambda said: said.update(keyid=keyid), key="other")


CASES: dict[str, Case] = {
    "measured again: another report": Case("reexecution-other-report", _again(lambda s: None, payload="0" * 64), "again"),
    "measured again: by nobody who is trusted": Case("reexecution-signer", _again(lambda s: None, key="other"), "again"),
    "measured again: by a key that was revoked": Case("key-revoked-or-out-of-window", _by_other, "again", lambda m: trusting(m, approver={"revoked": "2026-03-01T12:00:00Z"})),
    "measured again: in another's name": Case("reexecution-signer", _again(lambda s: s.update(keyid="c" * 64)), "again"),
    "measured again: before the report": Case("reexecution-before-report", _again(lambda s: s.update(signed="2026-02-28T12:00:00Z")), "again"),
    "measured again: tomorrow": Case("reexecution-in-future", _again(lambda s: s.update(signed="2026-03-02T12:00:00Z")), "again"),
    "measured again: in another role": Case("reexecution-role", _again(lambda s: s.update(role="auditor")), "again", trusting),
    "measured again: a model that is not covered": Case("reexecution-other-report", lambda m: variants.measured_again(m, config=m.read()["predicate"]["config"]), "failing"),
    "measured again: rows that were picked": Case("reexecution-draw", _again(lambda s: s.update(lines=list(range(2, 301)))), "again"),
    "measured again: a difference that nobody counted": Case("reexecution-counts", _again(lambda s: s.update(largest=3)), "again"),
    "measured again: a smaller bound": Case("reexecution-bound", _again(lambda s: s.update(bound="0.0001")), "again"),
    "measured again: more is said": Case("reexecution-shape", _again(lambda s: s.update(note="all is well")), "again"),
}  # fmt: skip
