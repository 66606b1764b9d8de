"""Keys, envelopes and the strict parser, each against what must be refused."""

import base64
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from froc.audit import canonical_json, timestamps, trust, verification
from froc.audit import keys as signing
from froc.cli.audit import export
from froc.errors import InputError, VerificationError
from tests.audit.conftest import Made, write_pair

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BODY = b'{"a":1}'


def test_keygen_writes_a_private_file_and_overwrites_nothing(tmp_path: Path) -> None:
    fingerprint = signing.keygen(tmp_path / "key", None)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert signing.load_public(tmp_path / "key.pub").keyid == fingerprint
    assert signing.load_signer(tmp_path / "key").public_key.keyid == fingerprint
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(InputError, match="not overwritten"):
        signing.keygen(tmp_path / "key", None)
    (tmp_path / "key").rename(tmp_path / "old")
    with pytest.raises(InputError, match="not overwritten"):
        signing.keygen(tmp_path / "key", None)
    assert (tmp_path / "old").read_bytes() == before


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    signing.keygen(tmp_path / "key", b"correct horse")
    assert signing.load_signer(tmp_path / "key", b"correct horse")
    for password in (None, b"wrong"):
        with pytest.raises(InputError, match="password"):
            signing.load_signer(tmp_path / "key", password)


def test_keys_that_cannot_be_used_are_input_errors(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(InputError, match="private"):
        signing.load_public(keys / "key")
    for path in (tmp_path / "noise", tmp_path / "missing"):
        with pytest.raises(InputError):
            signing.load_public(path)
        with pytest.raises(InputError):
            signing.load_signer(path)
    with pytest.raises(InputError, match="folder"):
        signing.keygen(tmp_path / "no" / "folder", None)


def test_no_file_that_a_user_names_fills_the_memory_or_waits_for_ever(good: Made, tmp_path: Path, keys: Path) -> None:
    pipe, endless, link = tmp_path / "pipe", tmp_path / "endless", tmp_path / "link"
    os.mkfifo(pipe)
    with endless.open("wb") as stream:
        stream.truncate(2**40)
    link.symlink_to(keys / "key.pub")
    readers: list[Callable[[Path], object]] = [
        signing.load_public, signing.load_signer, trust.read, timestamps.read,
        lambda path: export.export(good.bundle, "svr", key=[good.public], against=path, signed_by=[good.public]),
    ]  # fmt: skip
    with patch.object(verification, "verify", lambda *_, **__: None):
        for read in readers:
            with pytest.raises(InputError, match="no plain file"):
                read(pipe)
            with pytest.raises(InputError, match="more than"):
                read(endless)
    assert signing.load_public(link) == signing.load_public(keys / "key.pub")


def test_signature_is_dsse_as_a_second_implementation_reads_it(keys: Path) -> None:
    envelope = json.loads(signing.sign(BODY, [signing.load_signer(keys / "key")]))
    body = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    public = load_pem_public_key((keys / "key.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    pae = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(body)).encode(), body])
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), pae)


def test_threshold_counts_keys(keys: Path) -> None:
    first, second = (signing.load_public(keys / f"{name}.pub") for name in ("key", "other"))
    alone = signing.sign(BODY, [signing.load_signer(keys / "key")])
    envelope = signing.sign(BODY, [signing.load_signer(keys / "key"), signing.load_signer(keys / "other")])
    assert signing.verify(alone, [first, second])[0] == BODY
    assert set(signing.verify(envelope, [first, second], 2)[1]) == {first.keyid, second.keyid}
    for data, trusted in (
        (alone, [first, second]),
        (alone, [first, first]),
        (envelope, [first, first]),
        (envelope, [first]),
    ):
        with pytest.raises(VerificationError, match="signature-threshold"):
            signing.verify(data, trusted, 2)


def test_one_key_under_two_keyids_is_one_key(keys: Path) -> None:
    public = signing.load_public(keys / "key.pub")
    envelope = json.loads(signing.sign(BODY, [signing.load_signer(keys / "key")]))
    envelope["signatures"].append({**envelope["signatures"][0], "keyid": "f" * 64})
    with pytest.raises(VerificationError, match="signature-threshold"):
        signing.verify(canonical_json.compact(envelope), [public, public], 2)
    envelope["signatures"][1]["keyid"] = public.keyid
    with pytest.raises(VerificationError, match="envelope-shape"):
        signing.verify(canonical_json.compact(envelope), [public], 2)


def test_another_key_under_the_trusted_keyid_is_refused(keys: Path) -> None:
    trusted = signing.load_public(keys / "key.pub")
    envelope = json.loads(signing.sign(BODY, [signing.load_signer(keys / "other")]))
    envelope["signatures"][0]["keyid"] = trusted.keyid
    with pytest.raises(VerificationError, match="signature-threshold"):
        signing.verify(canonical_json.compact(envelope), [trusted])


def test_unused_base64_bits_leave_no_room(keys: Path) -> None:
    trusted = signing.load_public(keys / "key.pub")
    envelope = json.loads(signing.sign(b'{"a":12}', [signing.load_signer(keys / "key")]))
    text = envelope["payload"]
    assert text.endswith("=")
    loose = text[:-2] + chr(ord(text[-2]) + 1) + "="
    assert base64.b64decode(loose) == base64.b64decode(text)
    with pytest.raises(VerificationError, match="envelope-shape"):
        signing.verify(canonical_json.compact({**envelope, "payload": loose}), [trusted])


@pytest.mark.parametrize("name", ["curve", "wide"])
def test_keys_of_ecdsa_sign_as_well(keys: Path, name: str) -> None:
    signer, trusted = signing.load_signer(keys / name), signing.load_public(keys / f"{name}.pub")
    data = signing.sign(BODY, [signer])
    assert signing.verify(data, [trusted]) == (BODY, (trusted.keyid,))
    assert data != signing.sign(BODY, [signer])
    with pytest.raises(InputError, match="has signed this already"):
        signing.add(data, signer)


def test_an_ecdsa_signature_is_no_name(keys: Path) -> None:
    """Anybody can write another signature of the same key over the same bytes: it is the same statement, by one signer."""
    trusted = signing.load_public(keys / "curve.pub")
    envelope = json.loads(signing.sign(BODY, [signing.load_signer(keys / "curve")]))
    r, s = decode_dss_signature(base64.b64decode(envelope["signatures"][0]["sig"]))
    second_form = encode_dss_signature(r, P256_ORDER - s)
    envelope["signatures"][0]["sig"] = base64.b64encode(second_form).decode()
    assert signing.verify(canonical_json.compact(envelope), [trusted]) == (BODY, (trusted.keyid,))
    envelope["signatures"].append({**envelope["signatures"][0], "keyid": "c" * 64})
    with pytest.raises(VerificationError, match="signature-threshold"):
        signing.verify(canonical_json.compact(envelope), [trusted, signing.load_public(keys / "wide.pub")], 2)


def test_no_other_kind_of_key_is_trusted(tmp_path: Path) -> None:
    for private in (
        ec.generate_private_key(ec.SECP521R1()), ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 2048), ed448.Ed448PrivateKey.generate(),
    ):  # fmt: skip
        write_pair(tmp_path / "key", private)
        with pytest.raises(InputError, match="neither an Ed25519"):
            signing.load_public(tmp_path / "key.pub")
        with pytest.raises(InputError, match="neither an Ed25519"):
            signing.load_signer(tmp_path / "key")


