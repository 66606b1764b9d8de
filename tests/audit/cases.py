"""Every way to cheat that is known, as a change of a bundle that verifies, with the check that must refuse it.

The numbers are those of the published list of cases that this room was built against (a selection: numbers have gaps).

| no. | attack | cases, and where they stand |
| --- | --- | --- |
| 1 | payload changed | `payload replaced`, `a byte of the payload` |
| 2 | signature bit flipped | `signature replaced`, `a bit of the signature` |
| 3 | signatures emptied | `signatures emptied` |
| 4 | attacker's key under the trusted keyid | `another key under the trusted keyid` |
| 5 | key shipped in the bundle | `an unlisted folder` |
| 6, 80 | threshold 2 met by one key under two names | `one key under two keyids`, `one key signs twice`; trusted twice: test_verification |
| 7 | one of two required signatures removed | `one of two signatures removed` |
| 8 | signature malleated (S + L) | `a malleated signature` |
| 9, 10 | payload type rewritten; the key signed another type | `payload type rewritten`, `another payload type signed` |
| 11, 12 | another predicate type; statement v0.1 | `another predicate type`, `the plan's envelope as report`, `statement of another version` |
| 13, 14 | algorithm confusion | `an algorithm in the envelope`, `an ECDSA signature ...`, `ECDSA ...`. The algorithm is the trusted key's, said nowhere in the data; other keys: test_signing |
| 15, 16 | duplicate JSON keys | `duplicate key in the envelope`, `... in the payload`, `plan with a key twice` |
| 17-19 | NaN, 1e999, floats, large numbers | `NaN ...`, `float ...`, `large number ...`, `plan with NaN`, `plan with an endless number` |
| 20 | too large to parse | `a line of 17 MB in the log` |
| 21-23 | depth, encoding, trailing bytes | `nested deeply`, `deep payload`, `UTF-16`, `half a surrogate pair`, `trailing bytes ...` |
| 24, 25 | revoked key, key outside its window | `a key revoked since`, `a key past its end`, `a key before its beginning`, `stamped after the key was revoked`; others: test_trust |
| - | time stamps | cases with a `time stamp`; `stamped ...`; who pins no authority believes none |
| 26-28 | expired, from the future, rolled back | `expired`, `expires before it begins`, `issued in the future`, `an older report` |
| 29-33 | another model; byte, name, file changed, added, removed | `another run's model`, `a weight changed`, MODEL_ATTACKS |
| 35-37 | link, pickle, code in the model | `a link among the model's files`, MODEL_ATTACKS |
| 38, 39 | path traversal; weak digest | `path traversal`, `absolute path`; `md5`, `digest in capitals` |
| 40, 41, 67, 71, 77 | outsider edits a file | `a loss lowered`, `an older table`, `a trial removed`, `the budget raised`, `the page edited`, ... |
| 43-45 | unlisted, linked, oversized file | `an unlisted file`, `a link in the bundle`, `a pipe in the bundle`, `a file too large` |
| 46-50 | statistics, certified set, choice, verdict by the signer | SIGNER from `p-value lowered` to `FAIL written over PASS`; `PASS over FAIL` |
| 51-54 | rows dropped, repeated, unplanned | `worst row dropped`, `a query dropped for all`, `row repeated`, `unplanned configuration`, `unplanned risk` |
| 55-62 | malformed losses | `loss ...` |
| 63-65 | text columns, readable ids | `text column`, `text cells`, `readable query`, `another form of unit` |
| 66, 68-70, 83 | trials removed, repeated, of another plan, too early, of unknown status | `trial ...`, `failed trial removed`, `unknown trial status` |
| 73 | calibration picked, not drawn | listed: `queries picked against the auditor's seed`; else the pool is not held, only `queries sealed that were not planned` |
| 74 | one example in both pools | cannot be said: a query's id is keyed with its pool, and ids of different pools never meet |
| 75 | repeated ids inflate n | `row repeated`, `more units planned than measured`, `order names a query twice` |
| 76 | sample too small | too small a sample certifies nothing, which is the verdict; one that may tell about single units is refused by the builder, or said: `a small sample that is not said` |
| 78, 79 | page says other than the data; script on the page | `another page`, `a script on the page` |
| 82, 85 | tree digest, subjects twice | `tree digest`, `subject twice`, `subjects that differ in capitals` |
| 84 | chain head | the log has no chain: it is complete, and listed by digest in the signed report |
| 86 | malformed date | `no date`, `a date that is none`, `plan signed on no day` |
"""

