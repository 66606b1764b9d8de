"""Reverse query attack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from froc.attacks._question import Asking, others
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.attack import Material


@dataclass(frozen=True)
class ReverseQuery(Asking):
    """Give the answer and ask for whom or what it belongs to (RWKU 2406.10890; wording ours).

    The row's group becomes the expected answer, other groups its wrong answers.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "give the answer and ask whom or what it belongs to"

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Why it does not apply: a row without a group. Empty where it applies."""
        if all(row.group for row in rows):
            return ""
        return "asks for the group that an answer belongs to, and some rows have none; give every row a 'group'"

    def forms_of(self, row: Row, material: Material) -> Sequence[Row]:
        """Two questions that contain the answer and expect the group."""
        wrong = tuple(others(row, material, 3, "groups", "group"))
        bare = replace(row, answer=row.group, others=wrong, paraphrases=(), restated="", translations=())
        return [replace(bare, question=text) for text in self.words(row, material)]

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """Questions without the original one, which often names the group."""
        return [
            f"To whom or what does this belong: {row.answer}?",
            f"The answer is: {row.answer}. Whom or what was the question about?",
        ]
