"""Two people: a second signature over the same bytes, roles and thresholds from the verifier's own file."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from froc.audit import canonical_json, countersigning, trust, verification
from froc.audit import keys as signing
from froc.errors import InputError, VerificationError
from tests.audit.authority import Authority
from tests.audit.cases.trust import trusting
from tests.audit.conftest import NOW


@pytest.fixture
def file(tmp_path: Path, keys: Path) -> Callable[..., Path]:
    """Writes a trust file that lists `key` as engineer and `other` as approver, changed as a test likes."""

    def write(change: Callable[[dict[str, Any]], object] = lambda document: None) -> Path:
        approver = (keys / "other.pub").read_text()
        (tmp_path / "key.pub").write_bytes((keys / "key.pub").read_bytes())
        document: dict[str, Any] = {
            "format": 1,
            "keys": [{"role": "engineer", "path": "key.pub"}, {"role": "approver", "pem": approver}],
            "threshold": 2,
            "roles": {"engineer": 1, "approver": 1},
        }
        change(document)
        path = tmp_path / "trust.json"
        path.write_text(json.dumps(document))
        return path

    return write


def check(made: Any, now: Any, **more: Any) -> verification.Result:
    return verification.verify(made.bundle, now=now, **more)


def countersign(made: Any, key: Path, keys: Path, now: Any) -> None:
    countersigning.countersign(made.bundle, key, trust.Trust((signing.load_public(keys / "key.pub"),)), now=now)


def test_a_second_person_signs_the_same_bytes(good: Any, copy: Any, keys: Path, now: Any, file: Any) -> None:
    made = copy(good)
    before = made.digests()
    with pytest.raises(VerificationError, match="signature-threshold"):
        check(made, now, trust=file())
    countersign(made, keys / "other", keys, now)
    changed = {name for name, value in made.digests().items() if before[name] != value}
    assert changed == {"good.froc-audit/report.dsse.json"}
    result = check(made, now, trust=file())
    assert result.payload == good.verify().payload
    assert sorted(result.roles.values()) == ["approver", "engineer"]
    assert result.roles[signing.load_public(keys / "other.pub").keyid] == "approver"
    # who trusts the first signer alone needs nobody else
    assert made.verify().signers == (signing.load_public(keys / "key.pub").keyid,)
    assert made.verify(keys=[keys / "key.pub", keys / "other.pub"], threshold=2).verdict == "PASS"


def test_one_person_twice_is_one_person(good: Any, copy: Any, keys: Path, now: Any, file: Any) -> None:
    made = copy(good)
    with pytest.raises(InputError, match="has signed this already"):
        countersign(made, keys / "key", keys, now)
    path = made.bundle / "report.dsse.json"
    document = json.loads(path.read_bytes())
    again = {**document["signatures"][0], "keyid": signing.load_public(keys / "other.pub").keyid}
    for signature in (document["signatures"][0], again):
        path.write_bytes(canonical_json.compact({**document, "signatures": [document["signatures"][0], signature]}))
        with pytest.raises(VerificationError, match=r"envelope-shape|signature-threshold"):
            check(made, now, trust=file())


def test_an_unlisted_key_counts_for_nothing(
    good: Any, copy: Any, keys: Path, now: Any, file: Any, tmp_path: Path
) -> None:
    made = copy(good)
    signing.keygen(tmp_path / "stranger", None)
    countersign(made, tmp_path / "stranger", keys, now)
    with pytest.raises(VerificationError, match="signature-threshold"):
        check(made, now, trust=file())
    alone = file(lambda d: d.update(threshold=1, roles={"engineer": 1}))
    assert check(made, now, trust=alone).signers == (signing.load_public(keys / "key.pub").keyid,)
    with pytest.raises(InputError, match="count for nothing"):
        countersigning.countersign(made.bundle, tmp_path / "stranger", trust.read(file()), now=now)


def test_each_role_needs_its_own(good: Any, copy: Any, keys: Path, now: Any, file: Any, tmp_path: Path) -> None:
    made = copy(good)
    signing.keygen(tmp_path / "third", None)
    countersign(made, tmp_path / "third", keys, now)
    engineers = file(lambda d: d["keys"].append({"role": "engineer", "path": "third.pub"}))
    with pytest.raises(VerificationError, match="signature-role"):
        check(made, now, trust=engineers)
    countersign(made, keys / "other", keys, now)
    assert len(check(made, now, trust=engineers).signers) == 3


def test_roles_are_the_trust_files(good: Any, now: Any, file: Any) -> None:
    def swap(document: dict[str, Any]) -> None:
        document["keys"][0]["role"], document["keys"][1]["role"] = "approver", "engineer"
        document.update(threshold=1, roles={})

    with pytest.raises(VerificationError, match="signers-differ"):
        check(good, now, trust=file(swap))


def test_a_revoked_key_counts_for_nothing(good: Any, copy: Any, keys: Path, now: Any, file: Any) -> None:
    def revoke(document: dict[str, Any]) -> None:
        document["keys"][0]["revoked"] = True
        document.update(threshold=1, roles={})

    made = copy(good)
    countersign(made, keys / "other", keys, now)
    with pytest.raises(VerificationError, match="signers-differ"):
        check(made, now, trust=file(revoke))
    with pytest.raises(InputError, match="revoked"):
        countersigning.countersign(made.bundle, keys / "key", trust.read(file(revoke)), now=now)


def test_a_stamped_report_outlives_its_key(originals: Any) -> None:
    made, late = originals["stamped"], NOW + timedelta(days=3)
    windows: list[dict[str, Any]] = [{"revoked": "2026-03-02T12:00:00Z"}, {"not_after": "2026-03-01T12:00:00Z"}]
    for window in windows:
        assert made.verify(**trusting(made, tsa=True, **window), now=late).verdict == "PASS"
        for tsa in (True, False):
            for revoked in ("2026-03-01T12:00:00Z", "2026-03-01T08:00:00Z"):
                with pytest.raises(VerificationError, match="key-revoked-or-out-of-window"):
                    made.verify(**trusting(made, tsa=tsa, revoked=revoked), now=late)
        with pytest.raises(VerificationError, match="key-revoked-or-out-of-window"):
            made.verify(**trusting(made, **window), now=late)


def test_a_key_counts_to_the_second(good: Any) -> None:
    windows: list[dict[str, Any]] = [
        {"not_before": "2026-03-01T12:00:00Z"},
        {"not_after": "2026-03-01T12:00:00Z"},
        {"revoked": "2026-03-01T12:00:01Z"},
    ]
    for window in windows:
        assert good.verify(**trusting(good, **window)).verdict == "PASS"


def test_an_old_report_of_a_series_is_refused(good: Any, now: Any, file: Any) -> None:
    with pytest.raises(VerificationError, match="rollback"):
        check(good, now, trust=file(lambda d: d.update(threshold=1, roles={}, min_sequence=2)))


def test_nothing_is_signed_that_does_not_verify(good: Any, copy: Any, keys: Path, now: Any) -> None:
    made = copy(good)
    made.edit("losses.csv", lambda text: text.replace(",1000\n", ",0\n", 1))
    before = made.digests()
    with pytest.raises(VerificationError, match=r"evidence-digest:losses\.csv"):
        countersign(made, keys / "other", keys, now)
    assert made.digests() == before


LEAF = Authority(Path(mkdtemp()), NOW).leaf.read_text()
"""A certificate that another one has issued."""
BROKEN: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "no keys": ("keys", lambda d: d.update(keys=[])),
    "another format": ("format", lambda d: d.update(format=2)),
    "an unknown role": ("role", lambda d: d["keys"][0].update(role="boss")),
    "a further field": ("trust-shape", lambda d: d.update(owner="me")),
    "a threshold as text": ("threshold", lambda d: d.update(threshold="2")),
    "a threshold of nobody": ("threshold", lambda d: d.update(threshold=0)),
    "too large a threshold": ("asks for 3 signatures", lambda d: d.update(threshold=3)),
    "a role that nobody has": ("of auditor", lambda d: d.update(roles={"auditor": 1})),
    "a key twice": ("there already", lambda d: d["keys"].append({**d["keys"][1], "role": "auditor"})),
    "neither pem nor path": ("not both", lambda d: d["keys"].append({"role": "auditor"})),
    "both": ("not both", lambda d: d["keys"][0].update(pem="x")),
    "a file that is not there": ("cannot read", lambda d: d["keys"][0].update(path="none.pub")),
    "no pem": ("key 2 is no public key", lambda d: d["keys"][1].update(pem="hello")),
    "a date that is none": ("no trust file", lambda d: d["keys"][0].update(not_after="2026-02-30T00:00:00Z")),
    "a date in another form": ("not_before", lambda d: d["keys"][0].update(not_before="2026-02-20")),
    "revoked in words": ("revoked", lambda d: d["keys"][0].update(revoked="yesterday")),
    "an authority without a certificate": ("cannot read", lambda d: d.update(tsa=[{"root": "none.pem"}])),
    "an authority that is a key": ("holds no certificate", lambda d: d.update(tsa=[{"root": "key.pub"}])),
    "an authority without a root": ("issued by itself", lambda d: d.update(tsa=[{"root": LEAF}])),
    "a policy that is none": ("policy", lambda d: d.update(tsa=[{"root": LEAF, "policy": "mine"}])),
    "a policy that cannot be": ("object identifier", lambda d: d.update(tsa=[{"root": LEAF, "policy": "1.99.1"}])),
    "an algorithm": ("alg", lambda d: d["keys"][0].update(alg="none")),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_trust_file_is_an_input_error(case: str, file: Any) -> None:
    word, change = BROKEN[case]
    with pytest.raises(InputError, match=word):
        trust.read(file(change))


def test_keys_or_a_trust_file(good: Any, now: Any, keys: Path, file: Any) -> None:
    for more in ({}, {"keys": [keys / "key.pub"], "trust": file()}):
        with pytest.raises(InputError, match="not both"):
            check(good, now, **more)
    with pytest.raises(InputError, match="cannot read the trust file"):
        check(good, now, trust=keys / "none.json")
