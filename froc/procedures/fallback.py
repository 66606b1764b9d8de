"""Fallback procedure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class Fallback(Procedure):
    """Test all candidates in order, each at its own share of delta plus the level of its predecessor if that was rejected.

    level_i = delta w_i / sum(w) + (level_{i-1} if hypothesis i - 1 was rejected). A failure loses the level accumulated so
    far but does not stop the sequence: between fixed sequence and weighted Bonferroni.

    >>> Fallback().reject(np.array([0.02, 0.06, 0.04]), np.ones(3), delta=0.1).tolist()
    [True, True, True]
    """

    theorem: ClassVar[str] = "Wiens 2003; Wiens and Dmitrienko 2005"

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """One pass."""
        own, flags, passed = self.first_levels(weights, delta), np.zeros(len(p_values), dtype=bool), 0.0
        for place, p in enumerate(p_values):
            level = own[place] + passed
            flags[place] = p <= level
            passed = level if flags[place] else 0.0
        return flags

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta in proportion to the weights."""
        return np.asarray(delta * weights / weights.sum())
