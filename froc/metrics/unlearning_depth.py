"""Unlearning depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.measuring.metric import Metric, Observable, Observation


@dataclass(frozen=True)
class UnlearningDepth(Metric):
    """How much of an answer the model's layers still carry: 1 less the Unlearning Depth Score (arXiv 2605.24614).

    Block outputs of a retrained model, put into the base model one layer at a time, cost it D1_l of its log-probability per
    answer token; those of the unlearned model cost it D2_l. Over the layers that carry the answer (D1_l > tau) the loss is
    1 - sum D1_l clip(D2_l / D1_l, 0, 1) / sum D1_l. A query that no layer carries has nothing to forget: 0.
    Our reading: all positions of the row are replaced, and the whole answer counts, where the paper takes its entity.

    reference: folder of a model retrained without the forget rows, of the base model's shape. tau: nats per token.
    """

    reference: str = ""
    tau: float = 0.05
    reads: ClassVar[tuple[Observable, ...]] = ("base", "depth")
    one_means: ClassVar[str] = "every layer that carried the answer carries it still"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) 1 - depth score."""
        assert observation.start is not None
        assert observation.start.depth is not None
        assert observation.depth is not None
        carried = np.where(observation.start.depth > self.tau, observation.start.depth, 0.0)
        whole = carried.sum(axis=1)
        gone = np.clip(observation.depth, 0.0, carried).sum(axis=1)
        score = np.where(whole > 0, 1.0 - gone / np.where(whole > 0, whole, 1.0), 0.0)
        # a reference that gave no number does not say that there is nothing to forget
        return observation.measured(np.where(np.isnan(observation.start.depth).any(axis=1), np.nan, score))

    def fits(self, rows: Sequence[Row]) -> str:
        """The retrained model must be there."""
        if not self.reference:
            return "needs a model retrained without the forget rows: unlearning_depth:reference=PATH"
        if not (Path(self.reference) / "config.json").is_file():
            return f"needs a retrained model, and {Path(self.reference).name} has no config.json; save it there"
        return ""
