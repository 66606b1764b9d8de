"""Procedures where there is nothing to test."""

import numpy as np
import pytest

from froc.plugins import names
from froc.procedures import Procedure, certified, first_levels


@pytest.mark.parametrize("name", names(Procedure))
def test_no_candidates_have_no_levels_and_none_passes(name: str) -> None:
    nothing = np.zeros(0)
    assert first_levels(name, nothing, 0.1).shape == (0,)
    assert certified(name, nothing, nothing, 0.1).tolist() == []
