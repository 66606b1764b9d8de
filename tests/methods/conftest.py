"""A model of two layers in float64, with rows of unequal lengths."""

import pytest

from froc.training.base_statistics import BaseStatistics
from tests.methods.part_losses import tiny_statistics


@pytest.fixture(scope="module")
def tiny() -> BaseStatistics:
    return tiny_statistics()
