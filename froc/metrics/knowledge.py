"""Knowledge memorisation."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics.rouge_l import overlaps

ANSWER_END = re.compile(r"\n[ \t]*\n|\nQuestion|Question:")


@dataclass(frozen=True)
class Knowledge(Metric):
    """KnowMem: ROUGE-L F1 of the written answer up to a blank line or the next question (MUSE 2407.06460, C2).

    The question is asked with the task's template, where MUSE puts examples of answered questions before it. Blanks
    before the answer are skipped, so that an answer cannot hide behind an empty line. Words as in `rouge_l`.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    fidelity: ClassVar[Fidelity] = "formula"
    one_means: ClassVar[str] = "the question is answered with the answer's words, in order, and no others"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) F1."""
        assert observation.written is not None
        assert observation.expected is not None
        cut = [ANSWER_END.split(text.lstrip(), maxsplit=1)[0] for text in observation.written]
        common, written, expected = overlaps(cut, observation.expected)
        return observation.measured(2 * common / (written + expected))
