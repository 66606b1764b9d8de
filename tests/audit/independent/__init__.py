"""A second verifier, from the formats' description alone: standard library and `cryptography`, nothing of froc.

It recomputes what plain Python can: exact binomial tails, betting capital, weighted Holm, choice and verdict. Bounds are
tested instead of searched for: a printed bound must be excluded, and a millionth less must not be. It does not render the
page, looks at no comparison and no time stamp, and believes `reason`, `warnings`, the opening's sentence and all of `closest` but the name.
Other bounds, procedures and populations than the usual ones are beyond it.
"""

import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.audit.independent.evidence import matrices, stages, trials
from tests.audit.independent.model import BESIDE, plain_set, weights
from tests.audit.independent.reading import (
    RefusedError,
    envelope,
    line,
    moment,
    need,
    parse,
    plain,
    read,
    sha,
    trusted,
)
from tests.audit.independent.statistics import derived

__all__ = ["RefusedError", "check"]
FILES = {"losses.csv", "plan.dsse.json", "plan.json", "report.dsse.json", "report.html", "seal.json", "trials.jsonl"}
MEDIA = {"tsr": "application/timestamp-reply", "csv": "text/csv", "html": "text/html"}
MEDIA |= {kind: f"application/{kind}" for kind in ("json", "jsonl")}
REPORT = """schema name sequence issued expires supersedes signers harness assuranceLevel asked opening model plan method
certificate claims config chosen verdict trials limits environment evidence"""
SEAL = "format plan candidates search_losses trials calibration order base_weights_digest model_files"
SAFE = re.compile(r"(?=.{1,255}$)\w[\w.+-]*(/\w[\w.+-]*)*\.(safetensors|json|txt|model|jinja|md)", re.ASCII)


def check(
    bundle: Path, keys: Any, model: Path | None, now: datetime, threshold: int = 1, min_sequence: int = 1,
    trust: Path | None = None,
) -> str:  # fmt: skip
    """The verdict of a bundle; RefusedError where it does not verify. keys: files, or a trust file instead of them."""
    later = {name for name in os.listdir(bundle) if re.fullmatch("reexecution.dsse.json|report-[0-9a-f]{64}.tsr", name)}
    files = {name: read(bundle / name) for name in sorted({*os.listdir(bundle)} - later)}
    need(set(files) - {"plan.tsr", "stages.json"} in (FILES, {*FILES, "comparison.csv", "comparison.json"}))
    rules: Any = {"threshold": threshold}
    keys, rules = trusted(trust, now) if trust else ([path.read_bytes() for path in keys], rules)
    data = files["report.dsse.json"]
    subject, report, signed = envelope(data, keys, rules["threshold"], "urn:froc:unlearning-audit:1")
    need(all(name[7:-4] in {sig["keyid"] for sig in parse(data)["signatures"]} for name in later if name[-1] == "r"))
    roles = rules.get("who", {})
    need(all([roles.get(k) for k in signed].count(r) >= n for r, n in rules.get("roles", {}).items()))
    need(all(roles.get(signer["keyid"], signer["role"]) == signer["role"] for signer in report["signers"]))
    need(sum((bundle / name).lstat().st_size for name in os.listdir(bundle)) <= 320 * 2**20)
    need(set(report) - {"comparison", "plugins"} == set(REPORT.split()), report["schema"] == "1")
    need(all(type(report[name]) is int and report[name] >= 1 for name in ("sequence", "opening")))
    issued, expires = moment(report["issued"]), moment(report["expires"])
    need(
        issued <= now + timedelta(minutes=5),
        issued < expires,
        (expires - issued).days <= 3660,
        now < expires,
        report["sequence"] >= min_sequence,
    )
    who = [signer["keyid"] for signer in report["signers"]]
    need(who, set(who) <= signed, len(set(who)) == len(who), report["assuranceLevel"] == "self_attested")
    listed = [
        {"name": name, "digest": {"sha256": sha(data)}, "size": len(data), "mediaType": MEDIA[name.rsplit(".", 1)[1]]}
        | {"tier": "public" if name == "report.html" else "restricted"}
        for name, data in files.items()
        if name != "report.dsse.json"
    ]
    need(line(report["evidence"]) == line(listed), ("comparison" in report) == ("comparison.json" in files))
    planned = sha(files["plan.json"])
    covered = {} if subject == {"plan.json": planned} else subject
    need(list(covered) == sorted(covered), all(SAFE.fullmatch(name) for name in covered))
    need(len({name.casefold() for name in covered}) == len(covered))
    if model is not None:
        present = {p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_symlink() or not p.is_dir()}
        present = {name: path for name, path in present.items() if name in covered or not BESIDE.fullmatch(name)}
        need(all(path.is_file() and path.stat().st_size <= 2**28 for path in present.values()))
        need({name: sha(path.read_bytes()) for name, path in present.items()} == covered)
    need(not covered or plain_set(covered))
    about, stated, _ = envelope(files["plan.dsse.json"], keys, 1, "urn:froc:unlearning-plan:1")
    plan, seal = parse(files["plan.json"], True), parse(files["seal.json"], True)
    need(about == {"plan.json": planned}, set(stated) == {"signed", "plan"}, line(stated["plan"]) == line(plain(plan)))
    latest = max(
        [stated["signed"]]
        + [trial["ended"] or trial["started"] for trial in map(parse, files["trials.jsonl"].splitlines())]
    )
    need(moment(plan["created"]) <= moment(stated["signed"]), moment(latest) <= issued + timedelta(minutes=5))
    after = plan.get("after") or {"measured": False}
    need(after["measured"] == any("earlier" in metric.rpartition("/")[2] for metric in plan["metrics"].values()))
    parts = plan["bound"], plan["metrics"], plan["population"], plan["task"]["units"], plan["split"]["calibration"]
    need(all(set(part) == set(plan["budget"]) for part in parts), plan["openings"] >= 1)
    names = [candidate["config"] for candidate in seal["candidates"]]
    bound = {
        candidate.get("weights_digest")
        for candidate in [*seal["candidates"], {"weights_digest": seal.get("base_weights_digest")}]
    }
    need((seal.get("model_files") is None) == (None in bound))
    need(None not in bound or bound == {None}, all(re.fullmatch("[0-9a-f]{64}", value) for value in bound - {None}))
    if covered:
        chosen = next(
            (
                candidate.get("weights_digest")
                for candidate in seal["candidates"]
                if candidate["config"] == report["config"]
            ),
            None,
        )
        bases = {seal.get("base_weights_digest"), plan["model"]["digest"]}
        there = weights(model, covered) if model is not None else chosen
        beside = {
            name: value
            for name, value in covered.items()
            if not name.endswith((".safetensors", ".safetensors.index.json"))
        }
        need(
            seal.get("model_files") is None
            or {n: v for n, v in seal["model_files"].items() if not BESIDE.fullmatch(n)} == beside
        )
        need(chosen is None or (there == chosen and chosen not in bases), there is None or there not in bases)
    need(set(seal) <= set(SEAL.split()), seal["plan"] == planned, seal["calibration"] == plan["split"]["queries"])
    need(
        len(set(names)) == len(names) <= plan["search"]["candidates"],
        plan["sequential"] == (seal.get("order") is not None),
    )
    log = trials(files["trials.jsonl"], plan, seal, planned)
    further = stages(files, plan, [trial["ended"] or trial["started"] for trial in log], issued)
    losses, ends, single = matrices(files["losses.csv"], plan, seal, further)
    return derived(report, covered, plan, planned, stated["signed"], seal, log, losses, further, ends, single)
