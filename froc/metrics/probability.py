"""Answer probability."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observation


@dataclass(frozen=True)
class Probability(Metric):
    """Probability of the answer, length-normalised: exp of the mean token log-probability (TOFU 2401.06121)."""

    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "the model is certain of the answer"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) p(answer | question) ** (1 / |y|)."""
        return np.asarray(np.exp(observation.mean_logp))
