"""RFC 3161 time stamps: an independent authority's statement of when a signature existed.

A token covers the raw bytes of one signature of an envelope, so it is bound to a key and to what that key signed. It
counts if it was made by an authority whose certificates the verifier has pinned. `rfc3161-client` (froc[timestamp])
reads tokens and is imported when there is one; only `ask` uses the network.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from froc import bounded_file
from froc.audit import keys
from froc.audit.bundle_files import PLAN_TOKEN, TOKEN_BYTES, token_keyid
from froc.errors import InputError, VerificationError

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, VerifierBuilder

TIMEOUT = 30.0
"""Seconds that an authority has to answer."""
CERTIFICATES_BYTES = 2**20
_HASHES = (hashlib.sha256, hashlib.sha384, hashlib.sha512)

_KINDS = (bytes.fromhex("06092a864886f70d010702"), bytes.fromhex("060b2a864886f70d0109100104"))
"""Object identifiers in a token: signed data, and what they are about: a time (TSTInfo)."""


@dataclass(frozen=True)
class Authority:
    """A pinned time-stamping authority.

    certificates: its root and, where its tokens do not carry them, intermediate ones.
    certificate: the one that must sign tokens, if only one of the root's may.
    policy: OID that its tokens must name.
    """

    certificates: tuple[x509.Certificate, ...]
    certificate: x509.Certificate | None = None
    policy: x509.ObjectIdentifier | None = None

    def __post_init__(self) -> None:
        if not self.roots:
            raise InputError("a time-stamping authority needs its root certificate, which is issued by itself")

    @property
    def roots(self) -> list[x509.Certificate]:
        """The self-issued certificates."""
        return [certificate for certificate in self.certificates if certificate.issuer == certificate.subject]


@dataclass(frozen=True)
class Proven:
    """Latest times of signatures: keyid -> time in UTC by which it existed, for the plan's and the report's envelope.

    tokens: number of tokens in the bundle.
    checked: whether an authority was given to check them with.
    """

    plan: Mapping[str, datetime] = field(default_factory=dict)
    report: Mapping[str, datetime] = field(default_factory=dict)
    tokens: int = 0
    checked: bool = False

    @property
    def seen(self) -> str:
        """The result in fixed words."""
        if not self.checked:
            return f"not checked: {self.tokens} token(s), no TSA in the trust file"
        times = [("plan", self.plan), ("report", self.report)]
        return ", ".join(
            f"{signed} {k[:16]} at {t:%Y-%m-%dT%H:%M:%SZ}" for signed, times_of in times for k, t in times_of.items()
        )


@dataclass(frozen=True)
class Token:
    """A checked time stamp. time: by when the signature existed."""

    data: bytes
    time: datetime


def certificates(data: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """At least one certificate in PEM form. where: their name in an InputError."""
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError as error:
        raise InputError(f"{where} holds no certificate in PEM form; give one of the authority's") from error


def read(path: Path) -> tuple[x509.Certificate, ...]:
    """Certificates from a file."""
    try:
        return certificates(bounded_file.read(path, CERTIFICATES_BYTES), str(path))
    except OSError as error:
        raise InputError(f"cannot read the authority's certificate {path} ({error.strerror})") from error


def request(signature: bytes) -> bytes:
    """A request (DER) for a token over a signature's bytes."""
    encoded: bytes = _request(signature).as_bytes()
    return encoded


def ask(url: str, signature: bytes, trusted: Authority) -> Token:
    """A token over a signature from the authority at a URL, checked, also that it answers this request.

    InputError where no token comes, or one that verifiers could not rely on.
    """
    stamp_request = _request(signature)
    return usable(_post(url, stamp_request.as_bytes()), signature, trusted, url, stamp_request.nonce)


def usable(data: bytes, signature: bytes, trusted: Authority, where: str, nonce: int | None = None) -> Token:
    """A token that may be stored; InputError where verifiers who pin this authority would refuse it."""
    try:
        return Token(data, time_of(data, signature, [trusted], nonce))
    except VerificationError as error:
        raise InputError(f"{where}: {error}; give the root certificate of who made it") from error


