"""What a bundle's files may hold at most."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from froc.audit import bundle_files
from froc.audit.bundle_files import LIMITS, Trial, Variant
from froc.errors import VerificationError
from tests.audit.conftest import Made

VARIANT = {"config": "c0000-s7-m0500", "stop": 7, "mix": "0.5", "search": {"forgetting": "0.25"}}


def bundle(folder: Path, **sizes: int) -> Path:
    """A folder with all files of a bundle, of a byte each, and others of these sizes."""
    folder.mkdir()
    for name in LIMITS:
        (folder / name).write_bytes(b"x")
    for name, size in sizes.items():
        (folder / name.replace("_", ".")).write_bytes(b"x" * size)
    return folder


@pytest.mark.parametrize(("size", "fits"), [(64 * 1024, True), (64 * 1024 + 1, False)])
def test_a_time_stamp_has_64_kib_at_most(size: int, fits: bool, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle", plan_tsr=size)
    if fits:
        assert len(bundle_files.read_bundle(folder)["plan.tsr"]) == size
        return
    with pytest.raises(VerificationError, match=r"plan\.tsr"):
        bundle_files.read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "holds"),
    [({"stop": 1}, True), ({"stop": 0}, False), ({"stop": 10**12}, True), ({"stop": 10**12 + 1}, False)],
)
def test_a_stop_is_a_step_of_at_most_a_trillion(change: dict[str, Any], holds: bool) -> None:
    if holds:
        assert Variant.model_validate(VARIANT | change).stop == change["stop"]
        return
    with pytest.raises(ValidationError, match="stop"):
        Variant.model_validate(VARIANT | change)


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({"steps": 0}, True), ({"steps": -1}, False), ({"steps": 10**12}, True), ({"steps": 10**12 + 1}, False),
        ({"variants": [VARIANT] * 64}, True), ({"variants": [VARIANT] * 65}, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_trial_has_a_trillion_steps_and_64_variants_at_most(good: Made, change: dict[str, Any], holds: bool) -> None:
    line = good.facts().trials[0].model_dump()
    if holds:
        Trial.model_validate(line | change)
        return
    with pytest.raises(ValidationError, match=next(iter(change))):
        Trial.model_validate(line | change)
