"""Unlearning depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation


@dataclass(frozen=True)
class UnlearningDepth(Metric):
    """How much of an answer the model's layers still carry: 1 minus the Unlearning Depth Score (arXiv 2605.24614).

    Block outputs of a retrained model, put into the base model one layer at a time, lower its log-probability per
    answer token by D1_l; those of the unlearned model lower it by D2_l. Over the layers that carry the answer (D1_l >
    tau) the loss is 1 - sum D1_l clip(D2_l / D1_l, 0, 1) / sum D1_l. A query that no layer carries cannot be
    measured this way: the authors leave it out, here it counts against the claim, as what cannot be measured does.

    reference: folder of a model retrained without the forget rows, of the base model's shape.
    tau: nats per token.

    The states that are replaced are those that predict the answer's tokens, as in the authors' code
    (gnueaj/unlearning-depth-score). Our reading: the whole answer counts, where the authors mark an entity in it.
    """

    reference: str = ""
    tau: float = 0.05
    reads: ClassVar[tuple[Observable, ...]] = ("base", "depth")
    fidelity: ClassVar[Fidelity] = "formula"
    one_means: ClassVar[str] = "every layer that carried the answer carries it still"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) 1 - depth score."""
        assert observation.start is not None
        assert observation.start.depth is not None
        assert observation.depth is not None
        carried = np.where(observation.start.depth > self.tau, observation.start.depth, 0.0)
        whole = carried.sum(axis=1)
        gone = np.clip(observation.depth, 0.0, carried).sum(axis=1)
        score = np.where(whole > 0, 1.0 - gone / np.where(whole > 0, whole, 1.0), np.nan)
        return observation.measured(np.where(np.isnan(observation.start.depth).any(axis=1), np.nan, score))

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: no retrained model. Empty where it applies."""
        if not self.reference:
            return "needs a model retrained without the forget rows: unlearning_depth:reference=PATH"
        if not (Path(self.reference) / "config.json").is_file():
            return f"needs a retrained model, and {Path(self.reference).name} has no config.json; save it there"
        return ""
