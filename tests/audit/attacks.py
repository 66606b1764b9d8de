"""Ways to cheat: by an outsider, who changes bytes, and by a signer who holds the trusted key, edits what it likes and signs

again. Each table: name -> (the check that must refuse it, the change). `tests.audit.cases` puts them together.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit import records, signing
from froc import digest
from tests.audit.conftest import Made


def _envelope(made: Any, change: Callable[[dict[str, Any]], object]) -> None:
    path = made.bundle / "report.dsse.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(signing.compact(document))


def _raw(made: Any, change: Callable[[bytes], bytes]) -> None:
    path = made.bundle / "report.dsse.json"
    path.write_bytes(change(path.read_bytes()))


def _with_other_key(made: Any, keyid: str | None = None) -> None:
    body = signing.compact(made.read())
    signer = signing.load_signer(made.key.with_name("other"))
    document = json.loads(signing.sign(body, [signer]))
    document["signatures"][0]["keyid"] = keyid or document["signatures"][0]["keyid"]
    (made.bundle / "report.dsse.json").write_bytes(signing.compact(document))


OUTSIDER: dict[str, tuple[str, Callable[[Any], object]]] = {
    "signatures emptied": ("envelope-shape", lambda m: _envelope(m, lambda d: d.update(signatures=[]))),
    "signature replaced": ("signature-threshold", lambda m: _envelope(m, lambda d: d["signatures"][0].update(sig="A" * 86 + "=="))),
    "payload replaced": ("signature-threshold", lambda m: _envelope(m, lambda d: d.update(payload="e30="))),
    "payload loosely encoded": ("envelope-shape", lambda m: _envelope(m, lambda d: d.update(payload=d["payload"] + "\n"))),
    "payload type rewritten": ("payload-type", lambda m: _envelope(m, lambda d: d.update(payloadType="text/plain"))),
    "unknown envelope field": ("envelope-shape", lambda m: _envelope(m, lambda d: d.update(alg="none"))),
    "signature field of another type": ("envelope-shape", lambda m: _envelope(m, lambda d: d["signatures"][0].update(sig=7))),
    "envelope is a list": ("envelope-shape", lambda m: _raw(m, lambda b: b"[" + b + b"]")),
    "duplicate key in the envelope": ("json-duplicate-key", lambda m: _raw(m, lambda b: b.replace(b'{"payload":', b'{"payload":"","payload":', 1))),
    "blanks in the envelope": ("envelope-shape", lambda m: _raw(m, lambda b: b.replace(b",", b", ", 1))),
    "trailing bytes": ("json-invalid", lambda m: _raw(m, lambda b: b + b"{}")),
    "nested deeply": ("json-too-deep", lambda m: _raw(m, lambda b: b"[" * 200_000)),
    "another key": ("signature-threshold", _with_other_key),
    "another key under the trusted keyid": ("signature-threshold", lambda m: _with_other_key(m, signing.load_public(m.public).keyid)),
    "a loss lowered": ("evidence-digest:losses.csv", lambda m: m.edit("losses.csv", lambda t: t.replace(",1000\n", ",0\n", 1))),
    "a trial removed": ("evidence-digest:trials.jsonl", lambda m: m.edit("trials.jsonl", lambda t: t.split("\n", 1)[1])),
    "the budget raised": ("evidence-digest:plan.json", lambda m: m.edit("plan.json", lambda t: t.replace("0.15", "0.95"))),
    "the seal edited": ("evidence-digest:seal.json", lambda m: m.edit("seal.json", lambda t: t.replace("c0001", "c0002"))),
    "the plan's envelope swapped": ("evidence-digest:plan.dsse.json", lambda m: (m.bundle / "plan.dsse.json").write_bytes((m.bundle / "report.dsse.json").read_bytes())),
    "the page edited": ("evidence-digest:report.html", lambda m: m.edit("report.html", lambda t: t.replace("10%", "1%"))),
    "an unlisted file": ("bundle-unlisted-file", lambda m: (m.bundle / "README.md").write_text("trust me")),
    "an unlisted folder": ("bundle-unlisted-file", lambda m: (m.bundle / "keys").mkdir() or (m.bundle / "keys" / "key.pub").write_text("")),
    "a missing file": ("bundle-missing-file", lambda m: (m.bundle / "seal.json").unlink()),
    "a file too large": ("bundle-file-too-large", lambda m: os.truncate(m.bundle / "plan.json", records.LIMITS["plan.json"] + 1)),
}  # fmt: skip


MODEL_ATTACKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "renamed": ("model-mismatch", lambda m: (m / "tokenizer.json").rename(m / "zz.json")),
    "names swapped": ("model-mismatch", lambda m: [(m / "config.json").rename(m / "t"), (m / "tokenizer.json").rename(m / "config.json"), (m / "t").rename(m / "tokenizer.json")]),
    "extra": ("model-mismatch", lambda m: (m / "adapter.safetensors").write_bytes(b"")),
    "extra below": ("model-mismatch", lambda m: (m / "sub").mkdir() or (m / "sub" / "config.json").write_text("{}")),
    "missing": ("model-mismatch", lambda m: (m / "config.json").unlink()),
    "pickle": ("model-code-or-pickle", lambda m: (m / "pytorch_model.bin").write_bytes(b"\x80\x04.")),
    "checkpoint": ("model-code-or-pickle", lambda m: (m / "weights.pt").write_bytes(b"")),
    "code": ("model-code-or-pickle", lambda m: (m / "modeling_custom.py").write_text("")),
    "hidden": ("subject-name-or-digest", lambda m: (m / ".hidden.json").write_text("{}")),
    "same name in capitals": ("subject-duplicate", lambda m: (m / "CONFIG.json").write_text("{}")),
}  # fmt: skip


def _certificate(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    return lambda made: made.resign(lambda report: change(report["certificate"]))


def _report(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    return lambda made: made.resign(change)


def _signed_body(change: Callable[[bytes], bytes]) -> Callable[[Any], None]:
    return lambda made: made.sign(change(signing.compact(made.read())))


def _file(name: str, change: Callable[[str], str]) -> Callable[[Any], None]:
    def attack(made: Any) -> None:
        made.edit(name, change)
        made.resign()

    return attack


def _lines(change: Callable[[list[str]], object], name: str = "losses.csv") -> Callable[[Any], None]:
    def edited(text: str) -> str:
        lines = text.splitlines()
        change(lines)
        return "".join(f"{line}\n" for line in lines)

    return _file(name, edited)


def _line(place: int, change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    def edited(lines: list[str]) -> None:
        found = json.loads(lines[place])
        change(found)
        lines[place] = signing.compact(found).decode().rstrip()

    return _lines(edited, "trials.jsonl")


def _cell(place: int, value: str) -> Callable[[Any], None]:
    def edited(lines: list[str]) -> None:
        cells = lines[5].split(",")
        cells[place] = value
        lines[5] = ",".join(cells)

    return _lines(edited)


def _page(change: Callable[[str], str]) -> Callable[[Any], None]:
    """Ship another page, listed with its own digest."""

    def attack(made: Any) -> None:
        made.edit("report.html", change)
        files = {path.name: path.read_bytes() for path in made.bundle.iterdir()}
        made.restate(lambda body: body["predicate"].update(evidence=records.listing(files)))

    return attack


def _plan_text(change: Callable[[str], str]) -> Callable[[Any], None]:
    """Edit the plan's text and sign the digest of what it then is."""

    def attack(made: Any) -> None:
        made.edit("plan.json", change)
        found = digest.of_file(made.bundle / "plan.json")
        made.restate(lambda body: body["subject"][0]["digest"].update(sha256=found), "plan.dsse.json")
        made.resign()

    return attack


