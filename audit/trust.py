"""Whom a verifier trusts, in which role and for how long, and how many of them must have signed.

A trust file belongs to the verifier: it comes from whoever governs the keys, never from a bundle, and only it assigns
roles. A report names the roles of those who signed when it was made, as a claim; later signers are not named, since
every signature covers the same bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from pydantic import Field

from froc import bounded_file
from froc.audit import canonical_json, documents, timestamps
from froc.audit import keys as signing
from froc.audit.bundle_files import Stamp, Strict, moment
from froc.audit.documents import Role, Signer
from froc.audit.timestamps import Authority
from froc.errors import InputError, VerificationError

Count = Annotated[int, Field(ge=1)]
Date = Annotated[str, Stamp]
NEVER = datetime.min.replace(tzinfo=UTC)
PEM = "-----BEGIN"
TRUST_BYTES = 2**20


class Listed(Strict):
    """A trusted key: `pem` holds it, or `path`, relative to the trust file.

    not_before, not_after: when it may sign.
    revoked: time from which it no longer counts; true: it never counts.
    """

    role: Role
    pem: str | None = None
    path: str | None = None
    not_before: Date | None = None
    not_after: Date | None = None
    revoked: bool | Date = False


class ListedAuthority(Strict):
    """A pinned time-stamping authority. root, certificate: PEM text, or a path relative to the trust file."""

    root: str
    certificate: str | None = None
    policy: str | None = Field(default=None, pattern=r"^[0-2](\.[0-9]{1,20}){1,30}$")


class TrustFile(Strict):
    """`trust.json`. threshold: number of different keys that must have signed. roles: smallest number per role."""

    format: Literal[1]
    keys: list[Listed] = Field(min_length=1)
    threshold: int = Field(default=1, ge=1)
    roles: dict[Role, Count] = Field(default_factory=dict)
    min_sequence: int = Field(default=1, ge=1)
    tsa: list[ListedAuthority] = Field(default_factory=list)


@dataclass(frozen=True)
class Validity:
    """When signatures of a key count: from `not_before` to `not_after`, and before `revoked`."""

    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Whether a signature that existed at this time counts."""
        begun = self.not_before is None or self.not_before <= at
        ended = self.not_after is not None and at > self.not_after
        return begun and not ended and (self.revoked is None or at < self.revoked)


ALWAYS = Validity()


@dataclass(frozen=True)
class Trust:
    """Trusted keys.

    roles: keyid -> role; empty where keys were given directly.
    needed: role -> number of signatures.
    validity: keyid -> when it counts; always if absent.
    authorities: trusted time-stamping authorities.
    """

    keys: tuple[signing.PublicKey, ...]
    threshold: int = 1
    roles: Mapping[str, str] = field(default_factory=dict)
    needed: Mapping[Role, int] = field(default_factory=dict)
    min_sequence: int = 1
    validity: Mapping[str, Validity] = field(default_factory=dict)
    authorities: tuple[Authority, ...] = ()

    def counts(self, keyid: str, at: datetime) -> bool:
        """Whether a listed key's signature counts that existed at this time."""
        return self.validity.get(keyid, ALWAYS).holds(at)

    def counting(
        self, signed: Sequence[str], threshold: int, now: datetime, proven: Mapping[str, datetime]
    ) -> tuple[str, ...]:
        """The signers whose keys count now, or counted at the time of a trusted time stamp of their signature.

        VerificationError where they are fewer than the threshold.
        """
        counted = tuple(k for k in signed if self.counts(k, now) or (k in proven and self.counts(k, proven[k])))
        if len(counted) < threshold:
            raise VerificationError(
                "key-revoked-or-out-of-window",
                f"{len(signed) - len(counted)} trusted key(s) signed these bytes that are revoked or outside their dates, "
                "and no trusted time stamp is from before",
            )
        return counted

    def refuse(self, signers: Sequence[str], named: Sequence[Signer]) -> None:
        """VerificationError where a role has too few of the signers, or the report gives a signer another role."""
        counts = Counter(self.roles.get(keyid) for keyid in signers)
        for role, count in self.needed.items():
            if counts[role] < count:
                raise VerificationError(
                    "signature-role",
                    f"{counts[role]} trusted key(s) of role {role} signed these bytes, {count} must have",
                )
        for signer in named:
            if self.roles.get(signer.keyid, signer.role) != signer.role:
                raise VerificationError(
                    "signers-differ",
                    f"the report calls a signer {signer.role}, who is {self.roles[signer.keyid]} by the trust file",
                )


