"""Envelopes, keys and signatures."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.dsse import Envelope

from froc.audit import canonical_json, keys
from tests.audit.cases.forging import Attack, Case, envelope
from tests.audit.conftest import Made

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Order of Ed25519's group: S + ORDER is the same signature to a careless verifier."""


def _flip(part: Callable[[dict[str, Any]], tuple[dict[str, Any], str]]) -> Attack:
    """Flip a bit of base64 text, decoded."""

    def change(document: dict[str, Any]) -> None:
        holder, name = part(document)
        data = bytearray(base64.b64decode(holder[name]))
        data[len(data) // 2] ^= 1
        holder[name] = base64.b64encode(data).decode()

    return envelope(change)


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


def _twice(keyid: str | None) -> Attack:
    """The one signature twice, the second under another keyid."""
    return envelope(lambda d: d["signatures"].append({**d["signatures"][0], **({"keyid": keyid} if keyid else {})}))


def _other_type(made: Made) -> None:
    signed = Envelope(canonical_json.compact(made.read()), "application/json", {})
    signed.sign(keys.load_signer(made.key))
    (made.bundle / "report.dsse.json").write_bytes(canonical_json.compact(signed.to_dict()))


def _signed_by(key: str, *, posing: bool = True) -> Attack:
    """The report signed by another key, or one of another kind. posing: under the keyid of the trusted one."""

    def attack(made: Made) -> None:
        data = keys.sign(canonical_json.compact(made.read()), [keys.load_signer(made.key.with_name(key))])
        document = json.loads(data)
        if posing:
            document["signatures"][0]["keyid"] = keys.load_public(made.public).keyid
        (made.bundle / "report.dsse.json").write_bytes(canonical_json.compact(document))

    return attack


def _ecdsa(algorithm: hashes.HashAlgorithm) -> Attack:
    """The trusted key's own signature, with a hash that is not its."""

    def attack(made: Made) -> None:
        private = load_pem_private_key(made.key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        body = Envelope(canonical_json.compact(made.read()), keys.PAYLOAD_TYPE, {}).pae()
        sig = base64.b64encode(private.sign(body, ec.ECDSA(algorithm))).decode()
        envelope(lambda document: document["signatures"][0].update(sig=sig))(made)

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


def _two(made: Made) -> Mapping[str, Any]:
    """Two of the two keys must have signed."""
    return {"threshold": 2, "keys": [made.public, made.key.with_name("other.pub")]}


CASES: dict[str, Case] = {
    "signatures emptied": Case("envelope-shape", envelope(lambda d: d.update(signatures=[]))),
    "signature replaced": Case("signature-threshold", envelope(lambda d: d["signatures"][0].update(sig="A" * 86 + "=="))),
    "signature field of another type": Case("envelope-shape", envelope(lambda d: d["signatures"][0].update(sig=7))),
    "payload replaced": Case("signature-threshold", envelope(lambda d: d.update(payload="e30="))),
    "payload loosely encoded": Case("envelope-shape", envelope(lambda d: d.update(payload=d["payload"] + "\n"))),
    "payload type rewritten": Case("payload-type", envelope(lambda d: d.update(payloadType="text/plain"))),
    "another payload type signed": Case("payload-type", _other_type),
    "unknown envelope field": Case("envelope-shape", envelope(lambda d: d.update(alg="none"))),
    "an algorithm in the envelope": Case("envelope-shape", envelope(lambda d: d["signatures"][0].update(alg="none"))),
    "envelope is a list": Case("envelope-shape", lambda m: m.edit("report.dsse.json", lambda t: "[" + t + "]")),
    "blanks in the envelope": Case("envelope-shape", lambda m: m.edit("report.dsse.json", lambda t: t.replace(",", ", ", 1))),
    "another key": Case("signature-threshold", _signed_by("other", posing=False)),
    "another key under the trusted keyid": Case("signature-threshold", _signed_by("other")),
    "a byte of the payload": Case("signature-threshold", _flip(lambda d: (d, "payload"))),
    "a bit of the signature": Case("signature-threshold", _flip(lambda d: (d["signatures"][0], "sig"))),
    "a malleated signature": Case("signature-threshold", envelope(_malleate)),
    "unused bits of a signature": Case("envelope-shape", envelope(_loose)),
    "one key signs twice": Case("envelope-shape", _twice(None), how=lambda m: {"threshold": 2}),
    "one key under two keyids": Case("signature-threshold", _twice("c" * 64), how=_two),
    "one of two signatures removed": Case("signature-threshold", envelope(lambda d: d["signatures"].pop()), "both", _two),
    "an ECDSA signature under an Ed25519 key": Case("signature-threshold", _signed_by("curve")),
    "an Ed25519 signature under an ECDSA key": Case("signature-threshold", _signed_by("key"), "curve"),
    "a P-384 signature under a P-256 key": Case("signature-threshold", _signed_by("wide"), "curve"),
    "ECDSA with another hash": Case("signature-threshold", _ecdsa(hashes.SHA384()), "curve"),
    "ECDSA with a weaker hash": Case("signature-threshold", _ecdsa(hashes.SHA256()), "wide"),
    "ECDSA of nothing": Case("signature-threshold", envelope(lambda d: d["signatures"][0].update(sig="MAYCAQACAQA=")), "curve"),
    "ECDSA without DER": Case("signature-threshold", envelope(_raw_pair), "curve"),
    "ECDSA in loose DER": Case("signature-threshold", envelope(_long_form), "curve"),
}  # fmt: skip
