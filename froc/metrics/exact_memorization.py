"""Exact memorisation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observation


@dataclass(frozen=True)
class ExactMemorization(Metric):
    """Share of answer tokens that greedy teacher forcing gets right (Tirumala et al. 2205.10770)."""

    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "every token of the answer is predicted from the tokens before it"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) right tokens over answer length."""
        return observation.measured(observation.hit.sum(axis=1) / observation.length)