def read(path: Path) -> Trust:
    """A trust file. InputError where it is invalid, lists a key twice, or requires more signatures than it has keys."""
    try:
        document = canonical_json.strict_json(bounded_file.read(path, TRUST_BYTES))
        trust_file: TrustFile = documents.parse(TrustFile, document, "trust-shape")
        windows = [_validity(listed) for listed in trust_file.keys]
    except OSError as error:
        raise InputError(f"cannot read the trust file {path} ({error.strerror})") from error
    except VerificationError as error:
        raise InputError(f"{path} is no trust file ({error}); docs/audit.md shows one") from error
    roles: dict[str, str] = {}
    keys: dict[str, signing.PublicKey] = {}
    validity: dict[str, Validity] = {}
    for number, (listed, window) in enumerate(zip(trust_file.keys, windows, strict=True), start=1):
        key = _key(listed, number, path)
        if key.keyid in roles:
            raise InputError(f"{path} key {number} is there already; one key has one role, remove one of the two")
        roles[key.keyid], keys[key.keyid], validity[key.keyid] = listed.role, key, window
    _refuse_unreachable(trust_file, [roles[keyid] for keyid in keys if validity[keyid].revoked != NEVER], path)
    authorities = tuple(_authority(listed, number, path) for number, listed in enumerate(trust_file.tsa, start=1))
    return Trust(
        tuple(keys.values()),
        trust_file.threshold,
        roles,
        trust_file.roles,
        trust_file.min_sequence,
        validity,
        authorities,
    )


def _validity(listed: Listed) -> Validity:
    begin, end = (moment(date) if date else None for date in (listed.not_before, listed.not_after))
    if isinstance(listed.revoked, str):
        return Validity(begin, end, moment(listed.revoked))
    return Validity(begin, end, NEVER if listed.revoked else None)


def _key(listed: Listed, number: int, path: Path) -> signing.PublicKey:
    if (listed.pem is None) == (listed.path is None):
        raise InputError(f"{path} key {number} needs a pem or a path, and not both")
    if listed.pem is None:
        return signing.load_public(path.parent / str(listed.path))
    return signing.public_from(listed.pem.encode(), f"{path} key {number}")


def _authority(listed: ListedAuthority, number: int, path: Path) -> Authority:
    where = f"{path} tsa {number}"

    def loaded(text: str) -> tuple[x509.Certificate, ...]:
        return timestamps.certificates(text.encode(), where) if PEM in text else timestamps.read(path.parent / text)

    try:
        policy = x509.ObjectIdentifier(listed.policy) if listed.policy else None
    except ValueError as error:
        raise InputError(f"{where}: {listed.policy} is no object identifier") from error
    return Authority(loaded(listed.root), loaded(listed.certificate)[0] if listed.certificate else None, policy)


def _refuse_unreachable(document: TrustFile, roles: Sequence[str], path: Path) -> None:
    if document.threshold > len(roles):
        raise InputError(
            f"{path} asks for {document.threshold} signatures of {len(roles)} usable key(s); no report has them"
        )
    for role, count in document.roles.items():
        if count > roles.count(role):
            raise InputError(
                f"{path} asks for {count} signature(s) of {role} and has {roles.count(role)} usable key(s)"
            )
