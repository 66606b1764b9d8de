"""Multiple choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics._options import lacking, wrong


@dataclass(frozen=True)
class MultipleChoice(Metric):
    """Whether the answer is the likeliest of all options, per token (after WMDP 2403.03218 and MMLU 2009.03300).

    Each option's text follows the question; WMDP compares the letters of options in the prompt. A tie is right.
    Guessing among m options is right with probability 1/m, so no smaller budget can be met.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("others",)
    fidelity: ClassVar[Fidelity] = "formula"
    one_means: ClassVar[str] = "the answer is picked among the options"
    binary: ClassVar[bool] = True

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) 0 or 1."""
        others = wrong(observation)
        # single precision on both sides, so that equal probabilities compare equal
        picked = (observation.mean_logp[:, None].astype(np.float32) >= others.astype(np.float32)).all(axis=1)
        return observation.measured(np.where(np.isnan(others).any(axis=1), np.nan, picked))

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: rows without other answers. Empty where it applies."""
        return lacking(rows)