def _plan_and_all(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    """Write another plan and sign it; trials and seal still refer to the old one."""

    def attack(made: Any) -> None:
        path = made.bundle / "plan.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        body = made.read("plan.dsse.json")
        body["predicate"]["plan"] = signing.exact(document)
        body["subject"][0]["digest"]["sha256"] = digest.of_file(path)
        made.sign(signing.compact(body), "plan.dsse.json")
        made.resign()

    return attack


def _first(certificate: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = certificate["candidates"][0]
    return found


def _widen(report: dict[str, Any]) -> None:
    report["certificate"]["candidates"][2]["certified"] = True
    report["certificate"]["certified"].append("c0000")


def _drop_worst(lines: list[str]) -> None:
    lines.remove(next(line for line in lines if line.startswith("c0001") and line.endswith(",1000")))


def _drop_for_all(lines: list[str]) -> None:
    query = lines[1].split(",")[4]
    lines[:] = [line for line in lines if query not in line]


def _swap(lines: list[str]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def _unplanned(lines: list[str]) -> None:
    lines += [line.replace("c0003", "c0004") for line in lines if line.startswith("c0003")]


def _smuggled(lines: list[str]) -> None:
    """Search rows of utility, in their place: a claim about queries has no use for what the search has seen."""
    more = [line.replace(",calibration,", ",search,") for line in lines[1:] if ",utility," in line]
    rows = sorted(
        (line for line in [*lines[1:], *more] if line), key=lambda line: [*line.split(",")[:3], line.split(",")[4]]
    )
    lines[1:] = rows


SIGNER: dict[str, tuple[str, Callable[[Any], object]]] = {
    "p-value lowered": ("statistics-differ", _certificate(lambda c: _first(c)["p_values"].update(forgetting="1e-09"))),
    "largest p-value lowered": ("statistics-differ", _certificate(lambda c: _first(c).update(p_value="1e-09"))),
    "bound lowered": ("statistics-differ", _certificate(lambda c: _first(c)["cur"]["utility"].update(simultaneous="0.01"))),
    "mean lowered": ("statistics-differ", _certificate(lambda c: _first(c)["empirical"].update(utility="0.001"))),
    "radius raised": ("statistics-differ", _certificate(lambda c: _first(c)["robust_radius"].update(utility="0.9"))),
    "sample enlarged": ("statistics-differ", _certificate(lambda c: c["n"].update(forgetting=2400))),
    "confidence raised": ("statistics-differ", _certificate(lambda c: c.update(confidence="0.99"))),
    "budget in the report lowered": ("statistics-differ", _certificate(lambda c: c["budget"].update(forgetting="0.05"))),
    "a true number as another type": ("statistics-differ", _certificate(lambda c: c["opening"].update(number=True))),
    "reason rewritten": ("statistics-differ", _certificate(lambda c: c.update(reason="all is well"))),
    "added to the certified set": ("feasible-differ", _report(_widen)),
    "one flag set": ("feasible-differ", _certificate(lambda c: c["candidates"][2].update(certified=True))),
    "true as 1": ("feasible-differ", _certificate(lambda c: _first(c).update(certified=1))),
    "another certified one chosen": ("selected-differ", _certificate(lambda c: c.update(chosen="c0003"))),
    "another one reported as chosen": ("selected-differ", _report(lambda r: r.update(config="c0003", chosen="c0003"))),
    "another one asked for": ("selected-differ", _report(lambda r: r.update(asked="c0003", config="c0003"))),
    "an untested one asked for": ("selected-differ", _report(lambda r: r.update(asked="c0002"))),
    "FAIL written over PASS": ("verdict-differ", _report(lambda r: r.update(verdict="FAIL"))),
    "a claim not passed": ("claims-differ", _report(lambda r: r["claims"][0].update(threshold="0.01"))),
    "a limit removed": ("limits-differ", _report(lambda r: r["limits"].pop())),
    "fewer trials": ("trials-differ", _report(lambda r: r["trials"].update(failed=0))),
    "plan called signed before": ("plan-differ", _report(lambda r: r["plan"].update(status="signed-before-first-trial"))),
    "another procedure named": ("method-differ", _report(lambda r: r["method"].update(procedure="holm"))),
    "an earlier opening": ("report-shape", _report(lambda r: r.update(opening=0))),
    "a later opening": ("statistics-differ", _report(lambda r: r.update(opening=3))),
    "a higher assurance": ("report-shape", lambda m: m.restate(lambda b: b["predicate"].update(assuranceLevel="reproduced"))),
    "a second signer made up": ("signers-differ", _report(lambda r: r["signers"].append({"role": "approver", "keyid": "c" * 64}))),
    "one signer named twice": ("signers-differ", _report(lambda r: r["signers"].append({**r["signers"][0], "role": "approver"}))),
    "a further field": ("report-shape", _report(lambda r: r.update(remark="approved by legal"))),
    "a missing field": ("report-shape", lambda m: m.restate(lambda b: b["predicate"].pop("sequence"))),
    "tree digest": ("subject-tree", _report(lambda r: r["model"]["treeDigest"].update(value="d" * 64))),
    "md5": ("subject-name-or-digest", lambda m: m.restate(lambda b: b["subject"][0].update(digest={"md5": "d" * 32}))),
    "digest in capitals": ("subject-name-or-digest", lambda m: m.restate(lambda b: b["subject"][0].update(digest={"sha256": "D" * 64}))),
    "no subject": ("subject-name-or-digest", lambda m: m.restate(lambda b: b.update(subject=[]))),
    "path traversal": ("subject-name-or-digest", lambda m: m.restate(lambda b: b["subject"][0].update(name="../config.json"))),
    "absolute path": ("subject-name-or-digest", lambda m: m.restate(lambda b: b["subject"][0].update(name="/config.json"))),
    "subject twice": ("subject-duplicate", lambda m: m.restate(lambda b: b["subject"].append(b["subject"][0]))),
    "a pickle as subject": ("model-code-or-pickle", lambda m: m.restate(lambda b: b["subject"][0].update(name="weights.bin"))),
    "statement of another version": ("statement-type", lambda m: m.restate(lambda b: b.update(_type="https://in-toto.io/Statement/v0.1"))),
    "another predicate type": ("predicate-type", lambda m: m.restate(lambda b: b.update(predicateType="https://in-toto.io/attestation/test-result/v0.1"))),
    "the plan's envelope as report": ("predicate-type", lambda m: (m.bundle / "report.dsse.json").write_bytes((m.bundle / "plan.dsse.json").read_bytes())),
    "a further statement field": ("statement-shape", lambda m: m.restate(lambda b: b.update(note=""))),
    "duplicate key in the payload": ("json-duplicate-key", _signed_body(lambda b: b.replace(b'"verdict":"PASS"', b'"verdict":"FAIL","verdict":"PASS"'))),
    "NaN in the payload": ("json-nan-or-float", _signed_body(lambda b: b.replace(b'"sequence":1', b'"sequence":NaN'))),
    "float in the payload": ("json-nan-or-float", _signed_body(lambda b: b.replace(b'"sequence":1', b'"sequence":1.0'))),
    "large number in the payload": ("json-nan-or-float", _signed_body(lambda b: b.replace(b'"sequence":1', b'"sequence":9007199254740993'))),
    "trailing bytes in the payload": ("json-invalid", _signed_body(lambda b: b + b"{}")),
    "deep payload": ("json-too-deep", _signed_body(lambda b: b"[" * 1000 + b"]" * 1000)),
    "evidence not listed": ("evidence-list", lambda m: m.restate(lambda b: b["predicate"]["evidence"].pop())),
    "evidence of another size": ("evidence-digest:losses.csv", lambda m: m.restate(lambda b: b["predicate"]["evidence"][0].update(size=1))),
    "no date": ("report-shape", _report(lambda r: r.update(issued="2026-03-01"))),
    "a date that is none": ("bad-timestamp", _report(lambda r: r.update(issued="2026-02-30T12:00:00Z"))),
    "worst row dropped": ("table-missing-row", _lines(_drop_worst)),
    "a query dropped for all": ("table-other-queries", _lines(_drop_for_all)),
    "row repeated": ("table-duplicate-row", _lines(lambda ls: ls.insert(5, ls[5]))),
    "rows swapped": ("table-order", _lines(_swap)),
    "unplanned configuration": ("table-unplanned-row", _lines(_unplanned)),
    "unplanned risk": ("table-unplanned-row", _cell(2, "privacy")),
    "another split": ("table-split", _cell(1, "training")),
    "a search row": ("table-order", _cell(1, "search")),
    "search rows smuggled in": ("table-other-queries", _lines(_smuggled)),
    "readable query": ("table-example-id", _cell(4, "who is ann")),
    "another unit": ("table-unit-id", _cell(3, "0" * 16)),
    "loss blank": ("table-loss-format", _cell(5, "")),
    "loss NaN": ("table-loss-format", _cell(5, "nan")),
    "loss too large": ("table-loss-format", _cell(5, "1001")),
    "loss negative": ("table-loss-format", _cell(5, "-1")),
    "loss with zeros before": ("table-loss-format", _cell(5, "007")),
    "loss with exponent": ("table-loss-format", _cell(5, "1e2")),
    "loss with underscore": ("table-loss-format", _cell(5, "1_0")),
    "loss in full-width digits": ("table-loss-format", _cell(5, "\uff11")),
    "loss lowered": ("statistics-differ", _lines(lambda ls: ls.__setitem__(slice(None), [line.replace(",1000", ",0") for line in ls]))),
    "text column": ("table-header", _file("losses.csv", lambda t: t.replace("query,loss", "query,loss,text", 1))),
    "text cells": ("table-columns", _lines(lambda ls: ls.__setitem__(3, ls[3] + ",Ann"))),
    "no last line feed": ("table-line-ending", _file("losses.csv", lambda t: t[:-1])),
    "carriage returns": ("table-header", _file("losses.csv", lambda t: t.replace("\n", "\r\n"))),
    "trial removed": ("trial-index", _lines(lambda ls: ls.pop(0), "trials.jsonl")),
    "failed trial removed": ("trial-index", _lines(lambda ls: ls.pop(2), "trials.jsonl")),
    "first attempt removed": ("trial-index", _lines(lambda ls: ls.pop(4), "trials.jsonl")),
    "trial run twice": ("trial-repeated", _lines(lambda ls: ls.append(ls[1].replace('"attempt":1', '"attempt":2')), "trials.jsonl")),
    "trial of another plan": ("trial-other-plan", _line(0, lambda t: t.update(plan="e" * 64))),
    "trial before the plan": ("trial-before-plan", _line(0, lambda t: t.update(started="2026-03-01T07:00:00Z"))),
    "unknown trial status": ("trial-status", _line(2, lambda t: t.update(status="ok"))),
    "further trial field": ("trial-shape", _line(2, lambda t: t.update(host="node7"))),
    "other hyperparameters": ("trial-config-set", _line(1, lambda t: t["params"].update(lr="0.5"))),
    "float in a trial": ("json-nan-or-float", _line(1, lambda t: t.update(seconds=1.5))),
    "more trials than planned": ("trial-index", _lines(lambda ls: ls.append(ls[2].replace('"trial":2', '"trial":5').replace("c0002", "c0005")), "trials.jsonl")),
    "plan edited and signed": ("seal-other-plan", _plan_and_all(lambda p: p["budget"].update(utility=0.95))),
    "plan with another budget in its statement": ("plan-digest", lambda m: [m.restate(lambda b: b["predicate"]["plan"]["budget"].update(utility="0.95"), "plan.dsse.json"), m.resign()]),
    "plan with NaN": ("json-nan-or-float", _plan_text(lambda t: t.replace("0.15", "NaN"))),
    "plan with a key twice": ("json-duplicate-key", _plan_text(lambda t: t.replace("{", '{"joint": false,', 1))),
    "sealed trial failed": ("trial-config-set", _line(1, lambda t: t.update(status="failed"))),
    "plan changed under its statement": ("plan-digest", _file("plan.json", lambda t: t.replace("0.15", "0.95"))),
    "candidate added to the seal": ("trial-config-set", _file("seal.json", lambda t: t.replace("c0000", "c0002"))),
    "candidate sealed twice": ("seal-candidates", _file("seal.json", lambda t: t.replace("c0000", "c0001"))),
    "seal of another plan": ("seal-other-plan", _file("seal.json", lambda t: json.dumps({**json.loads(t), "plan": "f" * 64}))),
    "another page": ("html-not-rendering-of-signed-data", _page(lambda t: t.replace("10%", "1%"))),
    "a script on the page": ("html-not-rendering-of-signed-data", _page(lambda t: t.replace("</body>", "<script>1</script></body>"))),
}  # fmt: skip


LIES: dict[str, tuple[str, Callable[[Made], object]]] = {
    "a verdict turned round": (
        "comparison-differ",
        lambda m: m.resign(lambda report: report["comparison"]["pairs"]["0.95"][0].update(verdict="rmu")),
    ),
    "a bound made smaller": (
        "comparison-differ",
        lambda m: m.resign(lambda report: report["comparison"]["stages"]["0.95"]["rmu"]["forgetting"].update(upper="0.1")),
    ),
    "a front left out": (
        "comparison-differ",
        lambda m: m.resign(lambda report: report["comparison"]["fronts"].pop("rmu")),
    ),
    "the comparison left out": ("comparison-differ", lambda m: m.resign(lambda report: report.pop("comparison"))),
    "its losses left out": ("bundle-missing-file", lambda m: (m.bundle / "comparison.csv").unlink()),
    "losses edited": ("evidence-digest:comparison.csv", lambda m: _edit(m, "comparison.csv", b",0\n", b",1\n")),
    "losses edited and signed": ("comparison-differ", lambda m: (_edit(m, "comparison.csv", b",60\n", b",61\n"), m.resign())),
    "a row removed and signed": ("table-missing-row", lambda m: (_shorten(m), m.resign())),
    "another base model": (
        "comparison-other-plan",
        lambda m: (_restate(m, lambda d: d["plan"]["model"].update(digest="1" * 64)), m.resign()),
    ),
    "a point that was not sealed": (
        "comparison-shape",
        lambda m: (_restate(m, lambda d: d["seal"]["stages"]["0.95"].update(npo="x/c0009@1.0000")), m.resign()),
    ),
}  # fmt: skip


def _edit(made: Made, name: str, old: bytes, new: bytes) -> None:
    data = (made.bundle / name).read_bytes()
    assert old in data
    (made.bundle / name).write_bytes(data.replace(old, new, 1))


def _shorten(made: Made) -> None:
    path = made.bundle / "comparison.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _restate(made: Made, change: Callable[[dict[str, Any]], object]) -> None:
    path = made.bundle / "comparison.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")
