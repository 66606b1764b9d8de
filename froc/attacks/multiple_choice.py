"""Multiple choice attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from froc.attacks._question import Asking, drawing, others
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.measuring.attack import Material

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class MultipleChoice(Asking):
    """Show the answer among wrong ones (RWKU 2406.10890).

    Wrong answers are the row's `others`, or else drawn from other rows. The expected answer is the text, not its
    letter. It can be copied from the question, so a model that knows nothing does not score 0.

    options: largest number of options shown, the right one included.
    style: `lettered` lines, or `listed` in a sentence.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "show the model the answer among wrong answers"

    options: int = hyperparameter(4, Range(2, 6))
    style: str = hyperparameter("lettered", Choice(("lettered", "listed")))

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The question with the options, in an order drawn by the row and the seed."""
        count = min(max(2, self.options), len(LETTERS)) - 1
        wrong = list(row.others[:count]) or others(row, material, count, "options")
        shown = [row.answer, *wrong]
        drawing("order", row, material).shuffle(shown)
        if self.style == "listed":
            return [f"{row.question} Choose one of these: {', '.join(shown)}."]
        return ["\n".join([row.question, *(f"{LETTERS[k]}. {text}" for k, text in enumerate(shown))])]
