"""Benjamini-Yekutieli procedure."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import false_discovery_control

from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class BenjaminiYekutieli(Procedure):
    """Reject the k smallest p-values, k as large as p_(k) <= k delta / (m (1 + 1/2 + ... + 1/m)) allows.

    A screening, not a certificate: the expected share of false ones among those rejected is at most delta, under any
    dependence (Benjamini and Hochberg's own would need one that shared queries do not promise); each of them alone
    may be wrong. Weights are not used.

    >>> BenjaminiYekutieli().reject(np.array([0.01, 0.03, 0.5]), np.ones(3), delta=0.1).tolist()
    [True, True, False]
    """

    promise: ClassVar[Literal["family-wise", "false-discovery"]] = "false-discovery"
    theorem: ClassVar[str] = "Benjamini and Yekutieli 2001"

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """By SciPy's adjusted p-values."""
        return np.asarray(false_discovery_control(p_values, method="by") <= delta)

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta / (m (1 + ... + 1 / m))."""
        m = max(1, len(weights))
        return np.full(len(weights), delta / (m * (1.0 / np.arange(1, m + 1)).sum()))
