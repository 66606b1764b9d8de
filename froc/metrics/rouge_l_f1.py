"""ROUGE-L F1."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics.rouge_l import overlaps


@dataclass(frozen=True)
class RougeLF1(Metric):
    """ROUGE-L F1: twice the longest common subsequence, divided by the words of both texts (Lin 2004; MUSE 2407.06460).

    Words as in `rouge_l`. Unlike recall, it falls when the text contains further words.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    fidelity: ClassVar[Fidelity] = "formula"
    one_means: ClassVar[str] = "the greedy continuation is the answer, word for word"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) F1."""
        assert observation.written is not None
        assert observation.expected is not None
        common, written, expected = overlaps(observation.written, observation.expected)
        return observation.measured(2 * common / (written + expected))