def refuse_other(token: bytes, over: Sequence[bytes], where: str) -> None:
    """InputError for what is by its shape no time stamp over one of the signatures; whoever pins an authority would refuse it.

    Needs no package and no authority: one sequence in DER that holds signed data about a time, and a digest of the signature.
    """
    whole = (
        len(token) <= TOKEN_BYTES and len(token) == _sequence_length(token) and all(kind in token for kind in _KINDS)
    )
    if not whole or not any(make(signature).digest() in token for make in _HASHES for signature in over):
        raise InputError(
            f"{where} is no time stamp of the plan's signature, and verifiers would refuse a report with it; take it out, or put the "
            "one that was asked for back"
        )


def _sequence_length(data: bytes) -> int:
    """Bytes that a sequence in DER says it takes, its head included; -1 where there is none."""
    if data[:1] != b"\x30" or len(data) < 2:
        return -1
    further = data[1] & 0x7F if data[1] & 0x80 else 0
    return 2 + further + (int.from_bytes(data[2 : 2 + further], "big") if further else data[1])


def check(files: Mapping[str, bytes], trusted: Sequence[Authority]) -> Proven:
    """Check every token of a bundle against its signature. VerificationError for one that does not hold."""
    plan: dict[str, datetime] = {}
    report: dict[str, datetime] = {}
    tokens = [name for name in files if name.endswith(".tsr")]
    for name in tokens:
        keyid = token_keyid(name)
        envelope = files["plan.dsse.json" if keyid is None else "report.dsse.json"]
        signatures = keys.signatures(envelope)
        if keyid is None:
            # a plan has one signer
            keyid = next(iter(signatures))
        if keyid not in signatures:
            raise VerificationError("timestamp-other-signature", f"{name} is over a signature that is not there")
        if trusted:
            times = plan if name == PLAN_TOKEN else report
            times[keyid] = time_of(files[name], signatures[keyid], trusted)
    return Proven(plan, report, len(tokens), bool(trusted))


def time_of(token: bytes, signature: bytes, trusted: Sequence[Authority], nonce: int | None = None) -> datetime:
    """Time by which a signature existed: the token's time plus its accuracy. VerificationError for an invalid token.

    An authority's certificate must have been valid at that time. Revocation is not queried: whoever learns of it
    removes the authority from the trust file.
    """
    client = _client()
    try:
        answer = client.decode_timestamp_response(token)
        info = answer.tst_info
        imprint, moment, accuracy = info.message_imprint.message, info.gen_time, info.accuracy
    except ValueError as error:
        raise VerificationError("timestamp-shape", "no granted time stamp in strict DER") from error
    if imprint not in [make(signature).digest() for make in _HASHES]:
        raise VerificationError("timestamp-other-signature", "the time stamp is over something else")
    if not any(_made_by(authority, answer, signature, nonce) for authority in trusted):
        raise VerificationError("timestamp-untrusted", "the time stamp was made by no authority in the trust file")
    off = accuracy and timedelta(
        seconds=accuracy.seconds or 0, milliseconds=accuracy.millis or 0, microseconds=accuracy.micros or 0
    )
    latest: datetime = moment.astimezone(UTC) + (off or timedelta())
    return latest


def _request(signature: bytes) -> "TimeStampRequest":
    client = _client()
    made: TimeStampRequest = client.TimestampRequestBuilder(signature, client.HashAlgorithm.SHA256).build()
    return made


def _made_by(authority: Authority, answer: Any, signature: bytes, nonce: int | None) -> bool:
    client = _client()
    builder: VerifierBuilder = client.VerifierBuilder(
        policy_id=authority.policy,
        tsa_certificate=authority.certificate,
        intermediates=[certificate for certificate in authority.certificates if certificate not in authority.roots],
        roots=authority.roots,
        nonce=nonce,
    )
    try:
        return builder.build().verify_message(answer, signature)
    except (client.VerificationError, ValueError):
        return False


def _client() -> Any:
    try:
        import rfc3161_client
    except ImportError as error:
        raise InputError("time stamps need rfc3161-client: pip install 'froc[timestamp]'") from error
    return rfc3161_client


def _post(url: str, body: bytes) -> bytes:
    import http.client
    import urllib.request

    if not re.match(r"https?://", url):
        raise InputError(f"--tsa {url} is no address of a time-stamping authority; give http:// or https://")
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    try:
        stamp_request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(stamp_request, timeout=TIMEOUT) as answer:
            received: bytes = answer.read(TOKEN_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"{url} gave no time stamp ({error}); try again, or another authority") from error
    if len(received) > TOKEN_BYTES:
        raise InputError(f"{url} answered with more than {TOKEN_BYTES} bytes, which no time stamp has")
    return received
