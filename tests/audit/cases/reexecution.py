"""Losses that were measured again, and what is said of them."""

from typing import Any

from froc.audit import keys
from tests.audit import variants
from tests.audit.cases.forging import Attack, Case, Change
from tests.audit.cases.trust import trusting
from tests.audit.conftest import Made


def _again(change: Change, **more: Any) -> Attack:
    """Another statement of what was measured again, signed; more: arguments of `variants.measured_again`."""
    return lambda made: variants.measured_again(made, change, **more)


def _of_model(**changes: Any) -> Attack:
    """Other words about the signed model."""
    return _again(lambda s: s["model"].update(changes), model=True)


def _of_group(number: int, model: bool = False, **changes: Any) -> Attack:
    """Other counts of one configuration under one risk."""
    return _again(lambda s: (s["model"] if model else s)["groups"][number].update(changes), model=model)


def _same(measured_again: dict[str, Any]) -> None:
    """The model trained again has other weights than those that were sealed, which is called the same."""
    measured_again["model"] |= {
        "how": "same-weights",
        "digest": "d" * 64,
        "rows": 0,
        "of": 0,
        "lines": [],
        "bound": None,
        "each": None,
        "groups": None,
    }


def _by_other(made: Made) -> None:
    """Signed by the approver's key, in its own name."""
    keyid = keys.load_public(made.key.with_name("other.pub")).keyid
    variants.measured_again(made, lambda measured_again: measured_again.update(keyid=keyid), key="other")


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
    "measured again: a difference that nobody counted": Case("reexecution-counts", _of_group(0, largest=3), "again"),
    "measured again: other sums than the groups'": Case("reexecution-bound", _again(lambda s: s.update(largest=3)), "again"),
    "measured again: a smaller bound": Case("reexecution-bound", _again(lambda s: s.update(bound="0.0001")), "again"),
    "measured again: a smaller bound of a group": Case("reexecution-bound", _of_group(0, bound="0.0001"), "again"),
    "measured again: at a higher confidence": Case("reexecution-bound", _again(lambda s: s.update(confidence="0.99")), "again"),
    "measured again: rows of a model that was not": Case("reexecution-draw", _of_model(how="not-compared"), "again"),
    "measured again: rows of a model that could not be trained": Case("reexecution-draw", _of_model(how="not-trained"), "again"),
    "measured again: without a group": Case("reexecution-bound", _again(lambda s: s["groups"].pop()), "again"),
    "measured again: another configuration's model": Case("reexecution-model", _of_model(config="c0003"), "again"),
    "measured again: other weights called the same": Case("reexecution-weights", _again(_same, model=True), "again"),
    "measured again: a model of other weights": Case("reexecution-weights", _of_model(digest="d" * 64), "again"),
    "measured again: a model without weights": Case("reexecution-weights", _of_model(digest=None), "again"),
    "measured again: a difference of the model that nobody counted": Case("reexecution-counts", _of_group(0, model=True, largest=3), "again"),
    "measured again: rows of the model that were picked": Case("reexecution-draw", _of_model(lines=list(range(2, 101))), "again"),
    "measured again: a model measured on no row": Case("reexecution-draw", _of_model(rows=0, lines=[], bound="0.0"), "again"),
    "measured again: a smaller bound of the model": Case("reexecution-bound", _of_model(bound="0.0001"), "again"),
    "measured again: an environment in words": Case("reexecution-shape", _again(lambda s: s["environment"].update(python="3.11.2, verified by nobody"))),
    "measured again: more is said": Case("reexecution-shape", _again(lambda s: s.update(note="all is well")), "again"),
}  # fmt: skip
