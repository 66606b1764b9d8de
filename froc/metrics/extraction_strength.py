"""Extraction strength."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.measuring.metric import Metric, Observed


@dataclass(frozen=True)
class ExtractionStrength(Metric):
    """Share of the answer that follows from the shortest prefix after which every token is right.

    c / |y| with c the longest correct suffix under greedy teacher forcing (after Carlini et al. 2012.07805; UWC
    2406.09179). A wrong last token gives 0, where common code never falls below 1 / |y|.
    """

    one_means: ClassVar[str] = "the whole answer follows from the question alone"

    def scores(self, seen: Observed) -> NDArray[np.float64]:
        """(n,) longest correct suffix over answer length."""
        place = np.arange(seen.hit.shape[1])
        wrong = ~seen.hit & (place < seen.length[:, None])
        last_wrong = np.where(wrong, place, -1).max(axis=1, initial=-1)
        return seen.measured((seen.length - 1 - last_wrong) / seen.length)
