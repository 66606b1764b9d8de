"""Ways to spoil a bundle or its model: by somebody without a key, and by the holder of the key who signs again."""

import base64
import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from froc import hashing
from froc.audit import bundle, canonical_json, cross_checks, documents, keys, plan_signing
from froc.audit import report as claims
from froc.audit.timestamps import Proven
from froc.audit.trust import Trust

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
Files = dict[str, bytes]
"""Path below the scratch folder (`bundle/...`, `model/...`) -> bytes."""


class Scratch:
    """A bundle and model that are spoiled and put back."""

    def __init__(self, place: Path, good: Files, second_bundle: Files, signer: Any) -> None:
        self.place, self.good, self.second_bundle, self.signer = place, good, second_bundle, signer

    def reset(self) -> None:
        """As it was signed."""
        shutil.rmtree(self.place, ignore_errors=True)
        for name, data in self.good.items():
            path = self.place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def same(self) -> bool:
        """Whether all that is signed is as it was."""
        parts = [self.place / "bundle", self.place / "model"]
        paths = [path for part in parts for path in part.rglob("*") if path.is_symlink() or not path.is_dir()]
        # a link among the model's files counts as the file in which it ends, as in a hub's cache
        if any(not path.is_file() or (path.is_symlink() and parts[0] in path.parents) for path in paths):
            return False
        if any(path.is_dir() for path in (self.place / "bundle").iterdir()):
            return False
        present = {path.relative_to(self.place).as_posix(): path.read_bytes() for path in paths}
        report = "bundle/report.dsse.json"
        return {**present, report: self._own(present.get(report, b""))} == self.good

    def _own(self, report: bytes) -> bytes:
        """The report's envelope without the signatures of others, as long as it is written as envelopes are."""
        try:
            document = json.loads(report)
            if canonical_json.compact(document) != report:
                return report
            keyids = [signature["keyid"] for signature in document["signatures"]]
            own = [
                signature for signature in document["signatures"] if signature["keyid"] == self.signer.public_key.keyid
            ]
            # unknown ones must still be signatures in form
            forms = all(
                set(signature) == {"keyid", "sig"} and base64.b64decode(signature["sig"], validate=True)
                for signature in document["signatures"]
            )
            return (
                canonical_json.compact({**document, "signatures": own})
                if forms and len(set(keyids)) == len(keyids)
                else report
            )
        except (ValueError, KeyError, TypeError):
            return report

    def pick(self, draw: random.Random, below: str = "") -> Path:
        """A random file."""
        return self.place / draw.choice([name for name in self.good if name.startswith(below)])


def flip(scratch: Scratch, draw: random.Random, below: str = "bundle") -> None:
    """Flip, insert, delete, overwrite, repeat or move bytes."""
    path = scratch.pick(draw, below)
    data = bytearray(path.read_bytes())
    at, length = draw.randrange(len(data)), draw.choice((1, 1, 1, 2, 8, 64))
    match draw.randrange(6):
        case 0:
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            data[at:at] = draw.randbytes(length)
        case 2:
            del data[at : at + length]
        case 3:
            data[at : at + length] = draw.randbytes(length)
        case 4:
            data[at:at] = data[at : at + length]
        case 5:
            part = data[at : at + length]
            del data[at : at + length]
            to = draw.randrange(len(data) + 1)
            data[to:to] = part
    path.write_bytes(data)


def flip_model(scratch: Scratch, draw: random.Random) -> None:
    """The same in the model."""
    flip(scratch, draw, "model")


