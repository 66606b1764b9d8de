"""Time stamps: what tokens show, who is believed, and how they are asked for: in the open (openssl) and without a network."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from froc.audit import bundle as evidence
from froc.audit import countersigning, plan_signing, timestamps
from froc.audit import keys as signing
from froc.audit.assurance import Level
from froc.audit.timestamps import Token
from froc.errors import InputError, VerificationError
from tests.audit import variants
from tests.audit.authority import POLICY, Authority, served
from tests.audit.cases.trust import trusting
from tests.audit.conftest import NOW, Made

T = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clock"), T - timedelta(days=30))


@pytest.fixture(scope="module")
def trusted(clock: Authority) -> timestamps.Authority:
    return timestamps.Authority(timestamps.read(clock.root))


def test_the_latest_time_counts(clock: Authority, trusted: timestamps.Authority) -> None:
    for accuracy, more in ((None, 0.0), ({"seconds": 2, "millis": 500}, 2.5), ({"micros": 250}, 0.00025)):
        token = clock.stamp(b"signature", T, **({"accuracy": accuracy} if accuracy else {}))
        assert timestamps.time_of(token, b"signature", [trusted]) == T + timedelta(seconds=more)


def test_an_authority_is_pinned(clock: Authority, tmp_path: Path) -> None:
    token, stranger = clock.stamp(b"signature", T), Authority(tmp_path, T - timedelta(days=30))
    root, leaf = timestamps.read(clock.root), timestamps.read(clock.leaf)[0]
    policy = x509.ObjectIdentifier(POLICY)
    for pinned in (timestamps.Authority(root, leaf), timestamps.Authority((*root, leaf), policy=policy)):
        assert (
            timestamps.time_of(token, b"signature", [timestamps.Authority(timestamps.read(stranger.root)), pinned]) == T
        )
    for pinned in (
        timestamps.Authority(timestamps.read(stranger.root)),
        timestamps.Authority(root, timestamps.read(stranger.leaf)[0]),
        timestamps.Authority(root, policy=x509.ObjectIdentifier("1.2.3.4.2")),
    ):
        with pytest.raises(VerificationError, match="timestamp-untrusted"):
            timestamps.time_of(token, b"signature", [pinned])


def test_a_file_of_certificates_holds_a_mebibyte_at_most(clock: Authority, tmp_path: Path) -> None:
    data, path = clock.root.read_bytes(), tmp_path / "root.pem"
    for size, fits in ((2**20, True), (2**20 + 1, False)):
        path.write_bytes(data + b"\n" * (size - len(data)))
        if fits:
            assert timestamps.read(path) == timestamps.read(clock.root)
            continue
        with pytest.raises(InputError, match="more than"):
            timestamps.read(path)


@pytest.mark.parametrize("kind", ["06092a864886f70d010702", "060b2a864886f70d0109100104"], ids=["signed data", "time"])
def test_what_is_no_signed_data_about_a_time_is_no_time_stamp_by_its_shape(clock: Authority, kind: str) -> None:
    token, identifier = clock.stamp(b"signature", T), bytes.fromhex(kind)
    timestamps.refuse_other(token, [b"another", b"signature"], "plan.tsr")
    changed = token.replace(identifier, identifier[:-1] + b"\x63")
    assert len(changed) == len(token)
    for data, over in ((changed, b"signature"), (token, b"another"), (token + b"\0", b"signature")):
        with pytest.raises(InputError, match=r"plan\.tsr is no time stamp"):
            timestamps.refuse_other(data, [over], "plan.tsr")


def test_a_certificate_must_have_been_valid_at_the_time(clock: Authority, trusted: timestamps.Authority) -> None:
    for at in (T - timedelta(days=31), T + timedelta(days=3650)):
        with pytest.raises(VerificationError, match="timestamp-untrusted"):
            timestamps.time_of(clock.stamp(b"signature", at), b"signature", [trusted])


def test_no_changed_token_says_another_time(clock: Authority, trusted: timestamps.Authority) -> None:
    """Some bits of a token mean nothing; no bit makes it another statement, or ends in anything but a refusal."""
    token, refused = clock.stamp(b"signature", T), 0
    for at in range(len(token)):
        changed = token[:at] + bytes([token[at] ^ 1 << at % 8]) + token[at + 1 :]
        try:
            assert timestamps.time_of(changed, b"signature", [trusted]) == T
        except VerificationError:
            refused += 1
    assert refused > 0.9 * len(token)


def _levels(made: Made, **more: Any) -> dict[str, Level]:
    return {level.name: level for level in made.verify(**more).levels}


def test_levels_say_what_holds(originals: dict[str, Made]) -> None:
    stamped, good = originals["stamped"], originals["good"]
    pinned = trusting(stamped, tsa=True)
    assert [level.holds for level in _levels(good).values()] == [True, True, True, False, False]
    assert [level.holds for level in _levels(good, model=None).values()] == [True, False, True, False, False]
    assert [level.holds for level in _levels(originals["failing"]).values()] == [True, False, True, False, False]
    # the report's own signer measured again, which shows nothing to others
    assert [level.holds for level in _levels(originals["again"], model=None).values()] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert "a signer of the report measured them" in _levels(originals["again"])["L5"].words
    assert [level.holds for level in _levels(stamped, **pinned).values()] == [True, True, True, True, False]
    unpinned = _levels(stamped)["L4"]
    assert not unpinned.holds
    assert "trust file" in unpinned.words
    assert "--tsa" in _levels(good)["L4"].words
    assert "--model" in _levels(good, model=None)["L2"].words
    assert "no model" in _levels(originals["failing"])["L2"].words
    assert "reexecute" in _levels(good)["L5"].words


@pytest.mark.parametrize(
    ("minutes", "holds"), [(59, True), (60, True), (60.02, False), (600, False)]
)  # the first trial was logged at 09:00:00
def test_a_plan_that_was_stamped_too_late_is_not_proven(
    good: Made, tmp_path: Path, originals: dict[str, Made], minutes: float, holds: bool
) -> None:
    run = Path(shutil.copytree(good.run, tmp_path / "run"))
    signed = plan_signing.PlanSigner(run, good.key).sign(T + timedelta(minutes=1))
    (signature,) = signing.signatures(signed.read_bytes()).values()
    (run / "plan.tsr").write_bytes(variants.CLOCKS["trusted"].stamp(signature, T + timedelta(minutes=minutes)))
    made = Made(evidence.build(run, tmp_path, good.key, name="late", now=NOW), run, good.key)
    level = _levels(made, **trusting(made, tsa=True))["L4"]
    assert level.holds is holds
    assert ("not before" in level.words) is not holds


def test_a_report_carries_no_time_stamp_of_another_signature(good: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(good.run, tmp_path / "run"))
    plan_signing.PlanSigner(run, good.key).sign(T + timedelta(minutes=1))
    (run / "plan.tsr").write_bytes(variants.CLOCKS["trusted"].stamp(b"another signature", T + timedelta(minutes=2)))
    with pytest.raises(InputError, match="no time stamp of the plan's signature"):
        evidence.build(run, tmp_path, good.key, now=NOW)


def test_tokens_say_nothing_to_those_who_pin_nobody(originals: dict[str, Made]) -> None:
    seen = {check.name: check.seen for check in originals["stamped"].verify().checks}
    assert seen["timestamps"].startswith("not checked")
    assert "timestamps" not in {check.name for check in originals["good"].verify().checks}


def test_the_package_is_needed_where_a_token_is_to_be_checked(
    originals: dict[str, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = originals["stamped"]
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    assert made.verify().verdict == "PASS"
    assert originals["good"].verify(**trusting(originals["good"], tsa=True)).verdict == "PASS"
    with pytest.raises(InputError, match=r"froc\[timestamp\]"):
        made.verify(**trusting(made, tsa=True))


def test_each_signature_has_a_token_of_its_own(originals: dict[str, Made], tmp_path: Path) -> None:
    made, clock = originals["both"], variants.CLOCKS["trusted"]
    trusted = timestamps.Authority(timestamps.read(clock.root))
    bundle = Path(shutil.copytree(made.bundle, tmp_path / made.bundle.name))
    stamped: list[bytes] = []

    def ask(signature: bytes) -> Token:
        stamped.append(signature)
        return timestamps.usable(clock.stamp(signature, NOW), signature, trusted, "clock")

    names = countersigning.stamp(bundle, ask)
    assert stamped == list(signing.signatures((bundle / "report.dsse.json").read_bytes()).values())
    assert sorted(path.name for path in bundle.glob("report-*.tsr")) == sorted(names)
    with pytest.raises(InputError, match="every signature"):
        countersigning.stamp(bundle, ask)
    (bundle / names[0]).write_bytes((bundle / names[1]).read_bytes())
    copied = Made(bundle, made.run, made.key)
    with pytest.raises(VerificationError, match="timestamp-other-signature"):
        copied.verify(**trusting(copied, tsa=True))
    with pytest.raises(InputError, match="no bundle"):
        countersigning.stamp(made.run, ask)


def test_without_a_network(
    good: Made, copy: Any, tmp_path: Path, clock: Authority, trusted: timestamps.Authority
) -> None:
    made = copy(good)
    (path,) = countersigning.write_requests(made.bundle, tmp_path / "out")
    (signature,) = signing.signatures((made.bundle / "report.dsse.json").read_bytes()).values()
    assert hashlib.sha256(signature).digest() in Path(path).read_bytes()
    answer = Path(path).with_suffix(".tsr")
    for data, word in (
        (None, "no readable"),
        (b"none", "timestamp-shape"),
        (clock.stamp(b"x", NOW), "timestamp-other"),
    ):
        if data is not None:
            answer.write_bytes(data)
        with pytest.raises(InputError, match=word):
            countersigning.take_responses(made.bundle, tmp_path / "out", trusted)
        assert not list(made.bundle.glob("*.tsr"))
    answer.write_bytes(clock.stamp(signature, NOW))
    assert countersigning.take_responses(made.bundle, tmp_path / "out", trusted) == [answer.name]
    assert (made.bundle / answer.name).read_bytes() == answer.read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Authority]]:
    with served(tmp_path_factory.mktemp("server")) as address:
        yield address


def test_an_authority_answers(server: tuple[str, Authority]) -> None:
    url, clock = server
    trusted = timestamps.Authority(timestamps.read(clock.root))
    token = timestamps.ask(f"{url}/tsr", b"signature", trusted)
    assert abs(token.time - datetime.now(UTC)) < timedelta(seconds=30)
    assert timestamps.time_of(token.data, b"signature", [trusted]) == token.time
    for place, word in (
        ("/again", "timestamp-untrusted"), ("/broken", "gave no time stamp"), ("/large", "more than"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            timestamps.ask(url + place, b"signature", trusted)


def test_an_answer_that_nobody_could_check_is_not_stored(
    server: tuple[str, Authority], clock: Authority, trusted: timestamps.Authority, good: Made, copy: Any
) -> None:
    url, made = server[0], copy(good)
    with pytest.raises(InputError, match="timestamp-untrusted"):
        countersigning.stamp(made.bundle, lambda signature: timestamps.ask(url, signature, trusted))
    assert not list(made.bundle.glob("*.tsr"))
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/", "127.0.0.1"):
        with pytest.raises(InputError, match="no address"):
            timestamps.ask(address, b"signature", trusted)
    with pytest.raises(InputError, match="gave no time stamp"):
        timestamps.ask("http://127.0.0.1:9/", b"signature", trusted)


def _planned(finished: Path) -> Path:
    """A run before its first trial."""
    (finished / "trials.jsonl").rename(finished / "later.jsonl")
    return finished


def test_a_plan_is_stamped_between_signature_and_first_trial(
    server: tuple[str, Authority], finished: Path, keys: Path
) -> None:
    url, clock = server
    trusted = timestamps.Authority(timestamps.read(clock.root))
    run = _planned(finished)
    signer = plan_signing.PlanSigner(run, keys / "key", stamp=lambda signature: timestamps.ask(url, signature, trusted))
    assert "stamped at" in signer.before_first_trial()
    assert datetime.now(UTC) >= _stamped(run, trusted).replace(microsecond=0)
    token = (run / "plan.tsr").read_bytes()
    assert "keeps its time stamp" in signer.before_first_trial()
    assert (run / "plan.tsr").read_bytes() == token


def _stamped(run: Path, trusted: timestamps.Authority) -> datetime:
    (signature,) = signing.signatures((run / "plan.dsse.json").read_bytes()).values()
    return timestamps.time_of((run / "plan.tsr").read_bytes(), signature, [trusted])


def test_an_authority_that_fails_leaves_a_signed_plan_to_be_stamped(
    finished: Path, keys: Path, clock: Authority, trusted: timestamps.Authority
) -> None:
    run = _planned(finished)

    def stamp(signature: bytes, at: datetime) -> Token:
        return timestamps.usable(clock.stamp(signature, at), signature, trusted, "clock")

    def fail(signature: bytes) -> Token:
        raise InputError("gave no time stamp")

    ahead = datetime.now(UTC) + timedelta(hours=1)
    for authority, word in ((fail, "gave no"), (lambda signature: stamp(signature, ahead), "set the clock")):
        with pytest.raises(InputError, match=word):
            plan_signing.PlanSigner(run, keys / "key", stamp=authority).before_first_trial()
        assert not (run / "plan.tsr").exists()
    signed = (run / "plan.dsse.json").read_bytes()
    now = datetime.now(UTC).replace(microsecond=0)
    message = plan_signing.PlanSigner(
        run, keys / "key", stamp=lambda signature: stamp(signature, now)
    ).before_first_trial()
    assert "keeps the signature" in message
    assert "stamped at" in message
    assert (run / "plan.dsse.json").read_bytes() == signed
    (run / "plan.tsr").unlink()
    (run / "later.jsonl").rename(run / "trials.jsonl")
    message = plan_signing.PlanSigner(
        run, keys / "key", stamp=lambda signature: stamp(signature, now)
    ).before_first_trial()
    assert "has no time stamp" in message
    assert not (run / "plan.tsr").exists()


def test_a_stamped_bundle_shows_nothing_more(originals: dict[str, Made]) -> None:
    """The page is the report's alone: it says the same to whoever pins somebody and whoever does not."""
    made = originals["stamped"]
    assert made.verify(**trusting(made, tsa=True)).report == made.verify().report