@pytest.mark.parametrize("name", ["key", "curve", "wide"])
def test_a_signer_by_its_address(keys: Path, name: str) -> None:
    place = f"file2:{keys / name}#{keys / name}.pub"
    data = signing.sign(BODY, [signing.load_signer(place)])
    assert signing.verify(data, [signing.load_public(keys / f"{name}.pub")])[0] == BODY
    assert signing.public_place(place) == signing.public_place(keys / name) == f"{keys / name}.pub"


def test_a_signer_that_cannot_be_used_is_an_input_error(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing.keygen(tmp_path / "locked", b"a long word")
    for place, word in (
        (f"file2:{keys / 'key'}", "after a #"),
        (f"file2:{keys / 'key'}#{keys / 'none.pub'}", "cannot read the public key"),
        (f"file2:{keys / 'key'}#{keys / 'key'}", "is a private key"),
        (f"file2:{keys / 'other'}#{keys / 'key.pub'}", "not the public half"),
        (f"file2:{keys / 'curve'}#{keys / 'key.pub'}", "cannot sign"),
        (f"file2:{keys / 'none'}#{keys / 'key.pub'}", "cannot sign"),
        (f"file2:{tmp_path / 'locked'}#{tmp_path / 'locked.pub'}", "cannot sign"),
        (f"awskms:alias/froc#{keys / 'curve.pub'}", r"securesystemslib\[awskms\]"),
    ):
        if place.startswith("awskms"):
            monkeypatch.setattr("securesystemslib.signer._aws_signer.AWS_IMPORT_ERROR", "boto3 is needed")
        with pytest.raises(InputError, match=word):
            signing.load_signer(place)


@pytest.fixture
def token(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the P-256 key in an HSM in software."""
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (froc[hsm])")
    library = next(iter(Path("/usr").glob("lib*/**/libsofthsm2.so")), None)
    if library is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2, which stands for an HSM here, is not installed")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("PYKCS11LIB", str(library))
    pins = ["--pin", "1234", "--so-pin", "5678"]
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "froc", *pins], check=True, capture_output=True
    )
    imported = ["--import", str(keys / "curve"), "--token", "froc", "--label", "signer", "--id", "02", "--pin", "1234"]
    subprocess.run(["softhsm2-util", *imported], check=True, capture_output=True)
    return f"hsm:2?label=froc#{keys / 'curve.pub'}"


def test_an_hsm_signs(token: str, keys: Path) -> None:
    with pytest.raises(InputError, match="FROC_KEY_PASSWORD"):
        signing.load_signer(token)
    with pytest.raises(InputError, match="cannot sign"):
        signing.load_signer(token, b"9999")
    data = signing.sign(BODY, [signing.load_signer(token, b"1234")])
    assert signing.verify(data, [signing.load_public(keys / "curve.pub")])[0] == BODY
    write_pair(keys / "stranger", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InputError, match="not the public half"):
        signing.load_signer(token.replace("curve.pub", "stranger.pub"), b"1234")
