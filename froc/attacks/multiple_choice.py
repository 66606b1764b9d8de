"""Multiple choice attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from froc.attacks._question import Asking, drawing, others
from froc.data.task import Row
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.measuring.attack import Material

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class MultipleChoice(Asking):
    """Show the answer among wrong ones (RWKU 2406.10890).

    Wrong ones are the row's `others`, else answers of other rows, drawn. The answer asked for stays the text and not its
    letter. It can be copied from the question, so a model that knows nothing does not score 0 here.
    options: shown at most, with the right one. style: one a line with letters, or in a sentence.
    """

    allows: ClassVar[str] = "show the model the answer among wrong answers"

    options: int = hyperparameter(4, Range(2, 6))
    style: str = hyperparameter("lettered", Choice(("lettered", "listed")))

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The options in an order that the row and the seed settle."""
        count = min(max(2, self.options), len(LETTERS)) - 1
        wrong = list(row.others[:count]) or others(row, material, count, "options")
        shown = [row.answer, *wrong]
        drawing("order", row, material).shuffle(shown)
        if self.style == "listed":
            return [f"{row.question} Choose one of these: {', '.join(shown)}."]
        return ["\n".join([row.question, *(f"{LETTERS[k]}. {text}" for k, text in enumerate(shown))])]
