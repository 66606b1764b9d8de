"""A second verifier, from the formats' description alone: standard library and `cryptography`, nothing of froc.

It recomputes what plain Python can: exact binomial tails, betting capital, weighted Holm, choice and verdict. Bounds are
tested instead of searched for: a printed bound must be excluded, and a millionth less must not be. It does not render the
page, looks at no comparison and no time stamp, and believes `reason`, `warnings`, the opening's sentence and all of `closest` but the name.
Other bounds, procedures and populations than the usual ones are beyond it.
"""

import base64
import hashlib
import json
import math
import os
import re
import stat
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

FILES = {"losses.csv", "plan.dsse.json", "plan.json", "report.dsse.json", "report.html", "seal.json", "trials.jsonl"}
MEDIA = {
    "tsr": "application/timestamp-reply",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "jsonl": "application/jsonl",
}
LIMITS = ["not-erasure", "not-anonymity", "self-reported-losses", "tested-population-only", "one-artefact-only"]
LIMITS += ["dates-are-the-signers-word", "openings-are-the-signers-count"]
STATUS = ["complete", "pruned", "interrupted", "diverged", "out-of-memory", "timed-out", "failed"]
TRIAL = (
    "trial attempt config method params seed status reason started ended steps seconds search averages variants plan"
)
REPORT = """schema name sequence issued expires supersedes signers harness assuranceLevel asked opening model plan method
certificate claims config chosen verdict trials limits environment evidence"""
SEAL = "format plan candidates search_losses trials calibration order base_weights_digest"
INDEX = "model.safetensors.index.json"
BESIDE = re.compile(r"README.md|LICENSE(\.md|\.txt)?|.gitattributes|\.cache/huggingface/.*")
HEAD = re.compile(r"(.*\.)?(lm_head|embed_out|lm_head\.decoder|cls\.predictions\.decoder)\.weight", re.DOTALL)
TYPES = {
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}
WIDTH = {"BOOL": 1, "I64": 8, "I32": 4, "F64": 8, "F32": 4, "F16": 2, "BF16": 2}
OTHER = (b"PK", b"GGUF", b"\x1f\x8b", b"\x89HDF", *(bytes([128, version]) for version in range(2, 6)))
CELLS = "base|c[0-9]{4}[a-z0-9-]{0,32} calibration [a-z][a-z0-9_-]{0,31} [0-9a-f]{16,64} [0-9a-f]{16,64} 0|[1-9][0-9]{0,2}|1000"
ROW = re.compile(",".join(f"({cell})" for cell in CELLS.split()))
SAFE = re.compile(r"(?=.{1,255}$)\w[\w.+-]*(/\w[\w.+-]*)*\.(safetensors|json|txt|model|jinja|md)", re.ASCII)
STAMP = "%Y-%m-%dT%H:%M:%SZ"
Json = dict[str, Any]


class RefusedError(Exception):
    """It does not verify."""


def need(*holds: object) -> None:
    if not all(holds):
        raise RefusedError


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes, floats: bool = False) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> Json:
        need(len(dict(pairs)) == len(pairs))
        return dict(pairs)

    def real(text: str) -> float:
        need(floats, math.isfinite(float(text)))
        return float(text)

    def whole(text: str) -> int:
        need(floats or (len(text) < 18 and abs(int(text)) < 2**53))
        return int(text)

    need(len(data) <= 2**24)
    try:
        found = json.loads(
            data.decode(), object_pairs_hook=unique, parse_float=real, parse_int=whole, parse_constant=real
        )
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RefusedError from error
    return found


