"""Whom a verifier trusts, in which role, and how many of them must have signed.

A trust file is the verifier's own: it comes from whoever governs the keys, never from a bundle. Roles are read from it
alone. A report names the roles of those who signed when it was made, which is its word; who signs later is not named in
it at all, since every signature is over the same bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from audit import claims, signing
from audit.claims import Role, Signer
from audit.records import Strict
from froc.errors import InputError, VerificationError

Count = Annotated[int, Field(ge=1)]


class Listed(Strict):
    """A trusted key: `pem` holds it, or `path`, relative to the trust file. A revoked one counts for nothing."""

    role: Role
    pem: str | None = None
    path: str | None = None
    revoked: bool = False


class TrustFile(Strict):
    """`trust.json`. threshold: different keys that must have signed; roles: how many of a role at least."""

    format: Literal[1]
    keys: list[Listed] = Field(min_length=1)
    threshold: int = Field(default=1, ge=1)
    roles: dict[Role, Count] = Field(default_factory=dict)
    min_sequence: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Trust:
    """Trusted keys. roles: keyid -> role, empty where keys were given by hand. needed: role -> signatures."""

    keys: tuple[signing.PublicKey, ...]
    threshold: int = 1
    roles: Mapping[str, str] = field(default_factory=dict)
    needed: Mapping[Role, int] = field(default_factory=dict)
    min_sequence: int = 1

    def refuse(self, signers: Sequence[str], named: Sequence[Signer]) -> None:
        """VerificationError where a role has too few of the signers, or the report gives one another role."""
        found = Counter(self.roles.get(keyid) for keyid in signers)
        for role, count in self.needed.items():
            if found[role] < count:
                raise VerificationError(
                    "signature-role",
                    f"{found[role]} trusted key(s) of role {role} signed these bytes, {count} must have",
                )
        for one in named:
            if self.roles.get(one.keyid, one.role) != one.role:
                raise VerificationError(
                    "signers-differ",
                    f"the report calls a signer {one.role}, who is {self.roles[one.keyid]} by the trust file",
                )


def read(path: Path) -> Trust:
    """A trust file. InputError where it is not one, lists a key twice, or asks for more signatures than it has keys."""
    try:
        document = signing.strict_json(path.read_bytes())
        said: TrustFile = claims.parse(TrustFile, document, "trust-shape")
    except OSError as error:
        raise InputError(f"cannot read the trust file {path} ({error.strerror})") from error
    except VerificationError as error:
        raise InputError(f"{path} is no trust file ({error}); docs/audit.md shows one") from error
    roles: dict[str, str] = {}
    keys: dict[str, signing.PublicKey] = {}
    for number, one in enumerate(said.keys, start=1):
        key = _key(one, number, path)
        if key.keyid in roles:
            raise InputError(f"{path} key {number} is there already; one key has one role, remove one of the two")
        roles[key.keyid] = one.role
        if not one.revoked:
            keys[key.keyid] = key
    _refuse_unreachable(said, [roles[keyid] for keyid in keys], path)
    return Trust(
        tuple(keys.values()), said.threshold, {keyid: roles[keyid] for keyid in keys}, said.roles, said.min_sequence
    )


def _key(one: Listed, number: int, path: Path) -> signing.PublicKey:
    if (one.pem is None) == (one.path is None):
        raise InputError(f"{path} key {number} needs a pem or a path, and not both")
    if one.pem is None:
        return signing.load_public(path.parent / str(one.path))
    return signing.public_from(one.pem.encode(), f"{path} key {number}")


def _refuse_unreachable(said: TrustFile, roles: Sequence[str], path: Path) -> None:
    if said.threshold > len(roles):
        raise InputError(
            f"{path} asks for {said.threshold} signatures of {len(roles)} usable key(s); no report has them"
        )
    for role, count in said.roles.items():
        if count > roles.count(role):
            raise InputError(
                f"{path} asks for {count} signature(s) of {role} and has {roles.count(role)} usable key(s)"
            )
