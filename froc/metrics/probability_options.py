"""Answer probability among options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics._options import lacking, wrong


@dataclass(frozen=True)
class ProbabilityOptions(Metric):
    """Probability of the answer over that of all options: p / (p + sum of others') (TOFU 2401.06121).

    All are length-normalised, exp of the mean token log-probability. A model that knows nothing has 1 / options.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("others",)
    one_means: ClassVar[str] = "next to the answer no other option has any probability"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) share of the answer."""
        # as a ratio to the answer's own, so that tiny probabilities do not vanish
        with np.errstate(over="ignore", invalid="ignore"):
            others = np.exp(wrong(observation) - observation.mean_logp[:, None]).sum(axis=1)
        return observation.measured(1.0 / (1.0 + others))

    def fits(self, rows: Sequence[Row]) -> str:
        """Every row needs other answers."""
        return lacking(rows)
