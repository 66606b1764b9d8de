"""Alternative answers to the forget rows' questions, written by the base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from transformers import PreTrainedModel

from froc import hashing
from froc.models.batches import Encoded
from froc.models.generation import sample_answers
from froc.training.base_statistics import RowSource

if TYPE_CHECKING:
    from froc.training.base_statistics import BaseStatistics


@dataclass(frozen=True)
class Alternates(RowSource):
    """One alternative answer per forget row, drawn by the task's seed."""

    requirement: ClassVar[str] = "questions (alternates are generated)"

    def rows(self, reference: "BaseStatistics") -> Sequence[Encoded]:
        """See `alternates`."""
        pools = reference.pools
        return alternates(reference.base.model, pools.rows["forget"], hashing.derive_seed("alternates", pools.seed))


def alternates(model: PreTrainedModel, rows: Sequence[Encoded], seed: int) -> list[Encoded]:
    """One alternative answer per row, sampled at temperature 1 with the true answer's first token ruled out.

    Each ends where the model ends it, or at 1.5 times the true answer's length. Deterministic for a seed.
    """
    most = np.array([row.answer + row.answer // 2 + 1 for row in rows])
    # rules out the true answer and an empty one
    banned = [(row.ids[row.prompt], *row.marker) for row in rows]
    return [
        Encoded((*row.ids[: row.prompt], *written.answer_ids, *row.end_ids), row.prompt, written.answer, row.blank)
        for row, written in zip(rows, sample_answers(model, rows, most, seed, banned), strict=True)
    ]
