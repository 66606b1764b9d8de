"""Negative flips."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observation


@dataclass(frozen=True)
class NegativeFlips(Metric):
    """Whether every token of the answer is right under greedy teacher forcing.

    On retain queries its drop is a negative flip: right in the base model and wrong now (MUSCLE 2407.09435).
    """

    fidelity: ClassVar[Fidelity] = "own"
    one_means: ClassVar[str] = "the question is answered rightly, to the last token"
    binary: ClassVar[bool] = True

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) 0 or 1."""
        return observation.measured(observation.hit.sum(axis=1) == observation.length)
