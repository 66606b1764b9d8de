"""Fixed sequence testing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.hyperparameters import Range, hyperparameter
from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class FixedSequence(Procedure):
    """Walk along the sealed order while p <= delta; stop at the first miss. Weights are not read.

    starts: so many walkers begin at evenly spaced places, each at delta / starts, and each goes on to its own first
    miss, past where the next one began. One walker is best where the order is sure, more where it is not: a walker
    errs with probability at most its level, since it must reject a first false hypothesis at that level.
    """

    theorem: ClassVar[str] = "Maurer, Hothorn and Lehmacher 1995; several starts: Learn then Test 2110.01052"

    starts: int = hyperparameter(1, Range(1, 100))

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """What any walker passes."""
        places = self._places(len(p_values))
        small, flags = p_values <= delta / len(places), np.zeros(len(p_values), dtype=bool)
        for place in places:
            flags[place:] |= np.logical_and.accumulate(small[place:])
        return flags

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta / starts where a walker begins, 0 elsewhere."""
        levels, places = np.zeros(len(weights)), self._places(len(weights))
        levels[places] = delta / max(1, len(places))
        return levels

    def _places(self, m: int) -> list[int]:
        starts = max(1, min(int(self.starts), m))
        return [walker * m // starts for walker in range(starts)] if m else []
