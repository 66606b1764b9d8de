"""Keys, signatures, statements, and the one strict JSON parser.

Signatures are DSSE over the transmitted bytes; only bytes that a trusted key has signed are parsed any further.
A key is named by the SHA-256 of its SPKI DER, so that one key cannot pass for two. The algorithm comes from the trusted
key, never from the data: Ed25519, or for keys that an HSM or a KMS keeps ECDSA, P-256 with SHA-256 and P-384 with SHA-384.
Signatures name nothing: one of ECDSA can be turned into another one over the same bytes by anybody.
"""

import base64
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import KeyMismatchError, UnsupportedLibraryError, UnverifiedSignatureError
from securesystemslib.exceptions import VerificationError as UnverifiedError
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from froc import bounded_file, hashing
from froc.atomic import create
from froc.audit.canonical_json import MAX_DEPTH, compact, strict_json
from froc.errors import InputError, VerificationError
from froc.visible import visible

PublicKey = SSlibKey
PrivateKey = Signer
Key = Path | str
"""Location of a private key: a file, or URI#PUBLIC.pem."""
SIGNERS = {
    "file2": "crypto",
    "hsm": "hsm",
    "awskms": "awskms",
    "gcpkms": "gcpkms",
    "azurekms": "azurekms",
    "hv": "vault",
}
"""Scheme of a signer's URI -> the extra of securesystemslib that provides it."""
CURVES = (ec.SECP256R1, ec.SECP384R1)
PROBE = b"froc: does this private key belong to that public key?"
"""Signed once when a signer is loaded, to test it; no envelope begins like this."""
KEY_BYTES = 2**16
"""Size limit of a key file."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def keygen(path: Path, password: bytes | None) -> str:
    """Write a new Ed25519 key pair, PATH (PKCS8 PEM, mode 0600) and PATH.pub (PEM); returns its fingerprint.

    InputError where either file exists or cannot be written.
    """
    public = path.with_name(path.name + ".pub")
    for taken in (path, public):
        if taken.exists() or taken.is_symlink():
            raise InputError(f"{taken} exists and is not overwritten; choose another name for the key")
    private = Ed25519PrivateKey.generate()
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    secret = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    shown = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        create(path, secret, mode=0o600)
        create(public, shown, mode=0o644)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a folder that exists") from error
    return _keyid(private.public_key())


def load_signer(key: Key, password: bytes | None = None) -> Signer:
    """A signer from a private key file, or for a key kept elsewhere: `hsm:2#public.pem`, `awskms:KEY#public.pem`.

    password: of an encrypted file, or the PIN of an HSM.

    InputError for anything that cannot sign.
    """
    if str(key).partition(":")[0] in SIGNERS:
        return _elsewhere(str(key), password)
    return _from_file(Path(key), password)


def public_place(key: Key) -> str:
    """Path of the public half of a private key."""
    return str(key).rpartition("#")[2] if str(key).partition(":")[0] in SIGNERS else f"{key}.pub"


def _elsewhere(key: str, password: bytes | None) -> Signer:
    scheme, (uri, location, public) = key.partition(":")[0], key.rpartition("#")
    if not location:
        raise InputError(f"{key}: a key that is kept elsewhere needs its public half, after a #: {key}#public.pem")
    trusted = load_public(Path(public))

    def secret(purpose: str) -> str:
        if password is None:
            raise InputError(f"{uri} needs its {purpose}; give it in FROC_KEY_PASSWORD")
        return password.decode()

    try:
        signer = Signer.from_priv_key_uri(uri, trusted, secret)
        trusted.verify_signature(signer.sign(PROBE), PROBE)
    except InputError:
        raise
    except (UnverifiedSignatureError, KeyMismatchError) as error:
        raise InputError(f"{public} is not the public half of {uri}; give the one that is") from error
    except UnsupportedLibraryError as error:
        mend = f"pip install 'securesystemslib[{SIGNERS[scheme]}]'"
        raise InputError(f"{uri}: the packages for such keys are not installed: {mend}") from error
    except Exception as error:  # each vendor's library raises its own errors
        raise InputError(f"{uri} cannot sign ({type(error).__name__}: {error})") from error
    return signer


def _from_file(path: Path, password: bytes | None) -> CryptoSigner:
    data = _read_key(path, "private")
    _warn_of_readers(path)
    try:
        private = serialization.load_pem_private_key(data, password)
    except TypeError as error:
        mend = "it is encrypted, give its password" if password is None else "it is not encrypted, give no password"
        raise InputError(f"{path}: {mend}") from error
    except ValueError as error:
        raise InputError(f"{path} is no private key in PEM form, or the password is wrong") from error
    return CryptoSigner(private, _public(private.public_key(), str(path)))


def _refuse_several(data: bytes, path: Path) -> None:
    """InputError for a file with several keys, which would be ambiguous."""
    if len(re.findall(rb"-----BEGIN [A-Z ]*KEY-----", data)) > 1:
        raise InputError(f"{path} holds more than one key; give a file with one")


def _warn_of_readers(path: Path) -> None:
    """Warn where others may read a private key; it is used all the same."""
    mode = path.stat().st_mode
    if mode & 0o077:
        line = f"warning: {path} can be read by others (mode {mode & 0o777:o}); chmod 600 {path}"
        print(visible(line), file=sys.stderr)


def load_public(path: Path) -> SSlibKey:
    """A trusted public key from a PEM file; its keyid is its fingerprint. InputError for anything else."""
    return public_from(_read_key(path, "public"), str(path))


def public_from(data: bytes, where: str) -> SSlibKey:
    """A trusted public key in PEM form. where: its name in an InputError."""
    if b"PRIVATE KEY" in data:
        raise InputError(f"{where} is a private key; trust the public one, which keygen writes beside it (.pub)")
    try:
        public = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise InputError(f"{where} is no public key in PEM form") from error
    return _public(public, where)


def _public(public: Any, where: str) -> SSlibKey:
    curved = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, CURVES)
    if not curved and not isinstance(public, Ed25519PublicKey):
        raise InputError(
            f"{where} is neither an Ed25519 key nor one on P-256 or P-384; make one with froc audit keygen"
        )
    return SSlibKey.from_crypto(public, keyid=_keyid(public))


def public_of(signer: Signer) -> SSlibKey:
    """The public half of a signer."""
    key = signer.public_key
    if not isinstance(key, SSlibKey):
        raise InputError("this signer has no public key that froc can use; use another key")
    return key


def statement(subject: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """An in-toto Statement v1 about files (name -> SHA-256)."""
    listed = [{"name": name, "digest": {"sha256": subject[name]}} for name in sorted(subject, key=str.encode)]
    return compact(
        {"_type": STATEMENT_TYPE, "subject": listed, "predicateType": predicate_type, "predicate": dict(predicate)}
    )


def sign(body: bytes, signers: Sequence[Signer]) -> bytes:
    """A DSSE envelope over `body`, as the bytes of a bundle file."""
    envelope = Envelope(body, PAYLOAD_TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    return compact(envelope.to_dict())


def add(data: bytes, signer: Signer) -> bytes:
    """The envelope with one more signature over the same bytes. InputError where that key has already signed."""
    envelope, key = _envelope(data), public_of(signer)
    if key.keyid in envelope.signatures:
        raise InputError(f"key {key.keyid[:16]} has signed this already; a second person needs another key")
    envelope.sign(signer)
    return compact(envelope.to_dict())


def verify(data: bytes, keys: Sequence[SSlibKey], threshold: int = 1) -> tuple[bytes, tuple[str, ...]]:
    """The payload of an envelope, and the keyids of the trusted keys that signed it.

    threshold: number of different public keys that must have signed.

    VerificationError otherwise.
    """
    envelope = _envelope(data)
    trusted = {key.keyid: key for key in keys}
    accepted = tuple(keyid for keyid in sorted(trusted) if _signed(envelope, trusted[keyid]))
    if threshold < 1 or len(accepted) < threshold:
        raise VerificationError(
            "signature-threshold", f"{len(accepted)} trusted key(s) signed these bytes, {max(1, threshold)} must have"
        )
    return envelope.payload, accepted


def signatures(data: bytes) -> dict[str, bytes]:
    """keyid -> signature as stated in an envelope; nothing is verified. VerificationError for another shape."""
    return {keyid: bytes.fromhex(signature.signature) for keyid, signature in _envelope(data).signatures.items()}


def _read_key(path: Path, kind: str) -> bytes:
    try:
        data = bounded_file.read(path, KEY_BYTES)
    except OSError as error:
        raise InputError(
            f"cannot read the {kind} key {path} ({error.strerror}); make one with froc audit keygen"
        ) from error
    _refuse_several(data, path)
    return data


def _keyid(public: Ed25519PublicKey | ec.EllipticCurvePublicKey) -> str:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashing.sha256_bytes(der)


def _envelope(data: bytes) -> Envelope:
    """An envelope in exactly the form that we write: unused base64 bits or blanks would leave room for changes."""
    document = strict_json(data)
    if not isinstance(document, dict) or set(document) != {"payload", "payloadType", "signatures"}:
        raise VerificationError("envelope-shape", "not a DSSE envelope with payload, payloadType and signatures")
    if document["payloadType"] != PAYLOAD_TYPE:
        raise VerificationError("payload-type", f"the payload type is not {PAYLOAD_TYPE}")
    listed = document["signatures"]
    whole = isinstance(listed, list) and all(
        isinstance(item, dict)
        and set(item) == {"keyid", "sig"}
        and all(isinstance(part, str) for part in item.values())
        for item in listed
    )
    if not whole or not listed or len(listed) > MAX_DEPTH or not isinstance(document["payload"], str):
        raise VerificationError("envelope-shape", "a DSSE envelope needs a payload and signatures with keyid and sig")
    if compact(document) != data:
        raise VerificationError("envelope-shape", "the envelope is not written in the form that froc writes")
    for text in (document["payload"], *(item["sig"] for item in listed)):
        _refuse_loose_base64(text)
    try:
        return Envelope.from_dict(document)
    except (ValueError, KeyError) as error:
        raise VerificationError(
            "envelope-shape", "the envelope's signatures are not different from each other"
        ) from error


def _refuse_loose_base64(text: str) -> None:
    try:
        same = base64.b64encode(base64.b64decode(text, validate=True)).decode("ascii") == text
    except ValueError:
        same = False
    if not same:
        raise VerificationError("envelope-shape", "the envelope holds base64 that does not read back as itself")


def _signed(envelope: Envelope, key: SSlibKey) -> bool:
    try:
        envelope.verify([key], 1)
    except UnverifiedError:
        return False
    return True
