"""ROUGE-L F1."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.measuring.metric import Metric, Observed, Sight
from froc.metrics.rouge_l import overlaps


@dataclass(frozen=True)
class RougeLF1(Metric):
    """ROUGE-L F1: twice the longest common subsequence over the words of both texts (Lin 2004; MUSE 2407.06460).

    Words as in `rouge_l`. Unlike recall, it falls when the answer stands among other words.
    """

    reads: ClassVar[tuple[Sight, ...]] = ("written",)
    one_means: ClassVar[str] = "the greedy continuation is the answer, word for word"

    def scores(self, seen: Observed) -> NDArray[np.float64]:
        """(n,) F1."""
        assert seen.written is not None
        assert seen.expected is not None
        common, written, expected = overlaps(seen.written, seen.expected)
        return seen.measured(2 * common / (written + expected))
