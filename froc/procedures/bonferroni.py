"""Bonferroni's procedure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class Bonferroni(Procedure):
    """Reject where p <= delta / m, independently of the other p-values. Weights are not used.

    >>> Bonferroni().reject(np.array([0.02, 0.06, 0.04]), np.ones(3), delta=0.1).tolist()
    [True, False, False]
    """

    theorem: ClassVar[str] = "Bonferroni 1936; Dunn 1961"

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """All at one level."""
        return np.asarray(p_values <= delta / len(p_values))

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta / m."""
        return np.full(len(weights), delta / max(1, len(weights)))
