"""Copies of the small model on disk, for tests that load it in other ways."""

from pathlib import Path

import pytest

from froc.models.base import Base, load, save


@pytest.fixture(scope="module")
def folder(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    base.restore()
    save(base, place)
    return place


@pytest.fixture
def lora(folder: Path) -> Base:
    return load(str(folder), device="cpu", train="lora:rank=4", members=3)
