"""Verbatim memorisation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics.rouge_l import overlaps


@dataclass(frozen=True)
class Verbatim(Metric):
    """VerbMem: ROUGE-L F1 of the greedy continuation of a text's first half with its second half (MUSE 2407.06460, C1).

    Our reading: the text is question and answer together, cut in the middle, and at most 128 tokens are compared. Words
    as in `rouge_l`.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("continued",)
    fidelity: ClassVar[Fidelity] = "reading"
    one_means: ClassVar[str] = "the second half of the text is written from its first half, word for word"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) F1."""
        assert observation.continued is not None
        assert observation.rest is not None
        common, written, rest = overlaps(observation.continued, observation.rest)
        return observation.measured(2 * common / (written + rest))
