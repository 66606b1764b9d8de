"""Strict JSON, kinds of statements, and dates."""

from collections.abc import Callable
from datetime import timedelta

from froc.audit import canonical_json
from tests.audit.cases.forging import Attack, Case, edited, report, statement
from tests.audit.conftest import NOW


def _signed_body(change: Callable[[bytes], bytes]) -> Attack:
    return lambda made: made.sign(change(canonical_json.compact(made.read())))


CASES: dict[str, Case] = {
    "duplicate key in the envelope": Case("json-duplicate-key", lambda m: m.edit("report.dsse.json", lambda t: t.replace('{"payload":', '{"payload":"","payload":', 1))),
    "trailing bytes": Case("json-invalid", lambda m: m.edit("report.dsse.json", lambda t: t + "{}")),
    "nested deeply": Case("json-too-deep", lambda m: m.edit("report.dsse.json", lambda t: "[" * 200_000)),
    "UTF-16": Case("json-invalid", lambda m: (m.bundle / "report.dsse.json").write_bytes((m.bundle / "report.dsse.json").read_text().encode("utf-16"))),
    "half a surrogate pair": Case("json-invalid", edited("seal.json", lambda t: t.replace('"npo"', '"\\ud800"', 1))),
    "a line of 17 MB in the log": Case("json-too-large", edited("trials.jsonl", lambda t: t[:-1] + " " * 17_000_000 + "\n")),
    "duplicate key in the payload": Case("json-duplicate-key", _signed_body(lambda b: b.replace(b'"verdict":"PASS"', b'"verdict":"FAIL","verdict":"PASS"'))),
    "NaN in the payload": Case("json-nan-or-float", _signed_body(lambda b: b.replace(b'"sequence":1', b'"sequence":NaN'))),
    "float in the payload": Case("json-nan-or-float", _signed_body(lambda b: b.replace(b'"sequence":1', b'"sequence":1.0'))),
    "large number in the payload": Case("json-nan-or-float", _signed_body(lambda b: b.replace(b'"sequence":1', b'"sequence":9007199254740993'))),
    "trailing bytes in the payload": Case("json-invalid", _signed_body(lambda b: b + b"{}")),
    "deep payload": Case("json-too-deep", _signed_body(lambda b: b"[" * 1000 + b"]" * 1000)),
    "statement of another version": Case("statement-type", statement(lambda b: b.update(_type="https://in-toto.io/Statement/v0.1"))),
    "another predicate type": Case("predicate-type", statement(lambda b: b.update(predicateType="https://in-toto.io/attestation/test-result/v0.1"))),
    "the plan's envelope as report": Case("predicate-type", lambda m: (m.bundle / "report.dsse.json").write_bytes((m.bundle / "plan.dsse.json").read_bytes())),
    "a further statement field": Case("statement-shape", statement(lambda b: b.update(note=""))),
    "a further field": Case("report-shape", report(lambda r: r.update(remark="approved by legal"))),
    "a missing field": Case("report-shape", statement(lambda b: b["predicate"].pop("sequence"))),
    "no certificate": Case("report-shape", statement(lambda b: b["predicate"].update(certificate=None))),
    "a higher assurance": Case("report-shape", statement(lambda b: b["predicate"].update(assuranceLevel="reproduced"))),
    "no date": Case("report-shape", report(lambda r: r.update(issued="2026-03-01"))),
    "a date that is none": Case("bad-timestamp", report(lambda r: r.update(issued="2026-02-30T12:00:00Z"))),
    "expired": Case("expired", report(lambda r: r.update(expires="2026-03-01T12:00:00Z"))),
    "expires before it begins": Case("expired", report(lambda r: r.update(issued="2026-03-01T12:02:00Z", expires="2026-03-01T12:01:00Z"))),
    "of use for ever": Case("expires-too-late", report(lambda r: r.update(expires="9999-03-01T12:00:00Z"))),
    "expired long ago": Case("expired", report(lambda r: r.update(sequence=2)), how=lambda m: {"now": NOW + timedelta(days=366)}),
    "issued in the future": Case("issued-in-future", report(lambda r: r.update(issued="2026-03-01T12:06:00Z"))),
    "an older report": Case("rollback", report(lambda r: r.update(sequence=2)), how=lambda m: {"min_sequence": 3}),
}  # fmt: skip
