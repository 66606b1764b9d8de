"""Fallback procedure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class Fallback(Procedure):
    """Walk along the whole sealed order; each candidate has its own share of delta, and what its forerunner passed on.

    level_i = delta w_i / sum(w) + (level_{i-1} if it was rejected). A miss costs the level gathered so far, not the
    rest of the walk: between fixed sequence and weighted Bonferroni.
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
