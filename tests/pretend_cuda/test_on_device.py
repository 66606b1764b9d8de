"""The tests of on_device/ pass in processes that have the pretend device; one process per file."""

from pathlib import Path

import pytest

from tests.pretend_cuda.runner import PretendCuda

CHECKS = sorted((Path(__file__).parent / "on_device").glob("check_*.py"))

DEVICES = {"check_several": 8}
"""How many devices there are from the start, where not two: backward passes go over those that the first one saw."""


@pytest.mark.parametrize("file", CHECKS, ids=[file.stem for file in CHECKS])
def test_on_the_device(pretend_cuda: PretendCuda, file: Path) -> None:
    pretend_cuda.check(file, devices=DEVICES.get(file.stem, 2))
