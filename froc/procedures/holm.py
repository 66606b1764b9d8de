"""Holm's procedure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.procedures import Flags, FloatArray, Procedure
from froc.procedures.weighted_holm import WeightedHolm


@dataclass(frozen=True)
class Holm(Procedure):
    """Reject the smallest p-value while p <= delta / (number left). All candidates are equal; weights are not used.

    >>> Holm().reject(np.array([0.02, 0.06, 0.04]), np.ones(3), delta=0.1).tolist()
    [True, True, True]
    """

    theorem: ClassVar[str] = "Holm 1979"

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """Weighted Holm with equal weights."""
        return WeightedHolm().reject(p_values, np.ones(len(weights)), delta)

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta / m."""
        return np.full(len(weights), delta / max(1, len(weights)))
