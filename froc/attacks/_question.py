"""Common parts of attacks on the question: a form is a rewritten question with the same answer.

A form depends only on its row, the material and the seed, not on other queries.
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
    """An attack that rewrites the question; subclasses define `words`."""

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Why it does not apply: plain text has no question. Empty where it applies."""
        if all(row.question for row in rows):
            return ""
        return "changes the question, and rows of plain text have none; give rows with 'question' and 'answer'"

    def ask(self, rows: Sequence[Row], material: Material) -> Sequence[Sequence[Row]]:
        """The forms of all rows, as many as the row with the most has; rows with fewer repeat theirs."""
        every = [self.forms_of(row, material) for row in rows]
        return [[forms[k % len(forms)] for forms in every] for k in range(max(map(len, every)))]

    def forms_of(self, row: Row, material: Material) -> Sequence[Row]:
        """The forms of a row, at least one."""
        return [replace(row, question=text) for text in self.words(row, material)]

    @abstractmethod
    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The questions of a row's forms, at least one."""


@dataclass(frozen=True)
class Templated(Asking):
    """An attack that puts the question into templates.

    TEXTS: templates with {question} and {group}.
    forms: how many of them are used, from the first.
    """

    TEXTS: ClassVar[tuple[str, ...]]

    forms: int = hyperparameter(2, Range(1, 3))

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The row's question in each template."""
        return [filled(text, row) for text in self.TEXTS[: max(1, self.forms)]]


def filled(text: str, row: Row) -> str:
    """A template with the row's group and question filled in."""
    return text.replace("{group}", row.group).replace("{question}", row.question)


def drawing(name: str, row: Row, material: Material) -> random.Random:
    """A random generator seeded by the row and the material's seed."""
    return random.Random(hashing.derive_seed(name, material.seed, row.question, row.answer, row.group))


def others(row: Row, material: Material, count: int, name: str, of: str = "answer") -> list[str]:
    """Up to `count` answers (or groups) of other rows, different from the row's own, drawn by the row and the seed."""
    pool = sorted(
        {getattr(candidate, of) for candidate in (*material.known, *material.retain)} - {getattr(row, of), ""}
    )
    return drawing(name, row, material).sample(pool, min(count, len(pool)))
