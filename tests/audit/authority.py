"""A time-stamping authority of our own, whose clock tests set: RFC 3161 by asn1crypto, certificates by cryptography."""

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms, core, tsp
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

POLICY = "1.2.3.4.1"
CONFIG = """[tsa]
default_tsa = one
[one]
serial = {folder}/serial
signer_cert = {folder}/leaf.pem
signer_key = {folder}/leaf.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
"""


class Authority:
    """root, leaf: PEM files in its folder, with `leaf.key` for tools that sign by themselves."""

    def __init__(self, folder: Path, begin: datetime, days: int = 3650) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.root, self.leaf = folder / "root.pem", folder / "leaf.pem"
        self._serial = 1
        self._key = rsa.generate_private_key(65537, 2048)
        above = rsa.generate_private_key(65537, 2048)
        self._root = _certificate(f"root of {folder.name}", above, None, above, begin, days)
        self._leaf = _certificate(f"clock of {folder.name}", self._key, self._root, above, begin, days)
        self.root.write_bytes(self._root.public_bytes(Encoding.PEM))
        self.leaf.write_bytes(self._leaf.public_bytes(Encoding.PEM))
        secret = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "leaf.key").write_bytes(secret)

    def stamp(self, signature: bytes, at: datetime, **more: Any) -> bytes:
        """A response (DER) over a signature. more: fields of the token, such as `accuracy`."""
        digest = hashlib.sha256(signature).digest()
        imprint = {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": digest}
        fields = {
            "version": "v1",
            "policy": POLICY,
            "message_imprint": imprint,
            "serial_number": self._serial,
            "gen_time": at,
        }
        info = tsp.TSTInfo({**fields, **more})
        self._serial += 1
        response = {"status": {"status": "granted"}, "time_stamp_token": self._signed(info.dump())}
        data: bytes = tsp.TimeStampResp(response).dump()
        return data

    def _signed(self, body: bytes) -> cms.ContentInfo:
        leaf = asn1.Certificate.load(self._leaf.public_bytes(Encoding.DER))
        kept = {"cert_hash": hashlib.sha256(leaf.dump()).digest()}
        attributes = cms.CMSAttributes([
            {"type": "content_type", "values": ["tst_info"]},
            {"type": "message_digest", "values": [hashlib.sha256(body).digest()]},
            {"type": "signing_certificate_v2", "values": [{"certs": [kept]}]},
        ])  # fmt: skip
        signer = {
            "version": "v1",
            "sid": cms.SignerIdentifier("issuer_and_serial_number", {"issuer": leaf.issuer, "serial_number": leaf.serial_number}),
            "digest_algorithm": {"algorithm": "sha256"}, "signed_attrs": attributes,
            "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
            "signature": self._key.sign(attributes.dump(), padding.PKCS1v15(), hashes.SHA256()),
        }  # fmt: skip
        content = {"content_type": "tst_info", "content": core.ParsableOctetString(body)}
        data = {
            "version": "v3", "digest_algorithms": [{"algorithm": "sha256"}], "encap_content_info": content,
            "certificates": [leaf], "signer_infos": [signer],
        }  # fmt: skip
        return cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(data)})


def _certificate(
    name: str, key: Any, issuer: x509.Certificate | None, signer: Any, begin: datetime, days: int
) -> x509.Certificate:
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above = issuer.subject if issuer else own
    made = x509.CertificateBuilder().subject_name(own).issuer_name(above).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin.astimezone(UTC))
    made = made.not_valid_after(begin + timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    if issuer:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
    return made.sign(signer, hashes.SHA256())


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, Authority]]:
    """Address and certificates of an authority behind HTTP: `openssl ts`, a second implementation, with the true time.

    /again answers as before, /large with too much, /broken with an error. Skips where openssl is not installed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, which this authority is made of")
    clock = Authority(folder, datetime.now(UTC) - timedelta(days=1))
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
    command = [openssl, "ts", "-reply", "-config", str(folder / "tsa.cnf"), "-queryfile", str(folder / "in.tsq")]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            (folder / "in.tsq").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/again":
                subprocess.run([*command, "-out", str(folder / "out.tsr")], check=True, capture_output=True)
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()
            self.wfile.write(b"x" * 2**20 if self.path == "/large" else (folder / "out.tsr").read_bytes())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    made = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}", clock
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
