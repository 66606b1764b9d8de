"""Fixed sequence testing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.hyperparameters import Range, hyperparameter
from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class FixedSequence(Procedure):
    """Test in the given order while p <= delta; stop at the first failure. Weights are not used.

    starts: number of sequences, which begin at evenly spaced places, are tested at delta / starts each, and each run to
    their own first failure. One is best where the order is reliable, more where it is not. A sequence errs with
    probability at most its level, since it would have to reject its first true null hypothesis at that level.

    >>> FixedSequence().reject(np.array([0.02, 0.2, 0.04]), np.ones(3), delta=0.1).tolist()
    [True, False, False]
    >>> FixedSequence(starts=2).reject(np.array([0.2, 0.04, 0.02]), np.ones(3), delta=0.1).tolist()
    [False, True, True]
    """

    theorem: ClassVar[str] = "Maurer, Hothorn and Lehmacher 1995; several starts: Learn then Test 2110.01052"

    starts: int = hyperparameter(1, Range(1, 100))

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """Union over the sequences."""
        places = self._places(len(p_values))
        small, flags = p_values <= delta / len(places), np.zeros(len(p_values), dtype=bool)
        for place in places:
            flags[place:] |= np.logical_and.accumulate(small[place:])
        return flags

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta / starts where a sequence begins, 0 elsewhere."""
        levels, places = np.zeros(len(weights)), self._places(len(weights))
        levels[places] = delta / max(1, len(places))
        return levels

    def _places(self, m: int) -> list[int]:
        starts = max(1, min(int(self.starts), m))
        return [start * m // starts for start in range(starts)] if m else []
