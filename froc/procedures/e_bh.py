"""Benjamini-Hochberg for e-values."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class EBH(Procedure):
    """Reject the k largest e-values, k as large as e_(k) >= m / (k delta) allows. A screening, not a certificate.

    The expected share of false ones among those rejected is at most delta, under any dependence; each of them alone
    may be wrong. Needs true e-values: the largest capital over time is none. Weights are not used.

    >>> e_values = np.array([50.0, 12.0, 2.0])
    >>> EBH().reject(1 / e_values, np.ones(3), delta=0.1).tolist()
    [True, False, False]
    """

    promise: ClassVar[Literal["family-wise", "false-discovery"]] = "false-discovery"
    evidence: ClassVar[Literal["p", "e"]] = "e"
    theorem: ClassVar[str] = "Wang and Ramdas 2009.02824"

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """p_values: inverted e-values, 1 / e, at most 1."""
        m, ranked = len(p_values), np.sort(p_values)
        passing = np.flatnonzero(ranked <= delta * np.arange(1, m + 1) / m)
        return np.asarray(p_values <= (ranked[passing[-1]] if len(passing) else -1.0))

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta / m."""
        return np.full(len(weights), delta / max(1, len(weights)))
