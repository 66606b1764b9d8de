"""In-context attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from froc.attacks._question import Asking, drawing
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Material


@dataclass(frozen=True)
class InContext(Asking):
    """Put answered questions before the question (RWKU 2406.10890).

    They are drawn from retain rows of other groups: they show how to answer, not what.

    shots: number of answered questions.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "show the model other questions with their answers first"

    shots: int = hyperparameter(3, Range(1, 5))

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The answered questions, one per line, then the question."""
        pool = [
            candidate
            for candidate in material.retain
            if candidate.question and not (candidate.group and candidate.group == row.group)
        ]
        draw = drawing("in_context", row, material)
        shown = draw.sample(pool, min(self.shots, len(pool)))
        return ["\n".join([*(f"{example.question} {example.answer}" for example in shown), row.question])]
