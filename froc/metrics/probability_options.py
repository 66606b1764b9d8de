"""Answer probability among options."""

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
class ProbabilityOptions(Metric):
    """Probability of the answer relative to all options: p / (p + sum of the others') (TOFU 2401.06121).

    Each is length-normalised, exp of the mean token log-probability. A model that knows nothing scores 1 / options.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("others",)
    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "next to the answer no other option has any probability"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) share of the answer."""
        # relative to the answer's probability, so that tiny probabilities do not underflow
        with np.errstate(over="ignore", invalid="ignore"):
            others = np.exp(wrong(observation) - observation.mean_logp[:, None]).sum(axis=1)
        return observation.measured(1.0 / (1.0 + others))

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: rows without other answers. Empty where it applies."""
        return lacking(rows)