import base64
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.dsse import Envelope

from audit import evidence, facts, signing
from froc import digest
from tests.audit import variants
from tests.audit.attacks import LIES, MODEL_ATTACKS, OUTSIDER, SIGNER
from tests.audit.conftest import NOW, Made

Attack = Callable[[Made], object]
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Order of Ed25519's group: S + ORDER is the same signature to a careless verifier."""


@dataclass(frozen=True)
class Case:
    """A change of the original `of`; check: the code that refuses it; how: arguments of the verifier, from the mutant."""

    check: str
    attack: Attack
    of: str = "good"
    how: Callable[[Made], Mapping[str, Any]] = field(default=lambda made: {})


def mutant(original: Made, case: Case, folder: Path) -> Made:
    """A copy of a bundle and its model in an empty folder, changed; it must differ from the original."""
    made = Made(folder / original.bundle.name, folder / "run", original.key)
    shutil.copytree(original.bundle, made.bundle)
    if original.model is not None:
        shutil.copytree(original.model, folder / "run" / "model")
    before = _state(made)
    case.attack(made)
    assert _state(made) != before, "the mutant changed nothing"
    return made


def _state(made: Made) -> dict[str, tuple[int, bytes]]:
    """What stands on disk: kinds of files, and bytes."""
    places = [path for folder in (made.bundle, made.model) if folder for path in folder.rglob("*")]
    return {str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in places}


def _envelope(change: Callable[[dict[str, Any]], object]) -> Attack:
    def attack(made: Made) -> None:
        path = made.bundle / "report.dsse.json"
        document = json.loads(path.read_bytes())
        change(document)
        path.write_bytes(signing.compact(document))

    return attack


