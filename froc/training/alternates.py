"""Other answers that the base model itself gives to the forget rows' questions."""

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
    """One other answer per forget row, drawn by the task's seed."""

    requirement: ClassVar[str] = "questions (alternates are generated)"

    def rows(self, reference: "BaseStatistics") -> Sequence[Encoded]:
        """See `alternates`."""
        pools = reference.pools
        return alternates(reference.base.model, pools.rows["forget"], hashing.derive_seed("alternates", pools.seed))


def alternates(model: PreTrainedModel, rows: Sequence[Encoded], seed: int) -> list[Encoded]:
    """One other answer per row, drawn from the model at temperature 1 with the true answer's first token ruled out.

    Each ends where the model ends it, or at half as many tokens again as the true answer has. Same seed, same answers.
    """
    most = np.array([row.answer + row.answer // 2 + 1 for row in rows])
    # an answer must differ from the true one, and must not be empty
    banned = [(row.ids[row.prompt], *row.marker) for row in rows]
    return [
        Encoded((*row.ids[: row.prompt], *written.answer_ids, *row.end_ids), row.prompt, written.answer, row.blank)
        for row, written in zip(rows, sample_answers(model, rows, most, seed, banned), strict=True)
    ]
