"""Bytes -> documents: strict JSON, dates, envelopes and their signatures."""

import base64
import hashlib
import json
import math
import re
import stat
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

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
        value = json.loads(
            data.decode(), object_pairs_hook=unique, parse_float=real, parse_int=whole, parse_constant=real
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RefusedError from error
    return value


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
    rules: Json = {"threshold": 1, "roles": {}, "who": {}} | parse(path.read_bytes())
    valid = []
    for entry in rules["keys"]:
        data = entry["pem"].encode() if "pem" in entry else (path.parent / entry["path"]).read_bytes()
        der = load_pem_public_key(data).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        rules["who"][sha(der)] = entry["role"]
        begin, end = (moment(entry.get(name, now.strftime(STAMP))) for name in ("not_before", "not_after"))
        revoked = entry.get("revoked", False)
        if begin <= now <= end and (not revoked or (revoked is not True and now < moment(revoked))):
            valid.append(data)
    return valid, rules


def envelope(data: bytes, keys: list[bytes], threshold: int, kind: str) -> tuple[dict[str, str], Json, set[str]]:
    """Subjects in order, predicate and keyids of a statement that enough different keys have signed."""
    outer = parse(data)
    need(isinstance(outer, dict) and set(outer) == {"payload", "payloadType", "signatures"} and line(outer) == data)
    need(outer["payloadType"] == "application/vnd.in-toto+json", isinstance(outer["signatures"], list))
    need(all(isinstance(item, dict) and set(item) == {"keyid", "sig"} for item in outer["signatures"]))
    sigs = {str(item["keyid"]): unbase(item["sig"]) for item in outer["signatures"]}
    need(len(sigs) == len(outer["signatures"]))
    body, signed = unbase(outer["payload"]), set()
    for pem in keys:
        key: Any = load_pem_public_key(pem)
        keyid = sha(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        how = {"secp256r1": [ec.ECDSA(SHA256())], "secp384r1": [ec.ECDSA(SHA384())]}
        more = how[key.curve.name] if isinstance(key, ec.EllipticCurvePublicKey) else []
        try:
            key.verify(sigs.get(keyid, b""), b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(body), body), *more)
        except InvalidSignature:
            continue
        signed.add(keyid)
    need(len(signed) >= max(1, threshold))
    inner = parse(body)
    need(isinstance(inner, dict) and set(inner) == {"_type", "subject", "predicateType", "predicate"})
    need(inner["_type"] == "https://in-toto.io/Statement/v1", inner["predicateType"] == kind, inner["subject"])
    subject = {item.get("name"): item.get("digest", {}).get("sha256") for item in inner["subject"]}
    need(all(set(item) == {"name", "digest"} and set(item["digest"]) == {"sha256"} for item in inner["subject"]))
    need(len(subject) == len(inner["subject"]), all(re.fullmatch("[0-9a-f]{64}", value) for value in subject.values()))
    return subject, inner["predicate"], signed


def read(path: Path) -> bytes:
    need(stat.S_ISREG(path.lstat().st_mode), path.lstat().st_size <= 2**28)
    return path.read_bytes()
