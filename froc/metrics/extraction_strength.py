"""Extraction strength."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observation


@dataclass(frozen=True)
class ExtractionStrength(Metric):
    """Share of the answer that follows from the shortest prefix after which every token is right.

    c / |y|, c the length of the longest correct suffix under greedy teacher forcing (after Carlini et al. 2012.07805;
    UWC 2406.09179). A wrong last token gives 0; other implementations never fall below 1 / |y|.
    """

    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "the whole answer follows from the question alone"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) longest correct suffix over answer length."""
        place = np.arange(observation.hit.shape[1])
        wrong = ~observation.hit & (place < observation.length[:, None])
        last_wrong = np.where(wrong, place, -1).max(axis=1, initial=-1)
        return observation.measured((observation.length - 1 - last_wrong) / observation.length)
