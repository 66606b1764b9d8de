"""Common parts of attacks on the question: a form is a rewritten question with the same answer.

A form depends on its row, the material and the seed alone, never on the other queries.
"""

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from froc import hashing
from froc.data.task import Row
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material


@dataclass(frozen=True)
class Asking(Attack):
    """Subclasses say what a question becomes."""

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Plain text asks nothing."""
        if all(row.question for row in rows):
            return ""
        return "changes the question, and rows of plain text have none; give rows with 'question' and 'answer'"

    def ask(self, rows: Sequence[Row], material: Material) -> Sequence[Sequence[Row]]:
        """As many forms as the row with the most has; rows with fewer repeat their own."""
        every = [self.forms_of(row, material) for row in rows]
        return [[forms[k % len(forms)] for forms in every] for k in range(max(map(len, every)))]

    def forms_of(self, row: Row, material: Material) -> Sequence[Row]:
        """At least one form of a row."""
        return [replace(row, question=text) for text in self.words(row, material)]

    @abstractmethod
    def words(self, row: Row, material: Material) -> Sequence[str]:
        """At least one question."""


@dataclass(frozen=True)
class Templated(Asking):
    """TEXTS: with {question} and {group} in them; forms: how many of them are asked, the first ones."""

    TEXTS: ClassVar[tuple[str, ...]]

    forms: int = hyperparameter(2, Range(1, 3))

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The row's question in each template."""
        return [filled(text, row) for text in self.TEXTS[: max(1, self.forms)]]


def filled(text: str, row: Row) -> str:
    """A template with a row's group and question in it."""
    return text.replace("{group}", row.group).replace("{question}", row.question)


def drawing(name: str, row: Row, material: Material) -> random.Random:
    """Draws that the row and the seed settle."""
    return random.Random(hashing.derive_seed(name, material.seed, row.question, row.answer, row.group))


def others(row: Row, material: Material, count: int, name: str, of: str = "answer") -> list[str]:
    """At most `count` answers (or groups) of other rows, unlike the row's own, drawn by the row and the seed."""
    pool = sorted(
        {getattr(candidate, of) for candidate in (*material.known, *material.retain)} - {getattr(row, of), ""}
    )
    return drawing(name, row, material).sample(pool, min(count, len(pool)))