def _flip(part: Callable[[dict[str, Any]], tuple[dict[str, Any], str]]) -> Attack:
    """Flip a bit of base64 text, decoded."""

    def change(document: dict[str, Any]) -> None:
        holder, name = part(document)
        data = bytearray(base64.b64decode(holder[name]))
        data[len(data) // 2] ^= 1
        holder[name] = base64.b64encode(data).decode()

    return _envelope(change)


def _malleate(document: dict[str, Any]) -> None:
    data = base64.b64decode(document["signatures"][0]["sig"])
    whole = int.from_bytes(data[32:], "little") + ORDER
    document["signatures"][0]["sig"] = base64.b64encode(data[:32] + whole.to_bytes(32, "little")).decode()


def _loose(document: dict[str, Any]) -> None:
    """The same signature in other letters: the last one before the padding holds bits that mean nothing."""
    text = document["signatures"][0]["sig"]
    assert text.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    document["signatures"][0]["sig"] = text[:-3] + alphabet[alphabet.index(text[-3]) + 1] + "=="


def _again(keyid: str | None) -> Attack:
    """The one signature twice, the second under another keyid."""
    return _envelope(lambda d: d["signatures"].append({**d["signatures"][0], **({"keyid": keyid} if keyid else {})}))


def _other_type(made: Made) -> None:
    envelope = Envelope(signing.compact(made.read()), "application/json", {})
    envelope.sign(signing.load_signer(made.key))
    (made.bundle / "report.dsse.json").write_bytes(signing.compact(envelope.to_dict()))


def _linked(made: Made) -> None:
    path = made.bundle / "losses.csv"
    path.rename(made.bundle.parent / "elsewhere.csv")
    path.symlink_to(made.bundle.parent / "elsewhere.csv")


def _pipe(made: Made) -> None:
    (made.bundle / "losses.csv").unlink()
    os.mkfifo(made.bundle / "losses.csv")


def _model_link(made: Made) -> None:
    assert made.model is not None
    path = made.model / "config.json"
    path.rename(made.bundle.parent / "config.json")
    path.symlink_to(made.bundle.parent / "config.json")


def _model_byte(made: Made) -> None:
    assert made.model is not None
    path = made.model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _other_model(made: Made) -> None:
    """A model that is as good as the signed one, of another run."""
    assert made.model is not None
    path = made.model / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 6', '"hidden_size": 7'))
    _model_byte(made)


def _older_table(made: Made) -> None:
    path = made.bundle / "losses.csv"
    path.write_text(path.read_text().replace("c0003", "c0002"))


def _resigned(name: str, change: Callable[[dict[str, Any]], object]) -> Attack:
    """Edit a JSON file of the bundle and sign it in."""

    def attack(made: Made) -> None:
        document = json.loads((made.bundle / name).read_bytes())
        change(document)
        (made.bundle / name).write_text(json.dumps(document))
        made.resign()

    return attack


def _replan(change: Callable[[dict[str, Any]], object], seal: Callable[[dict[str, Any]], object] = bool) -> Attack:
    """Another plan in all places that refer to it: a lie that only what was measured can refute."""

    def attack(made: Made) -> None:
        path = made.bundle / "plan.json"
        old = digest.of_file(path)
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        new = digest.of_file(path)
        body = made.read("plan.dsse.json")
        body["predicate"]["plan"] = signing.exact(document)
        body["subject"][0]["digest"]["sha256"] = new
        made.sign(signing.compact(body), "plan.dsse.json")
        made.edit("trials.jsonl", lambda text: text.replace(old, new))
        sealed = json.loads((made.bundle / "seal.json").read_text()) | {"plan": new}
        seal(sealed)
        (made.bundle / "seal.json").write_text(json.dumps(sealed))
        made.resign(lambda report: report["plan"].update(sha256=new))

    return attack


def _compared(change: Callable[[dict[str, Any]], object]) -> Attack:
    """Edit plan or seal of a comparison; the seal names the plan as it then is."""

    def edit(document: dict[str, Any]) -> None:
        change(document)
        plan = json.dumps(document["plan"], indent=2, sort_keys=True) + "\n"
        document["seal"]["plan"] = digest.of_bytes(plan.encode())

    return _resigned("comparison.json", edit)


def _raw(name: str, change: Callable[[bytes], bytes]) -> Attack:
    def attack(made: Made) -> None:
        path = made.bundle / name
        path.write_bytes(change(path.read_bytes()))
        made.resign()

    return attack


def _cell(place: int, value: str) -> Attack:
    def change(data: bytes) -> bytes:
        lines = data.decode().split("\n")
        cells = lines[5].split(",")
        cells[place] = value
        lines[5] = ",".join(cells)
        return "\n".join(lines).encode()

    return _raw("losses.csv", change)


def _report(change: Callable[[dict[str, Any]], object]) -> Attack:
    return lambda made: made.resign(change)


def _statement(change: Callable[[dict[str, Any]], object]) -> Attack:
    return lambda made: made.restate(change)


def _pass_another(made: Made) -> None:
    """A report about a configuration that is certified, not chosen, and covers no model."""
    plan = digest.of_file(made.bundle / "plan.json")
    made.restate(lambda body: body.update(subject=[{"name": "plan.json", "digest": {"sha256": plan}}]))

    def change(report: dict[str, Any]) -> None:
        report.update(asked="c0003", config="c0003")
        report["model"].update(config="c0003", files=0)
        report["model"]["treeDigest"].update(value=None)
        report["limits"].append("no-model-covered")

    made.resign(change)


def _twice_in_order(seal: dict[str, Any]) -> None:
    seal["order"].append(seal["order"][0])


MORE: dict[str, Case] = {
    # envelope and signature
    "a byte of the payload": Case("signature-threshold", _flip(lambda d: (d, "payload"))),
    "a bit of the signature": Case("signature-threshold", _flip(lambda d: (d["signatures"][0], "sig"))),
    "a malleated signature": Case("signature-threshold", _envelope(_malleate)),
    "unused bits of a signature": Case("envelope-shape", _envelope(_loose)),
    "an algorithm in the envelope": Case("envelope-shape", _envelope(lambda d: d["signatures"][0].update(alg="none"))),
    "another payload type signed": Case("payload-type", _other_type),
    "one key signs twice": Case("envelope-shape", _again(None), how=lambda m: {"threshold": 2}),
    "one key under two keyids": Case("signature-threshold", _again("c" * 64), how=lambda m: {"threshold": 2, "keys": [m.public, m.key.with_name("other.pub")]}),
    "one of two signatures removed": Case("signature-threshold", _envelope(lambda d: d["signatures"].pop()), "both", lambda m: {"threshold": 2, "keys": [m.public, m.key.with_name("other.pub")]}),
    # strict JSON
    "UTF-16": Case("json-invalid", lambda m: (m.bundle / "report.dsse.json").write_bytes((m.bundle / "report.dsse.json").read_text().encode("utf-16"))),
    "half a surrogate pair": Case("json-invalid", _raw("seal.json", lambda b: b.replace(b'"npo"', b'"\\ud800"', 1))),
    "plan with an endless number": Case("json-nan-or-float", lambda m: _number(m, "1e999")),
    "a line of 17 MB in the log": Case("json-too-large", _raw("trials.jsonl", lambda b: b[:-1] + b" " * 17_000_000 + b"\n")),
    # dates
    "expired": Case("expired", _report(lambda r: r.update(expires="2026-03-01T12:00:00Z"))),
    "expires before it begins": Case("expired", _report(lambda r: r.update(issued="2026-03-01T12:02:00Z", expires="2026-03-01T12:01:00Z"))),
    "issued in the future": Case("issued-in-future", _report(lambda r: r.update(issued="2026-03-01T12:06:00Z"))),
    "expired long ago": Case("expired", _report(lambda r: r.update(sequence=2)), how=lambda m: {"now": NOW + timedelta(days=366)}),
    "an older report": Case("rollback", _report(lambda r: r.update(sequence=2)), how=lambda m: {"min_sequence": 3}),
    "plan signed on no day": Case("bad-timestamp", lambda m: (m.restate(lambda b: b["predicate"].update(signed="2026-02-30T12:00:00Z"), "plan.dsse.json"), m.resign())),
    # files
    "a link in the bundle": Case("bundle-symlink-or-special", _linked),
    "a pipe in the bundle": Case("bundle-symlink-or-special", _pipe),
    "an older table": Case("evidence-digest:losses.csv", _older_table),
    "a comparison edited": Case("evidence-digest:comparison.json", lambda m: m.edit("comparison.json", lambda t: t.replace("0.95", "0.94")), "compared"),
    "a link among the model's files": Case("model-symlink", _model_link),
    "a weight changed": Case("model-mismatch", _model_byte),
    "another run's model": Case("model-mismatch", _other_model),
    # subjects
    "a subject without a name": Case("subject-name-or-digest", _statement(lambda b: b["subject"][0].pop("name"))),
    "subjects in another order": Case("subject-name-or-digest", _statement(lambda b: b["subject"].reverse())),
    "subjects that differ in capitals": Case("subject-duplicate", _statement(lambda b: b["subject"].insert(0, {**b["subject"][0], "name": "CONFIG.json"}))),
    # plan and seal
    "signed plan with a remark": Case("plan-shape", lambda m: (m.restate(lambda b: b["predicate"].update(note=""), "plan.dsse.json"), m.resign())),
    "a blank added to the plan": Case("plan-digest", _raw("plan.json", lambda b: b + b" ")),
    "plan without a bound": Case("plan-shape", _replan(lambda p: p["bound"].pop("utility"))),
    "plan with units of another risk": Case("plan-shape", _replan(lambda p: p["task"]["units"].update(privacy="query"))),
    "plan with an endless list": Case("plan-shape", _replan(lambda p: p["listed"].update(forgetting=10**15))),
    "plan with no opening": Case("plan-shape", _replan(lambda p: p.update(openings=0))),
    "fewer trials planned than sealed": Case("seal-candidates", _replan(lambda p: p["search"].update(candidates=2))),
    "fewer trials planned than run": Case("trial-index", _replan(lambda p: p["search"].update(trials=4))),
    "queries sealed that were not planned": Case("seal-other-queries", _resigned("seal.json", lambda s: s["calibration"].update(utility="f" * 64))),
    "seal with a remark": Case("seal-shape", _resigned("seal.json", lambda s: s.update(note=""))),
    "an order where nothing may stop early": Case("seal-order", _resigned("seal.json", lambda s: s.update(order=[]))),
    "no order where measuring may stop early": Case("seal-order", _resigned("seal.json", lambda s: s.pop("order")), "early"),
    "order of other queries": Case("seal-order", _resigned("seal.json", lambda s: s["order"].pop()), "early"),
    "order names a query twice": Case("seal-order", _resigned("seal.json", _twice_in_order), "early"),
    "more units ordered than planned": Case("plan-units", _replan(lambda p: p["split"]["calibration"].update(utility=59)), "early"),
    "more units planned than measured": Case("plan-units", _replan(lambda p: p["split"]["calibration"].update(forgetting=2400))),
    "stopped early, then later units": Case("statistics-refused", _raw("losses.csv", lambda b: _without(b, 3)), "early"),
    "other queries planned and sealed": Case("table-other-queries", _replan(lambda p: p["split"]["queries"].update(utility="f" * 64), lambda s: s["calibration"].update(utility="f" * 64))),
    "more search units planned with a list": Case("table-other-queries", _replan(lambda p: p["population"].update(forgetting="sample"))),
    # trials
    "seal counts more trials": Case("trial-count", _resigned("seal.json", lambda s: s.update(trials=40))),
    "seal counts fewer trials": Case("trial-count", _resigned("seal.json", lambda s: s.update(trials=0))),
    "log without a last line feed": Case("trial-line-ending", _raw("trials.jsonl", lambda b: b[:-1])),
    "text as a trial's reason": Case("trial-shape", _raw("trials.jsonl", lambda b: b.replace(b'"ValueError at froc.methods.npo:33"', b'"ann lives in paris"', 1))),
    "text as a trial's mean": Case("trial-shape", _raw("trials.jsonl", lambda b: b.replace(b'"utility":"0.031"', b'"utility":"ann"', 1))),
    "text as a trial's end": Case("trial-shape", _raw("trials.jsonl", lambda b: b.replace(b'"ended":"2026', b'"ended":"ann', 1))),
    "trial of another name": Case("trial-index", _raw("trials.jsonl", lambda b: b.replace(b'"config":"c0001"', b'"config":"c0009"', 1))),
    # table
    "loss of neither 0 nor 1": Case("statistics-refused", _cell(5, "500")),
    "another form of configuration": Case("table-config", _cell(0, "best")),
    "another form of risk": Case("table-risk", _cell(2, "Ann")),
    "another form of unit": Case("table-unit-id", _cell(3, "ann")),
    # report
    "PASS over FAIL": Case("verdict-differ", _report(lambda r: r.update(verdict="PASS")), "failing"),
    "PASS over NOT_ESTABLISHED": Case("verdict-differ", _report(lambda r: r.update(verdict="PASS")), "short"),
    "claims passed over FAIL": Case("claims-differ", _report(lambda r: r["claims"][0].update(passed=True)), "failing"),
    "an unplanned opening called the first": Case("statistics-differ", _report(lambda r: r["certificate"]["opening"].update(number=1, statement="first")), "short"),
    "another certified one passes": Case("selected-differ", _pass_another, how=lambda m: {"model": None}),
    "another environment": Case("environment-differ", _report(lambda r: r["environment"].update(python="3.99"))),
    "no certificate": Case("report-shape", lambda m: m.restate(lambda b: b["predicate"].update(certificate=None))),
    # comparison
    "a comparison about another model": Case("comparison-other-task", _compared(lambda d: d["plan"]["model"].update(digest="1" * 64)), "compared"),
    "a comparison of other queries": Case("comparison-other-queries", _compared(lambda d: d["seal"]["calibration"].update(utility="f" * 64)), "compared"),
    "a comparison of a point mixed by nothing": Case("comparison-refused", _compared(lambda d: d["seal"]["candidates"][1]["params"].pop("mix")), "compared"),
    "a comparison without a level": Case("comparison-stages", _compared(lambda d: d["seal"]["stages"].pop("0.95")), "compared"),
    "a comparison without a method at one level": Case("comparison-stages", _compared(lambda d: d["seal"]["stages"]["0.95"].pop("rmu")), "compared"),
    "a comparison under another method's name": Case("comparison-shape", _compared(lambda d: d["seal"]["stages"]["0.95"].update(rmu="npo/c0001@0.5000")), "compared"),
    "a comparison opened never": Case("comparison-shape", _compared(lambda d: d.update(opening=0)), "compared"),
}  # fmt: skip


def _number(made: Made, number: str) -> None:
    made.edit("plan.json", lambda text: text.replace("0.15", number))
    found = digest.of_file(made.bundle / "plan.json")
    made.restate(lambda body: body["subject"][0]["digest"].update(sha256=found), "plan.dsse.json")
    made.resign()


def _without(data: bytes, place: int) -> bytes:
    lines = data.split(b"\n")
    del lines[place]
    return b"\n".join(lines)


def _on_model(attack: Callable[[Any], object]) -> Attack:
    return lambda made: attack(made.model)


CASES: dict[str, Case] = {
    **{name: Case(check, attack) for name, (check, attack) in (OUTSIDER | SIGNER).items()},
    **{f"model: {name}": Case(check, _on_model(attack)) for name, (check, attack) in MODEL_ATTACKS.items()},
    **{f"comparison: {name}": Case(check, attack, "compared") for name, (check, attack) in LIES.items()},
    **MORE,
}
assert len(CASES) == len(OUTSIDER) + len(SIGNER) + len(MODEL_ATTACKS) + len(LIES) + len(MORE), "a name is there twice"


def trusting(
    made: Made, tsa: bool = False, roles: Mapping[str, int] | None = None, approver: Mapping[str, Any] | None = None,
    **first: Any,
) -> Mapping[str, Any]:  # fmt: skip
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


def _both(made: Made) -> Mapping[str, Any]:
    """One of each must have signed."""
    return trusting(made, roles={"engineer": 1, "approver": 1})


def _pinned(made: Made) -> Mapping[str, Any]:
    return trusting(made, tsa=True)


def _keep_one(made: Made) -> None:
    _envelope(lambda document: document["signatures"].pop(_place_of(made, document, "other")))(made)


def _place_of(made: Made, document: Mapping[str, Any], key: str) -> int:
    keyid = signing.load_public(made.key.with_name(f"{key}.pub")).keyid
    return next(k for k, one in enumerate(document["signatures"]) if one["keyid"] == keyid)


def _rename_role(made: Made) -> None:
    """Both sign a report that calls the engineer an auditor."""
    made.resign(lambda report: report["signers"][0].update(role="auditor"))
    signers = [signing.load_signer(made.key), signing.load_signer(made.key.with_name("other"))]
    (made.bundle / "report.dsse.json").write_bytes(signing.sign(signing.compact(made.read()), signers))


def _pick(made: Made) -> None:
    """Another bundle in its place, built by somebody who leaves the check of the draw out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "_draw", lambda *_: None)
        run = variants.PICKED["run"]
        built = evidence.build(run, made.bundle.parent / "picked", made.key, name="drawn", now=NOW)
    shutil.rmtree(made.bundle)
    shutil.move(built, made.bundle)


def _signed_by(key: str) -> Attack:
    """The report signed by a key of another kind, under the keyid of the trusted one."""

    def attack(made: Made) -> None:
        data = signing.sign(signing.compact(made.read()), [signing.load_signer(made.key.with_name(key))])
        document = json.loads(data)
        document["signatures"][0]["keyid"] = signing.load_public(made.public).keyid
        (made.bundle / "report.dsse.json").write_bytes(signing.compact(document))

    return attack


def _ecdsa(algorithm: hashes.HashAlgorithm) -> Attack:
    """The trusted key's own signature, with a hash that is not its."""

    def attack(made: Made) -> None:
        private = load_pem_private_key(made.key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        body = Envelope(signing.compact(made.read()), signing.PAYLOAD_TYPE, {}).pae()
        sig = base64.b64encode(private.sign(body, ec.ECDSA(algorithm))).decode()
        _envelope(lambda document: document["signatures"][0].update(sig=sig))(made)

    return attack


def _pair(document: dict[str, Any]) -> tuple[int, int]:
    return decode_dss_signature(base64.b64decode(document["signatures"][0]["sig"]))


def _raw_pair(document: dict[str, Any]) -> None:
    data = b"".join(number.to_bytes(32, "big") for number in _pair(document))
    document["signatures"][0]["sig"] = base64.b64encode(data).decode()


def _long_form(document: dict[str, Any]) -> None:
    """The same numbers, with a length in the form that DER forbids here."""
    data = base64.b64decode(document["signatures"][0]["sig"])
    document["signatures"][0]["sig"] = base64.b64encode(data[:1] + b"\x81" + data[1:]).decode()


def _next(made: Made) -> None:
    made.resign(lambda report: report.update(sequence=2))


def _earlier(made: Made) -> bytes:
    (signature,) = signing.signatures((made.bundle / "plan.dsse.json").read_bytes()).values()
    return variants.CLOCKS["trusted"].stamp(signature, variants.PLANNED - timedelta(minutes=20))


def _again(change: Callable[[dict[str, Any]], object], **more: Any) -> Attack:
    return lambda made: variants.measured_again(made, change, **more)


CASES |= {
    "an approver's signature removed": Case("signature-role", _keep_one, "both", _both),
    "a role of the signer's own": Case("signers-differ", _rename_role, "both", _both),
    "a key revoked since": Case(
        "key-revoked-or-out-of-window", _next, how=lambda m: trusting(m, revoked="2026-03-01T12:00:00Z")
    ),
    "a key past its end": Case(
        "key-revoked-or-out-of-window", _next, how=lambda m: trusting(m, not_after="2026-03-01T11:59:59Z")
    ),
    "a key before its beginning": Case(
        "key-revoked-or-out-of-window", _next, how=lambda m: trusting(m, not_before="2026-03-01T12:00:01Z")
    ),
    "stamped after the key was revoked": Case(
        "key-revoked-or-out-of-window",
        lambda m: variants.token(m, NOW + timedelta(days=2)),
        "stamped",
        lambda m: trusting(m, tsa=True, revoked="2026-03-02T12:00:00Z") | {"now": NOW + timedelta(days=3)},
    ),
    "a stamped plan under a report that nobody stamped": Case(
        "key-revoked-or-out-of-window",
        lambda m: next(m.bundle.glob("report-*.tsr")).unlink(),
        "stamped",
        lambda m: trusting(m, tsa=True, revoked="2026-03-02T12:00:00Z") | {"now": NOW + timedelta(days=3)},
    ),
    "a stamped report over a plan that nobody stamped": Case(
        "key-revoked-or-out-of-window",
        lambda m: variants.token(m, NOW),
        "good",
        lambda m: trusting(m, tsa=True, revoked="2026-03-02T12:00:00Z") | {"now": NOW + timedelta(days=3)},
    ),
    "a time stamp by another authority": Case(
        "timestamp-untrusted", lambda m: variants.token(m, NOW, "other"), "stamped", _pinned
    ),
    "a time stamp over something else": Case(
        "timestamp-other-signature", lambda m: variants.token(m, NOW, over=b"another signature"), "stamped", _pinned
    ),
    "a time stamp of a signature that is not there": Case(
        "timestamp-other-signature", lambda m: variants.token(m, NOW, keyid="c" * 64), "stamped"
    ),
    "a time stamp that is none": Case(
        "timestamp-shape",
        lambda m: next(m.bundle.glob("report-*.tsr")).write_bytes(b"a time stamp"),
        "stamped",
        _pinned,
    ),
    "an earlier time stamp of the plan": Case(
        "evidence-digest:plan.tsr",
        lambda m: (m.bundle / "plan.tsr").write_bytes(_earlier(m)),
        "stamped",
        _pinned,
    ),
    "the plan's time stamp removed": Case("evidence-list", lambda m: (m.bundle / "plan.tsr").unlink(), "stamped"),
    "an ECDSA signature under an Ed25519 key": Case("signature-threshold", _signed_by("curve")),
    "an Ed25519 signature under an ECDSA key": Case("signature-threshold", _signed_by("key"), "curve"),
    "a P-384 signature under a P-256 key": Case("signature-threshold", _signed_by("wide"), "curve"),
    "ECDSA with another hash": Case("signature-threshold", _ecdsa(hashes.SHA384()), "curve"),
    "ECDSA with a weaker hash": Case("signature-threshold", _ecdsa(hashes.SHA256()), "wide"),
    "ECDSA of nothing": Case(
        "signature-threshold", _envelope(lambda d: d["signatures"][0].update(sig="MAYCAQACAQA=")), "curve"
    ),
    "ECDSA without DER": Case("signature-threshold", _envelope(_raw_pair), "curve"),
    "ECDSA in loose DER": Case("signature-threshold", _envelope(_long_form), "curve"),
    "a small sample that is not said": Case(
        "limits-differ", lambda m: m.resign(lambda r: r["limits"].remove("small-sample")), "small"
    ),
    "a small sample that there is not": Case(
        "limits-differ", lambda m: m.resign(lambda r: r["limits"].append("small-sample"))
    ),
    "no auditor's seed": Case(
        "audit-seed-differs", lambda m: m.resign(lambda r: r.update(sequence=2)), how=lambda m: {"audit_seed": 5}
    ),
    "queries picked against the auditor's seed": Case("plan-draw", _pick, "drawn"),
    "measured again: another report": Case(
        "reexecution-other-report", _again(lambda s: None, payload="0" * 64), "again"
    ),
    "measured again: by nobody who is trusted": Case(
        "reexecution-signer", _again(lambda s: None, key="other"), "again"
    ),
    "measured again: by a key that was revoked": Case(
        "key-revoked-or-out-of-window",
        lambda m: variants.measured_again(
            m, lambda s: s.update(keyid=signing.load_public(m.key.with_name("other.pub")).keyid), key="other"
        ),
        "again",
        lambda m: trusting(m, approver={"revoked": "2026-03-01T12:00:00Z"}),
    ),
    "measured again: in another's name": Case(
        "reexecution-signer", _again(lambda s: s.update(keyid="c" * 64)), "again"
    ),
    "measured again: before the report": Case(
        "reexecution-before-report", _again(lambda s: s.update(signed="2026-02-28T12:00:00Z")), "again"
    ),
    "measured again: a model that is not covered": Case(
        "reexecution-other-report",
        lambda m: variants.measured_again(m, config=m.read()["predicate"]["config"]),
        "failing",
    ),
    "measured again: rows that were picked": Case(
        "reexecution-draw", _again(lambda s: s.update(lines=list(range(2, 301)))), "again"
    ),
    "measured again: a difference that nobody counted": Case(
        "reexecution-counts", _again(lambda s: s.update(largest=3)), "again"
    ),
    "measured again: a smaller bound": Case("reexecution-bound", _again(lambda s: s.update(bound="0.0001")), "again"),
    "measured again: more is said": Case("reexecution-shape", _again(lambda s: s.update(note="all is well")), "again"),
}
