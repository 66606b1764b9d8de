"""What is refused before, and beside, the numbered checks: keys, thresholds, hoards of files, documents no code can read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from froc.audit import countersigning, keys, verification
from froc.audit.trust import Trust
from froc.errors import InputError
from tests.audit.conftest import NOW, Made


def test_a_file_with_two_keys_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        keys.keygen(tmp_path / name, None)
    for end in ("", ".pub"):
        (tmp_path / f"both{end}").write_bytes((tmp_path / f"a{end}").read_bytes() + (tmp_path / f"b{end}").read_bytes())
    with pytest.raises(InputError, match="more than one key"):
        keys.load_signer(tmp_path / "both")
    with pytest.raises(InputError, match="more than one key"):
        keys.load_public(tmp_path / "both.pub")


def test_a_key_that_others_may_read_is_used_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.keygen(tmp_path / "key", None)
    keys.load_signer(tmp_path / "key")
    assert capsys.readouterr().err == ""
    (tmp_path / "key").chmod(0o640)
    keys.load_signer(tmp_path / "key")
    assert "can be read by others (mode 640)" in capsys.readouterr().err
    hostile = (tmp_path / "key").rename(tmp_path / "k\x1b[31m\u202e")
    hostile.with_name(hostile.name + ".pub").write_bytes((tmp_path / "key.pub").read_bytes())
    keys.load_signer(hostile)
    warning = capsys.readouterr().err
    assert "k\\u001b[31m\\u202e can be read" in warning
    assert "\x1b" not in warning


def test_a_threshold_of_nobody_is_refused(originals: dict[str, Made]) -> None:
    good = originals["good"]
    for threshold in (0, -1):
        with pytest.raises(InputError, match="asks for no signature"):
            verification.verify(good.bundle, keys=[good.public], threshold=threshold, now=NOW)


def test_signing_follows_no_link_beside_the_bundle(good: Made, copy: Callable[[Made], Made], tmp_path: Path) -> None:
    good = copy(good)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (good.bundle.parent / f".{good.bundle.name}.report.dsse.json.part").symlink_to(victim)
    keys.keygen(tmp_path / "approver", None)
    countersigning.countersign(good.bundle, tmp_path / "approver", Trust((keys.load_public(good.public),)), now=NOW)
    assert victim.read_text() == "mine"
    assert not (good.bundle / "report.dsse.json").is_symlink()