def plain(value: Any) -> Any:
    """Without floats."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return repr(value) if isinstance(value, float) or (type(value) is int and abs(value) >= 2**53) else value


def line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def moment(text: Any) -> datetime:
    need(isinstance(text, str), re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(text), re.ASCII))
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise RefusedError from error


def unbase(text: Any) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise RefusedError from error
    need(base64.b64encode(data).decode() == text)
    return data


def trusted(path: Path, now: datetime) -> tuple[list[bytes], Json]:
    """Keys of a trust file that count at a time, in PEM form, and what else it says; `who`: keyid -> role."""
    said: Json = {"threshold": 1, "roles": {}, "who": {}} | parse(path.read_bytes())
    found = []
    for one in said["keys"]:
        data = one["pem"].encode() if "pem" in one else (path.parent / one["path"]).read_bytes()
        der = load_pem_public_key(data).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        said["who"][sha(der)] = one["role"]
        begin, end = (moment(one.get(name, now.strftime(STAMP))) for name in ("not_before", "not_after"))
        revoked = one.get("revoked", False)
        if begin <= now <= end and (not revoked or (revoked is not True and now < moment(revoked))):
            found.append(data)
    return found, said


def envelope(data: bytes, keys: list[bytes], threshold: int, kind: str) -> tuple[dict[str, str], Json, set[str]]:
    """Subjects in order, predicate and keyids of a statement that enough different keys have signed."""
    found = parse(data)
    need(isinstance(found, dict) and set(found) == {"payload", "payloadType", "signatures"} and line(found) == data)
    need(found["payloadType"] == "application/vnd.in-toto+json", isinstance(found["signatures"], list))
    need(all(isinstance(one, dict) and set(one) == {"keyid", "sig"} for one in found["signatures"]))
    given = {str(one["keyid"]): unbase(one["sig"]) for one in found["signatures"]}
    need(len(given) == len(found["signatures"]))
    body, signed = unbase(found["payload"]), set()
    for pem in keys:
        key: Any = load_pem_public_key(pem)
        keyid = sha(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        how = {"secp256r1": [ec.ECDSA(SHA256())], "secp384r1": [ec.ECDSA(SHA384())]}
        more = how[key.curve.name] if isinstance(key, ec.EllipticCurvePublicKey) else []
        try:
            key.verify(
                given.get(keyid, b""), b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(body), body), *more
            )
        except InvalidSignature:
            continue
        signed.add(keyid)
    need(len(signed) >= max(1, threshold))
    said = parse(body)
    need(isinstance(said, dict) and set(said) == {"_type", "subject", "predicateType", "predicate"})
    need(said["_type"] == "https://in-toto.io/Statement/v1", said["predicateType"] == kind, said["subject"])
    subject = {one.get("name"): one.get("digest", {}).get("sha256") for one in said["subject"]}
    need(all(set(one) == {"name", "digest"} and set(one["digest"]) == {"sha256"} for one in said["subject"]))
    need(len(subject) == len(said["subject"]), all(re.fullmatch("[0-9a-f]{64}", value) for value in subject.values()))
    return subject, said["predicate"], signed


def read(path: Path) -> bytes:
    need(stat.S_ISREG(path.lstat().st_mode), path.lstat().st_size <= 2**28)
    return path.read_bytes()


def tensors(data: bytes) -> dict[str, str]:
    """Name -> SHA-256 of type, shape and bytes, where tensors cover the whole file of safetensors."""
    size = int.from_bytes(data[:8], "little")
    head, found, place = parse(data[8 : 8 + size]), dict[str, str](), 8 + size
    need(isinstance(head, dict), all(one.get("dtype") in TYPES for name, one in head.items() if name != "__metadata__"))
    head.pop("__metadata__", None)
    for name, one in sorted(head.items(), key=lambda item: list(item[1]["data_offsets"])):
        begin, end = (8 + size + offset for offset in one["data_offsets"])
        need(begin == place, end - begin == math.prod(one["shape"]) * WIDTH[one["dtype"]], end <= len(data))
        place, said = end, f"torch.{TYPES[one['dtype']]} {tuple(one['shape'])} "
        found[name] = sha(said.encode() + data[begin:end])
    need(place == len(data))
    return found


def redirected(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(redirected, value))
    words = ["auto_map", "custom_pipelines", "transformers_weights"]
    return isinstance(value, dict) and (
        any(value.get(word) and not isinstance(value[word], int) for word in words)
        or any(map(redirected, value.values()))
    )


def plain_set(names: Any) -> list[str]:
    """The files with weights, where loaders take all of them and nothing else."""
    found = sorted(name for name in names if name.endswith(".safetensors"))
    need(found, "config.json" in names, not any(name.split("/")[-1].startswith("adapter_") for name in names))
    need(found == ["model.safetensors"] or (INDEX in names and "model.safetensors" not in found))
    return found


def weights(model: Path, names: Any) -> str:
    """The digest of the weights in a closed folder."""
    files = {name: (model / name).read_bytes() for name in names}
    stored = {name: tensors(files[name]) for name in plain_set(names)}
    parts = {tensor: value for some in stored.values() for tensor, value in some.items()}
    need(parts, len(parts) == sum(map(len, stored.values())))
    where = {tensor: name for name, some in stored.items() for tensor in some}
    need(INDEX not in files or parse(files[INDEX], True).get("weight_map") == where)
    need(not any(redirected(parse(data, True)) for name, data in files.items() if name.endswith(".json")))
    for name in (name for name in files if not name.endswith((".safetensors", ".json"))):
        need(not files[name].startswith(OTHER), files[name][257:262] != b"ustar")
        need(
            name.endswith(".model")
            or (b"\0" not in files[name] and files[name].decode("utf-8", "replace").encode() == files[name])
        )
    own = {value for tensor, value in parts.items() if not HEAD.fullmatch(tensor)}
    kept = sorted(tensor for tensor in parts if not (HEAD.fullmatch(tensor) and parts[tensor] in own))
    return sha("".join(f"{parts[tensor]}  {tensor}\n" for tensor in kept).encode())


def binomial(k: int, n: int, a: float) -> Fraction:
    p, whole = Fraction(a).as_integer_ratio()
    return Fraction(sum(math.comb(n, i) * p**i * (whole - p) ** (n - i) for i in range(k + 1)), whole**n)


def capital(losses: list[int], level: float, planned: int, a: float) -> float:
    """The most a gambler had who bets that the mean is below `a`, each time with what was seen before."""
    total, squares, variance, wealth, most = 0.5, 0.25, 0.25, 1.0, 0.0
    for i, loss in enumerate(losses):
        bet = min(1.0, math.sqrt(2 * math.log(1 / level) / max(len(losses), planned) / variance))
        wealth *= 1 - bet * (loss / 1000 - a)
        most, total = max(most, wealth), total + loss / 1000
        squares += (loss / 1000 - total / (i + 2)) ** 2
        variance = squares / (i + 2)
    return most


def p_value(kind: str, losses: list[int], planned: int, a: float, level: float) -> float:
    if kind == "binomial":
        return float(binomial(sum(losses) // 1000, len(losses), a))
    return 1 / max(1.0, capital(losses, level, planned, a))


def check(
    bundle: Path, keys: Any, model: Path | None, now: datetime, threshold: int = 1, min_sequence: int = 1,
    trust: Path | None = None,
) -> str:  # fmt: skip
    """The verdict of a bundle; RefusedError where it does not verify. keys: files, or a trust file instead of them."""
    later = {name for name in os.listdir(bundle) if re.fullmatch("reexecution.dsse.json|report-[0-9a-f]{64}.tsr", name)}
    files = {name: read(bundle / name) for name in sorted({*os.listdir(bundle)} - later)}
    need(set(files) - {"plan.tsr"} in (FILES, {*FILES, "comparison.csv", "comparison.json"}))
    keys, rules = trusted(trust, now) if trust else ([path.read_bytes() for path in keys], {"threshold": threshold})
    data = files["report.dsse.json"]
    subject, report, signed = envelope(data, keys, rules["threshold"], "urn:froc:unlearning-audit:1")
    need(all(name[7:-4] in {one["keyid"] for one in parse(data)["signatures"]} for name in later if name[-1] == "r"))
    roles = rules.get("who", {})
    need(all([roles.get(k) for k in signed].count(r) >= n for r, n in rules.get("roles", {}).items()))
    need(all(roles.get(one["keyid"], one["role"]) == one["role"] for one in report["signers"]))
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
    who = [one["keyid"] for one in report["signers"]]
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
        found = {p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_symlink() or not p.is_dir()}
        found = {name: path for name, path in found.items() if name in covered or not BESIDE.fullmatch(name)}
        need(all(path.is_file() and path.stat().st_size <= 2**28 for path in found.values()))
        need({name: sha(path.read_bytes()) for name, path in found.items()} == covered)
    need(not covered or plain_set(covered))
    about, said, _ = envelope(files["plan.dsse.json"], keys, 1, "urn:froc:unlearning-plan:1")
    plan, seal = parse(files["plan.json"], True), parse(files["seal.json"], True)
    need(about == {"plan.json": planned}, set(said) == {"signed", "plan"}, line(said["plan"]) == line(plain(plan)))
    latest = max(
        [said["signed"]] + [one["ended"] or one["started"] for one in map(parse, files["trials.jsonl"].splitlines())]
    )
    need(moment(plan["created"]) <= moment(said["signed"]), moment(latest) <= issued + timedelta(minutes=5))
    after = plan.get("after") or {"measured": False}
    need(after["measured"] == any("earlier" in metric.rpartition("/")[2] for metric in plan["metrics"].values()))
    parts = plan["bound"], plan["metrics"], plan["population"], plan["task"]["units"], plan["split"]["calibration"]
    need(all(set(part) == set(plan["budget"]) for part in parts), plan["openings"] >= 1)
    names = [one["config"] for one in seal["candidates"]]
    bound = {
        one.get("weights_digest") for one in [*seal["candidates"], {"weights_digest": seal.get("base_weights_digest")}]
    }
    need(None not in bound or bound == {None}, all(re.fullmatch("[0-9a-f]{64}", one) for one in bound - {None}))
    if covered:
        chosen = next(
            (one.get("weights_digest") for one in seal["candidates"] if one["config"] == report["config"]), None
        )
        bases = {seal.get("base_weights_digest"), plan["model"]["digest"]}
        there = weights(model, covered) if model is not None else chosen
        need(chosen is None or (there == chosen and chosen not in bases), there is None or there not in bases)
    need(set(seal) <= set(SEAL.split()), seal["plan"] == planned, seal["calibration"] == plan["split"]["queries"])
    need(
        len(set(names)) == len(names) <= plan["search"]["candidates"],
        plan["sequential"] == (seal.get("order") is not None),
    )
    log = trials(files["trials.jsonl"], plan, seal, planned)
    losses = matrices(files["losses.csv"], plan, seal)
    return derived(report, covered, plan, planned, said["signed"], seal, log, losses)


def trials(data: bytes, plan: Json, seal: Json, planned: str) -> list[Json]:
    need(data.endswith(b"\n"))
    log, tries, done = [parse(one) for one in data.split(b"\n")[:-1]], dict[int, int](), Json()
    for one in log:
        need(set(one) == set(TRIAL.split()) and one["status"] in STATUS, one["plan"] == planned)
        tries[one["trial"]] = tries.get(one["trial"], 0) + 1
        need(moment(one["started"]) >= moment(plan["created"]), one["attempt"] == tries[one["trial"]])
        need(one["config"].startswith(f"c{one['trial']:04d}"))
        more = [(v["config"], {**one["params"], "stop": v["stop"], "mix": v["mix"]}) for v in one["variants"]]
        for name, params in [(one["config"], one["params"]), *more] if one["status"] == "complete" else ():
            need(name not in done, name.startswith(one["config"]))
            done[name] = [one["method"], params]
    need(sorted(tries) == list(range(len(tries))), len(tries) <= plan["search"]["trials"])
    spans = [(moment(one["ended"] or one["started"]) - moment(one["started"]), one) for one in log]
    need(
        all(
            (s := span.total_seconds()) >= 0 and (not one["ended"] or float(one["seconds"]) <= s + 300)
            for span, one in spans
        )
    )
    need(all(v["stop"] <= one["steps"] for one in log for v in one["variants"]))
    need(all(one["method"] in (plan["search"].get("methods") or [one["method"]]) for one in log))
    lost = {end["config"]: end["search"] for one in log for end in (one, *one["variants"]) if end["search"]}
    for rank, one in enumerate(seal["candidates"], start=1):
        need(one["weight"] == 1 / rank)
        mine = lost.get(one["config"], {})
        for other in seal["candidates"][: rank - 1]:
            pairs = [(mine.get(r), lost.get(other["config"], {}).get(r)) for r in plan["budget"]]
            need(any(None in pair or float(pair[0]) >= float(pair[1]) for pair in pairs))
    need(all(line(done.get(o["config"])) == line([o["method"], plain(o["params"])]) for o in seal["candidates"]))
    ended = [one["status"] for one in log if one["status"] != "interrupted"]
    need(ended.count("complete") <= seal["trials"] <= len(ended))
    return log


def matrices(data: bytes, plan: Json, seal: Json) -> dict[str, list[list[int]]]:
    """risk -> per candidate the losses of its units, in the order of the units' digests; last those of the base model."""
    text, found = data.decode("ascii", "replace").split("\n"), dict[str, list[list[int]]]()
    need(text[0] == "config,split,risk,unit,query,loss", text[-1] == "", all(map(ROW.fullmatch, text[1:-1])))
    rows = [one.split(",") for one in text[1:-1]]
    order = [(config, risk, query) for config, _, risk, _, query, _ in rows]
    names = [one["config"] for one in seal["candidates"]]
    names += ["base"] if names and "control" in plan else []
    need(order == sorted(set(order)), {row[0] for row in rows} <= {*names})
    need({row[2] for row in rows} <= set(plan["budget"]))
    for risk, kind in plan["task"]["units"].items() if seal["candidates"] else ():
        listed = [(q, u) for r, u, q in seal.get("order") or [row[2:5] for row in rows] if r == risk]
        asked, units = dict(listed), dict[str, list[str]]()
        need(
            sha(line(sorted(asked))[:-1]) == seal["calibration"][risk],
            len(asked) == len(listed) or not seal.get("order"),
        )
        for query, unit in asked.items():
            units.setdefault(query if kind == "query" else unit, []).append(query)
        need(len(units) == plan["split"]["calibration"][risk])
        ranked = sorted(units, key=lambda unit: sha(unit.encode()))
        for name in names:
            mine = {row[4]: int(row[5]) for row in rows if row[0] == name and row[2] == risk}
            need(all(asked.get(row[4]) == row[3] for row in rows if row[2] == risk))
            first = [unit for unit in ranked if any(query in mine for query in units[unit])]
            need(first == (ranked[: len(first)] if plan["sequential"] and name != "base" else ranked))
            need(sum(len(units[unit]) for unit in first) == len(mine))
            whole = [-(-sum(mine[query] for query in units[unit]) // len(units[unit])) for unit in first]
            need(plan["bound"][risk] != "binomial" or set(whole) <= {0, 1000})
            found.setdefault(risk, []).append(whole)
    return found


def candidate(one: Json, row: Json, losses: dict[str, list[int]], plan: Json, delta: float, m: int) -> None:
    """The numbers of one candidate."""
    for risk, alpha in plan["budget"].items():
        kind, cur, mine, p = plan["bound"][risk], row["cur"][risk], losses[risk], float(row["p_values"][risk])
        planned = plan["split"]["calibration"][risk] if plan["sequential"] else 0
        own = max(1e-300, p_value(kind, mine, planned, alpha, delta / m))
        need(own * (1 - 1e-9) <= p <= min(1.0, own * 1.0000101), set(cur) == {"pointwise", "simultaneous"})
        for name, level in (("pointwise", delta), ("simultaneous", delta / (m * len(plan["budget"])))):
            u, more = float(cur[name]), level * (1 + 1e-9)
            need(0 < u <= 1, u == 1 or p_value(kind, mine, planned, u, level) <= more)
            need(u < 2e-6 or p_value(kind, mine, planned, u - 1.00001e-6, level) > level * (1 - 1e-9))
        upper, radius = float(cur["simultaneous"]), row["robust_radius"][risk]
        angle = math.asin(math.sqrt(alpha)) - math.asin(math.sqrt(upper))
        need((radius is None) == (upper > alpha))
        need(radius is None or -1e-9 <= math.sqrt(2) * math.sin(angle / 2) - float(radius) <= 1e-6 + 1e-9)
        need(all(repr(float(text)) == text for text in (*cur.values(), row["p_values"][risk], radius or "0.0")))
    means = {risk: round(sum(some) / 1000 / len(some), 6) if some else 1.0 for risk, some in losses.items()}
    whole = {name: row[name] for name in ("certified", "p_values", "cur", "robust_radius")}
    need(all(set(row[name]) == set(losses) for name in ("p_values", "cur", "robust_radius")))
    whole |= {"n": {risk: len(some) for risk, some in losses.items()}, "empirical": means}
    need(line(row) == line(plain({**one, **whole, "p_value": max(map(float, row["p_values"].values()))})))


def shown(risk: str, said: Json, absences: list[int], plan: Json, level: float) -> Json:
    """What the base model showed: 1 - the mean of its absences, and a lower bound that a millionth more would not be."""
    kind, budget, lower = plan["bound"][risk], plan["budget"][risk], float(said["lower"])
    planned = plan["split"]["calibration"][risk] if plan["sequential"] else 0
    own = max(1e-300, level / (len(plan["budget"])))
    u = 1 - lower
    need(0 <= lower <= 1, u == 1 or p_value(kind, absences, planned, u + 1e-9, own) <= own * (1 + 1e-6))
    need(u < 4e-6 or p_value(kind, absences, planned, u - 3e-6, own) > own * (1 - 1e-6))
    asked = "ceiling" if risk == "utility" else "exceeds"
    need(plan["control"].get(risk) == asked, repr(lower) == said["lower"])
    before = round(1 - sum(absences) / 1000 / len(absences), 6)
    return {"control": asked, "n": len(absences), "before": before, "lower": lower, "vacuous": lower <= budget}


def derived(
    report: Json, covered: Json, plan: Json, planned: str, signed: str, seal: Json, log: Any, losses: Any
) -> str:
    """The verdict, where all that follows from the evidence is what the report says."""
    found, budget, m = report["certificate"], dict(sorted(plan["budget"].items())), len(seal["candidates"])
    need(plan["procedure"] == "weighted-holm", not plan["weights"], not plan["listed"], plan["radius"] == 0)
    need(set(plan["bound"].values()) <= {"binomial", "betting"}, set(plan["population"].values()) == {"queries"})
    delta = round(1 - plan["confidence"], 12) / plan["openings"] / (2 if plan["joint"] else 1)
    need(isinstance(found, dict), found and len(found["candidates"]) == m)
    for i, row in enumerate(found["candidates"]):
        candidate(seal["candidates"][i], row, {risk: losses[risk][i] for risk in budget}, plan, delta, m)
    base = {risk: losses[risk].pop() for risk in budget} if "control" in plan and m else {}
    before = {risk: shown(risk, found["base"][risk], base[risk], plan, delta) for risk in base}
    void = [risk for risk in before if before[risk]["vacuous"]]
    rows, left, passed = found["candidates"], sum(float(row["weight"]) for row in found["candidates"]), set()
    for row in sorted(rows, key=lambda row: float(row["p_value"]) / float(row["weight"])):
        if float(row["p_value"]) > delta * float(row["weight"]) / left:
            break
        passed |= set() if void else {row["config"]}
        left -= float(row["weight"])
    need(all(row["certified"] is (row["config"] in passed) for row in rows))

    nothing = {"config": None, "certified": False, "empirical": dict.fromkeys(budget, "0")}
    strain = [max(float(row["cur"][risk]["simultaneous"]) / budget[risk] for risk in budget) for row in rows]
    best = min((i for i, row in enumerate(rows) if row["certified"]), key=strain.__getitem__, default=None)
    chosen = None if best is None else rows[best]["config"]
    need((found["closest"] is None) == (chosen is not None or not rows), isinstance(found["warnings"], list))
    config = report["asked"] or chosen or (found["closest"] or nothing)["config"]
    need(any(row["config"] == config for row in (*rows, nothing)))
    row = next(row for row in (*rows, nothing) if row["config"] == config)
    above = any(float(row["empirical"][risk]) > alpha for risk, alpha in budget.items())
    verdict = "PASS" if row["certified"] else "FAIL" if above else "NOT_ESTABLISHED"
    need(bool(covered) == (config is not None and config == chosen), verdict != "PASS" or config == chosen)
    many = sum(plan["split"]["calibration"][risk] * m for risk in budget)
    spent = sum(len(some) for every in losses.values() for some in every)
    copied = ("budget", "confidence", "joint", "procedure", "population", "weights", "listed", "bound", "radius")
    whole = {name: plan[name] for name in copied} | {name: found[name] for name in ("closest", "warnings", "reason")}
    whole |= {"format": 2, "level": delta, "promise": "family-wise", "screened": None, "chosen": chosen}
    whole |= {"unit": plan["task"]["units"], "n": {risk: max(map(len, some)) for risk, some in losses.items()}}
    whole |= {"opening": {**found["opening"], "number": report["opening"], "planned": plan["openings"]}}
    whole["certified"], whole["candidates"] = [row["config"] for row in rows if row["certified"]], rows
    whole |= {"sequential": {"planned": many, "measured": spent, "saved": many - spent} if plan["sequential"] else None}
    whole |= {"base": before} if base else {}
    need(line(found) == line(plain(whole)))
    passes, before = verdict == "PASS", signed <= min((one["started"] for one in log), default="")
    ended = [one["status"] for one in log]
    counts = dict(zip(("completed", "pruned", "interrupted"), map(ended.count, STATUS), strict=False))
    counts["failed"] = sum(map(ended.count, STATUS[3:]))
    more = {"plan-signed-after-run": not before, "unplanned-opening": report["opening"] > plan["openings"]}
    more |= {"no-model-covered": not covered}
    more |= {"tokenizer-from-the-data": bool(covered) and "tokenizer" in plan}
    more |= {"small-sample": any(len(some) < 50 for every in losses.values() for some in every)}
    tree = sha("".join(f"{covered[name]}  {name}\n" for name in sorted(covered)).encode()) if covered else None
    own = next((one.get("weights_digest") for one in seal["candidates"] if one["config"] == config), None)
    about = {part: {name: plan[part][name] for name in ("name", "digest")} for part in ("model", "task")}
    follows: Json = {
        "model": {"base": about["model"], "config": config, "format": "safetensors", "files": len(covered)}
        | {"treeDigest": {"alg": "dirHash-sha256", "value": tree}}
        | (
            {}
            if own is None
            else {"weightsDigest": {"alg": "tensors-sha256", "value": own, "base": seal["base_weights_digest"]}}
        ),
        "plan": {"sha256": planned, "created": plan["created"], "signed": signed, "task": about["task"]}
        | {"status": "signed-before-first-trial" if before else "asserted-signed-after-run"},
        "method": {"procedure": plan["procedure"], "bound": plan["bound"], "quantum": 1000, "metric": plan["metrics"]}
        | {"selectionRule": "widest-margin-in-the-worst-risk"},
        "claims": [
            {"metric": risk, "comparator": "<=", "threshold": budget[risk], "passed": passes}
            | ({"verdict": "NOT_ESTABLISHED"} if risk in void else {})
            for risk in budget
        ],
        "trials": {"planned": plan["search"]["trials"], "started": len(log), **counts},
        "limits": LIMITS + [name for name, holds in more.items() if holds],
    }
    follows |= {"plugins": plan["plugins"]} if plan.get("plugins") else {}
    need(("plugins" in report) == bool(plan.get("plugins")))
    follows |= {"config": config, "chosen": chosen, "verdict": verdict, "environment": plan["environment"]}
    need(all(line(report[part]) == line(plain(value)) for part, value in follows.items()))
    return verdict
