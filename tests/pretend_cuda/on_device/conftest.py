"""Tests that run on the pretend device: `check_*.py`, by tests/pretend_cuda/test_on_device.py. The small model on the device, loaded once."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.pretend_cuda import device

if TYPE_CHECKING:
    from froc.models.base import Base

if not torch.cuda.is_available() or not device.active():
    raise pytest.UsageError("these tests need the pretend device: python -m tests.pretend_cuda pytest FILE -n0")


@pytest.fixture(scope="session")
def small() -> Path:
    """The folder of the small model."""
    from tests.small_model import TRAINED

    return TRAINED


@pytest.fixture(scope="session")
def on_cuda(small: Path) -> "Base":
    """The small model on the device."""
    from froc.models.base import load

    return load(str(small), device="cuda")


@pytest.fixture(autouse=True)
def _all_memory() -> Iterator[None]:
    """No test leaves the device smaller than it was."""
    yield
    device.limit(None)
    device.refuse(0)


@pytest.fixture(autouse=True)
def _on_cuda_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "on_cuda" in request.fixturenames:
        request.getfixturevalue("on_cuda").restore()
