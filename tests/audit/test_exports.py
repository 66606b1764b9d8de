"""Exports: verified content alone, in forms that their own tools accept, whatever a name holds."""

import html
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from froc.audit import assurance, canonical_json, exports, redraw, rendering, verification
from froc.audit import keys as signing
from froc.audit.exports import ExportContext, svr
from froc.audit.exports.markdown import code
from froc.errors import InputError, VerificationError
from tests.audit import hard, variants
from tests.audit.conftest import Made

WHEN = "2026-03-02T08:00:00Z"
ABOUT_A_MODEL = ("model-card", "cyclonedx")


@pytest.fixture
def context(keys: Path) -> ExportContext:
    return ExportContext(WHEN, signing.load_signer(keys / "other"))


@pytest.fixture
def nasty(good: Made) -> verification.Result:
    """A verification of the report with the worst names; no verifier was asked."""
    report, facts = hard.made()
    return replace(good.verify(), report=report, facts=facts, verdict=report["verdict"])


@pytest.mark.parametrize("kind", ["good", "failing", "short"])
@pytest.mark.parametrize("name", exports.FORMATS)
def test_a_verified_report_is_exported(
    name: str, kind: str, context: ExportContext, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(kind)
    result = made.verify()
    if name in ABOUT_A_MODEL and kind != "good":
        with pytest.raises(InputError, match="covers no model"):
            exports.write(name, result, context)
        return
    text = exports.write(name, result, context)
    assert text == exports.write(name, result, context)
    if name != "svr":  # base64
        assert rendering.words.DECISIONS[result.verdict] in text or result.verdict in text
        assert WHEN in text or name == "page"


@pytest.mark.parametrize("name", exports.FORMATS)
def test_hostile_names_stay_text(name: str, nasty: verification.Result, context: ExportContext) -> None:
    text = exports.write(name, nasty, context)
    assert not set(text) & set("\u202e\u200b\x07")
    assert "<script" not in re.sub(r"`[^`\n]*`", "", text) or name in ABOUT_A_MODEL
    assert len(text.encode()) < 300_000


@pytest.mark.parametrize(
    "reason",
    [
        assurance.NO_CONTROL,
        assurance.UNBOUND,
        assurance.DIFFERED,
        assurance.REOPENED,
        assurance.FOREIGN,
        assurance.ORDERED,
    ],
    ids=["control", "bound", "differed", "reopened", "foreign", "ordered"],
)
def test_a_pass_with_a_reservation_is_exported_as_none(
    reason: str, originals: dict[str, Made], context: ExportContext, tmp_path: Path
) -> None:
    made = originals["again" if reason == assurance.DIFFERED else "older"]
    made = Made(Path(shutil.copytree(made.bundle, tmp_path / made.bundle.name)), made.run, made.key)
    if reason == assurance.DIFFERED:
        variants.measured_again(
            made,
            lambda measured_again: measured_again.update(
                redraw.counted(
                    (made.bundle / "losses.csv").read_bytes(),
                    7,
                    299,
                    redraw.Scope(None, frozenset({"utility"})),
                    {("c0001", "forgetting"): (1, 3)},
                )
            ),
        )
    verified = made.verify()
    if reason == assurance.UNBOUND:  # as an owner would who measures the base model and seals no weights
        verified = replace(
            verified, facts=replace(verified.facts, plan=verified.facts.plan.model_copy(update={"control": {}}))
        )
    if reason == assurance.REOPENED:
        verified = replace(verified, report={**verified.report, "opening": verified.facts.plan.openings + 1})
    if reason == assurance.FOREIGN:
        changed = {"plugins": None, "metrics": {**verified.facts.plan.metrics, "forgetting": "my_metric"}}
        verified = replace(verified, facts=replace(verified.facts, plan=verified.facts.plan.model_copy(update=changed)))
    if reason == assurance.ORDERED:  # as an owner would who tries labels until the order suits
        divided = verified.facts.plan.split.model_copy(update={"label": "0" * 64})
        plan = verified.facts.plan.model_copy(update={"split": divided})
        verified = replace(verified, facts=replace(verified.facts, plan=plan))
    assert verified.verdict == "PASS"
    assert not verified.passes
    assert reason in verified.reservations
    for name in ("markdown", "model-card", "page"):
        text = exports.write(name, verified, context)
        assert reason.partition(" (")[0] in html.unescape(text)
        assert f"{rendering.words.DECISIONS['PASS']}\n" not in text
    header = yaml.safe_load(exports.write("model-card", verified, context).split("---\n")[1])
    assert all(reason in result["metrics"][0]["config"] for result in header["model-index"][0]["results"])
    bom = json.loads(exports.write("cyclonedx", verified, context))
    attestation = bom["declarations"]["attestations"][0]
    assert {entry["conformance"]["score"] for entry in attestation["map"]} == {0}
    assert attestation["summary"].startswith(f"Not claimed: PASS; {verified.reservations[0]}")
    sure = None if reason == assurance.REOPENED else "0.9"
    assert all(
        f"({'no confidence is stated' if sure is None else f'confidence {sure}'})" in result["metrics"][0]["name"]
        for result in header["model-index"][0]["results"]
    )
    assert {entry.get("confidence", {}).get("score") for entry in attestation["map"]} == {sure and float(sure)}
    assert all(
        claim["predicate"].endswith("no stated confidence") is (sure is None) for claim in bom["declarations"]["claims"]
    )
    assert svr.check(
        exports.write("svr", verified, context).encode(),
        [signing.load_public(made.key.with_name("other.pub"))],
        verified,
    )
    body = json.loads(
        signing.verify(
            exports.write("svr", verified, context).encode(), [signing.load_public(made.key.with_name("other.pub"))]
        )[0]
    )
    properties = body["predicate"]["properties"]
    assert "FROC_VERDICT_PASS" not in properties
    assert "FROC_PASS_WITH_RESERVATIONS" in properties
    assert not any(word.startswith("FROC_RISK_WITHIN") for word in properties)


def test_code_of_other_packages_is_named(good: Made, context: ExportContext) -> None:
    verified = good.verify()
    entry = {"kind": "metric", "name": "shady", "distribution": "shady-metrics", "version": "1.0", "sha256": "a" * 64}
    foreign = replace(verified, report={**verified.report, "plugins": [entry]})
    sentence = "shady-metrics 1.0 (metric shady; code SHA-256 aaaaaaaaaaaaaaaa)"
    for name in ("markdown", "model-card", "cyclonedx", "page"):
        assert sentence in html.unescape(exports.write(name, foreign, context))
        assert "shady" not in exports.write(name, verified, context)
    header = yaml.safe_load(exports.write("model-card", foreign, context).split("---\n")[1])
    assert all(sentence in result["metrics"][0]["config"] for result in header["model-index"][0]["results"])
    assert context.signer is not None
    payload, _ = signing.verify(exports.write("svr", foreign, context).encode(), [signing.public_of(context.signer)])
    assert "FROC_OUTSIDE_CODE_metric_shady" in json.loads(payload)["predicate"]["properties"]


def test_a_name_cannot_leave_its_code_span() -> None:
    for text in (hard.ENDLESS, "``` a `b` ```", "", "` [x](https://x) @you #1 |\n- www.x.org"):
        assert re.fullmatch(r"`[^`\n]+`", code(text))
        assert len(code(text)) < 100


def test_a_summary_says_what_is_not_shown(short: Made, context: ExportContext) -> None:
    text = exports.write("markdown", short.verify(), context)
    assert text.startswith("### ❔ Unlearning audit short: Not established")
    assert "Could not be claimed" in text
    for name in short.read()["predicate"]["limits"]:
        assert f"- {rendering.words.LIMITS[name]}" in text


@pytest.mark.parametrize(
    ("tested", "sentence"), [(True, "No configuration was certified."), (False, "No configuration was tested.")]
)
def test_a_summary_without_a_configuration_says_whether_any_was_tested(
    short: Made, context: ExportContext, tested: bool, sentence: str
) -> None:
    """A screening has tested ones and reports on none."""
    result = short.verify()
    candidates = result.report["certificate"]["candidates"] if tested else []
    report = {
        **result.report,
        "config": None,
        "certificate": {**result.report["certificate"], "candidates": candidates},
    }
    lines = exports.write("markdown", replace(result, report=report), context).splitlines()
    assert [line for line in lines if line.startswith("No configuration was")] == [sentence]


@pytest.mark.parametrize("kind", ["good", "nasty"])
def test_a_model_card_reads_back(kind: str, context: ExportContext, request: pytest.FixtureRequest) -> None:
    result = request.getfixturevalue(kind)
    result = result.verify() if kind == "good" else result
    text = exports.write("model-card", result, context)
    data: Any = ModelCard(text).data
    row = exports.reported(result)
    assert row is not None
    results = data.eval_results
    assert {r.metric_type: r.metric_value for r in results} == {
        f"{risk}-risk": float(bounds["simultaneous"]) for risk, bounds in row["cur"].items()
    }
    assert {r.source_url for r in results} == {f"urn:sha256:{result.payload}"}
    assert [part.strip() for part in text.split("\n---\n")[:1]] == [text.split("\n---\n")[0].strip()]
    header = yaml.safe_load(text.split("---\n")[1])
    assert set(header) == {"model-index", "tags"}
    linked = exports.write("model-card", result, replace(context, url="https://example.org/report"))
    data = ModelCard(linked).data
    assert {r.source_url for r in data.eval_results} == {"https://example.org/report"}


@pytest.mark.parametrize("kind", ["good", "nasty"])
def test_an_ml_bom_is_valid(kind: str, context: ExportContext, request: pytest.FixtureRequest) -> None:
    result = request.getfixturevalue(kind)
    result = result.verify() if kind == "good" else result
    text = exports.write("cyclonedx", result, context)
    # its grammars take seconds to load, in every process that collects tests
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"machine-learning-model"', '"no-such-kind"')) is not None
    bom = json.loads(text)
    assert text.isascii()
    limits = bom["metadata"]["component"]["modelCard"]["considerations"]["technicalLimitations"]
    reserved = [] if result.passes else [f"no plain pass: {reason}" for reason in result.reservations]
    assert limits == [rendering.words.LIMITS[name] for name in result.report["limits"]] + reserved
    references = {r["bom-ref"] for r in bom["definitions"]["standards"][0]["requirements"]}
    assert references == {row["requirement"] for row in bom["declarations"]["attestations"][0]["map"]}
    hashes = {file["name"]: file["hashes"][0]["content"] for file in bom["components"]}
    assert hashes == dict(result.facts.files)


Change = Callable[[dict[str, Any]], object]


def _statement(result: verification.Result, context: ExportContext, change: Change) -> bytes:
    """An svr statement that says something else, with a signature that is trusted."""
    assert context.signer is not None
    payload, _ = signing.verify(exports.write("svr", result, context).encode(), [signing.public_of(context.signer)])
    statement = json.loads(payload)
    change(statement)
    return signing.sign(canonical_json.compact(statement), [context.signer])


def test_an_svr_statement_agrees_with_its_report(good: Made, failing: Made, context: ExportContext) -> None:
    assert context.signer is not None
    key = signing.public_of(context.signer)
    for made in (good, failing):
        result = made.verify()
        data = exports.write("svr", result, context).encode()
        assert svr.check(data, [key], result) == (key.keyid, WHEN)
    statement = json.loads(signing.verify(exports.write("svr", good.verify(), context).encode(), [key])[0])
    assert statement["predicateType"] == "https://in-toto.io/attestation/svr/v0.2"
    assert "FROC_VERDICT_PASS" in statement["predicate"]["properties"]
    assert "FROC_RISK_WITHIN_forgetting_0.1" in statement["predicate"]["properties"]
    # one that was made without the model shows less, and is no contradiction to somebody who has it
    lesser = exports.write("svr", good.verify(model=None), context).encode()
    assert svr.check(lesser, [key], good.verify()) == (key.keyid, WHEN)
    with pytest.raises(VerificationError, match="svr-contradicts"):
        svr.check(exports.write("svr", good.verify(), context).encode(), [key], good.verify(model=None))


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("svr-contradicts", lambda s: s["predicate"]["properties"].append("FROC_VERDICT_PASS")),
        ("svr-contradicts", lambda s: s["predicate"]["properties"].pop()),
        ("svr-contradicts", lambda s: s["predicate"].update(note="trust me")),
        ("svr-contradicts", lambda s: s["predicate"]["verifier"]["policies"].pop()),
        ("bad-timestamp", lambda s: s["predicate"].pop("timeCreated")),
        ("bad-timestamp", lambda s: s["predicate"].update(timeCreated="verified by nobody")),
        ("svr-time", lambda s: s["predicate"].update(timeCreated="2999-01-01T00:00:00Z")),
        ("svr-time", lambda s: s["predicate"].update(timeCreated="2026-02-28T00:00:00Z")),
        ("svr-type", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
        ("svr-type", lambda s: s.update(note="trust me")),
        ("svr-subject", lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
        ("svr-type", lambda s: s.update(predicateType="https://in-toto.io/attestation/test-result/v0.1")),
    ],
)
def test_an_svr_statement_cannot_contradict_its_report(
    check: str, change: Change, failing: Made, context: ExportContext
) -> None:
    assert context.signer is not None
    result = failing.verify()
    with pytest.raises(VerificationError, match=check):
        svr.check(_statement(result, context, change), [signing.public_of(context.signer)], result)


def test_an_svr_statement_is_of_its_report_and_signer(good: Made, failing: Made, context: ExportContext) -> None:
    assert context.signer is not None
    data, key = exports.write("svr", good.verify(), context).encode(), signing.public_of(context.signer)
    with pytest.raises(VerificationError, match="svr-subject"):
        svr.check(data, [key], failing.verify())
    with pytest.raises(VerificationError, match="signature-threshold"):
        svr.check(data, [signing.load_public(good.public)], good.verify())
    with pytest.raises(InputError, match="--sign KEY"):
        exports.write("svr", good.verify(), replace(context, signer=None))


def test_an_unknown_format_is_refused(good: Made, context: ExportContext) -> None:
    with pytest.raises(InputError, match="there are: page, markdown"):
        exports.write("pdf", good.verify(), context)


def test_a_bound_above_its_budget_is_explained_where_it_is_certified(good: Made, context: ExportContext) -> None:
    verified = good.verify()
    assert rendering.words.ABOVE not in exports.write("markdown", verified, context)
    report = json.loads(json.dumps(verified.report))
    rows = report["certificate"]["candidates"]
    next(row for row in rows if row["config"] == report["config"])["cur"]["utility"]["simultaneous"] = "0.2"
    above = replace(verified, report=report)
    for name in ("markdown", "model-card", "page"):
        assert rendering.words.ABOVE in html.unescape(exports.write(name, above, context))