def field(scratch: Scratch, draw: random.Random) -> None:
    """Edit a JSON file as a JSON file: values, keys, order, items."""
    name = draw.choice(
        ("plan.json", "seal.json", "trials.jsonl", "report.dsse.json", "plan.dsse.json", "report.dsse.json")
    )
    path = scratch.place / "bundle" / name
    lines = path.read_bytes().split(b"\n") if name == "trials.jsonl" else [path.read_bytes()]
    place = draw.randrange(max(1, len(lines) - 1))
    document = json.loads(lines[place])
    if name.endswith(".dsse.json") and draw.random() < 0.7:
        body = json.loads(base64.b64decode(document["payload"]))
        edit(body, draw)
        document["payload"] = base64.b64encode(canonical_json.compact(body)).decode()
    else:
        edit(document, draw)
    indented = name in ("plan.json", "seal.json")
    data = (
        (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
        if indented
        else canonical_json.compact(document)
    )
    lines[place] = data[:-1] if name == "trials.jsonl" else data
    path.write_bytes(b"\n".join(lines))


def edit(document: Any, draw: random.Random) -> None:
    """Change one random place of a JSON document."""
    holders = list(_holders(document))
    holder = draw.choice(holders)
    key = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    match draw.randrange(5):
        case 0 | 1:
            holder[key] = _changed_value(holder[key], draw)
        case 2:
            del holder[key]
        case 3 if isinstance(holder, dict):
            holder[f"{key}_"] = holder[key]
        case 3:
            holder.insert(key, copy.deepcopy(holder[key]))
        case 4:
            second = draw.choice(holders)
            at = draw.choice(list(second) if isinstance(second, dict) else range(len(second)))
            # values alone, so that the document stays a tree
            if not isinstance(holder[key], dict | list) and not isinstance(second[at], dict | list):
                holder[key], second[at] = second[at], holder[key]


def _holders(value: Any) -> Any:
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def _changed_value(value: Any, draw: random.Random) -> Any:
    match value:
        case bool():
            return draw.choice((not value, int(value), None))
        case int() | float():
            return draw.choice((value + 1, -value, value * 2, str(value), 0, True, None))
        case str():
            if value and draw.random() < 0.5:
                at = draw.randrange(len(value))
                return value[:at] + draw.choice("0123456789abcXYZ.-\u200b") + value[at + 1 :]
            return draw.choice((value + " ", value[:-1], value.upper(), "", "0.05", "PASS", None, 0))
        case None:
            return draw.choice((0, "", False, "c0001"))
        case _:
            return draw.choice(({}, [], None, ""))


def row(scratch: Scratch, draw: random.Random) -> None:
    """Edit losses.csv as a table: cells, rows, their order, columns."""
    path = scratch.place / "bundle" / "losses.csv"
    lines = path.read_text().splitlines()
    at = draw.randrange(1, len(lines))
    cells = lines[at].split(",")
    match draw.randrange(6):
        case 0:
            cells[5] = draw.choice(
                ("0", "1000", "1", "999", "-1", "1e3", "NaN", "", "00", " 0", str(draw.randrange(1001)))
            )
            lines[at] = ",".join(cells)
        case 1:
            place = draw.randrange(5)
            cells[place] = draw.choice(
                (lines[draw.randrange(1, len(lines))].split(",")[place], cells[place][::-1], "x")
            )
            lines[at] = ",".join(cells)
        case 2:
            del lines[at : at + draw.choice((1, 2, 10))]
        case 3:
            lines.insert(at, lines[draw.randrange(1, len(lines))])
        case 4:
            second = draw.randrange(1, len(lines))
            lines[at], lines[second] = lines[second], lines[at]
        case 5:
            worst = [line for line in lines[1:] if line.endswith(",1000")]
            lines = [line for line in lines if line not in draw.sample(worst, min(len(worst), 3))]
    path.write_text("".join(f"{line}\n" for line in lines))


def files(scratch: Scratch, draw: random.Random) -> None:
    """Add, remove, rename, swap, empty, link or nest files of the bundle, or take them from another report."""
    place, path, second = scratch.place / "bundle", scratch.pick(draw, "bundle"), scratch.pick(draw, "bundle")
    match draw.randrange(8):
        case 0:
            (place / draw.choice(("README.md", "key.pub", ".hidden", "losses.csv.bak", "report.html "))).write_bytes(
                b""
            )
        case 1:
            path.unlink()
        case 2:
            path.rename(place / (path.name + draw.choice(("~", ".old", ".json"))))
        case 3:
            first_bytes, second_bytes = path.read_bytes(), second.read_bytes()
            path.write_bytes(second_bytes)
            second.write_bytes(first_bytes)
        case 4:
            path.write_bytes(b"")
        case 5:
            path.rename(scratch.place / "aside")
            path.symlink_to(scratch.place / "aside")
        case 6:
            (place / "more").mkdir()
        case 7:
            for name in draw.sample(sorted(os.listdir(place)), draw.randrange(1, 7)):
                (place / name).write_bytes(scratch.second_bundle[f"bundle/{name}"])


def model(scratch: Scratch, draw: random.Random) -> None:
    """Add, remove, rename, swap, link files of the model, or take them from another."""
    place, path, second = scratch.place / "model", scratch.pick(draw, "model"), scratch.pick(draw, "model")
    match draw.randrange(7):
        case 0:
            name = draw.choice(
                (
                    "adapter.safetensors",
                    "modeling.py",
                    "pytorch_model.bin",
                    ".hidden.json",
                    "sub/more.json",
                    "CONFIG.json",
                )
            )
            (place / name).write_bytes(b"{}")
        case 1:
            path.unlink()
        case 2:
            path.rename(path.with_name(draw.choice(("zz.json", "weights.safetensors", "a b.json", path.name + ".txt"))))
        case 3:
            first_bytes, second_bytes = path.read_bytes(), second.read_bytes()
            path.write_bytes(second_bytes)
            second.write_bytes(first_bytes)
        case 4:
            path.rename(scratch.place / "aside")
            path.symlink_to(scratch.place / "aside")
        case 5:
            name = path.relative_to(scratch.place).as_posix()
            path.write_bytes(scratch.second_bundle[name])
        case 6:
            (place / "sub" / path.name).write_bytes(path.read_bytes())


def nothing(scratch: Scratch, draw: random.Random) -> None:
    """Write the same bytes again, add an empty folder to the model, change dates and modes, sign with an unknown key."""
    path = scratch.pick(draw)
    match draw.randrange(4):
        case 0:
            path.write_bytes(path.read_bytes())
        case 1:
            (scratch.place / "model" / "empty").mkdir()
        case 2:
            os.utime(path, (0, 0))
            path.chmod(0o600)
        case 3:
            path = scratch.place / "bundle" / "report.dsse.json"
            document = json.loads(path.read_bytes())
            text = base64.b64encode(draw.randbytes(64)).decode()
            document["signatures"].insert(draw.randrange(2), {"keyid": draw.randbytes(32).hex(), "sig": text})
            path.write_bytes(canonical_json.compact(document))


def several(scratch: Scratch, draw: random.Random) -> None:
    """Two or three of the above, one after the other."""
    for kind in draw.choices((flip, field, row, flip_model), k=draw.randrange(2, 4)):
        # the first may have left nothing that the second can read
        with suppress(ValueError, IndexError, KeyError, TypeError, AttributeError):
            kind(scratch, draw)


def signer(scratch: Scratch, draw: random.Random) -> None:
    """The holder of the key edits a value of the report that follows from evidence, renders the page and signs."""
    path = scratch.place / "bundle" / "report.dsse.json"
    statement = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
    report = statement["predicate"]
    own = {item.alias or name for name, item in documents.Asserted.model_fields.items()} | {"evidence"}
    follows = {name: value for name, value in report.items() if name not in own}
    before = canonical_json.compact(follows)
    while canonical_json.compact(follows) == before:
        edit(follows, draw)
    changed = {**follows, **{name: report[name] for name in own}}
    kept = {p.name: p.read_bytes() for p in (scratch.place / "bundle").iterdir() if not p.name.startswith("report.")}
    subject = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    try:
        facts = cross_checks.read(
            kept, Trust((keys.public_of(scratch.signer),)), NOW, Proven(), subject, cross_checks.Log()
        )
        page = bundle.page(changed, kept, facts)
        made = bundle.signed_report(changed, kept, subject, [scratch.signer], page)
    except Exception:  # what cannot be rendered is signed with the old page
        body = keys.statement(subject, claims.PREDICATE, {**changed, "evidence": report["evidence"]})
        made = {"report.dsse.json": keys.sign(body, [scratch.signer])}
    for name, data in made.items():
        (scratch.place / "bundle" / name).write_bytes(data)


def anew(scratch: Scratch, draw: random.Random) -> None:
    """The holder of the key edits plan, seal or log, lets everything refer to it, and signs what then follows."""
    place, trusted = scratch.place / "bundle", [keys.public_of(scratch.signer)]
    kept = {path.name: path.read_bytes() for path in place.iterdir() if not path.name.startswith("report")}
    statement = json.loads(base64.b64decode(json.loads((place / "report.dsse.json").read_bytes())["payload"]))
    subject = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    name, old = draw.choice(("plan.json", "seal.json", "trials.jsonl")), hashing.sha256_bytes(kept["plan.json"])
    lines = kept[name].split(b"\n")[:-1] if name == "trials.jsonl" else [kept[name]]
    at = draw.randrange(len(lines))
    document = json.loads(lines[at])
    edit(document, draw)
    lines[at] = canonical_json.compact(document)[:-1]
    kept[name] = b"".join(line + b"\n" for line in lines)
    if name == "plan.json":
        kept["plan.dsse.json"] = plan_signing.plan_statement(kept[name], scratch.signer, "2026-03-01T12:00:00Z")
        for dependent in ("seal.json", "trials.jsonl"):
            kept[dependent] = kept[dependent].replace(old.encode(), hashing.sha256_bytes(kept[name]).encode())
    report = statement["predicate"]
    page = (place / "report.html").read_bytes()
    with suppress(Exception):  # the verifier meets whatever goes wrong here once more
        facts = cross_checks.read(kept, Trust(tuple(trusted)), NOW, Proven(), subject, cross_checks.Log())
        report = report | claims.derive(facts, report["opening"], None)
        page = bundle.page(report, kept, facts)
    for name, data in (kept | bundle.signed_report(report, kept, subject, [scratch.signer], page)).items():
        (place / name).write_bytes(data)


KINDS: dict[str, tuple[Callable[[Scratch, random.Random], None], float]] = {
    "bytes": (flip, 0.22), "JSON fields": (field, 0.22), "CSV rows": (row, 0.14), "files": (files, 0.08), "model bytes": (flip_model, 0.08),
    "model files": (model, 0.06), "several": (several, 0.08), "nothing signed": (nothing, 0.02), "report, signed again": (signer, 0.10),
    "evidence, signed anew": (anew, 0.05),
}  # fmt: skip
"""Kind -> how, and its share."""
