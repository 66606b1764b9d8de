"""What a method asks of the base model and its rows once per task: surveys, and rows that are made from others.

Both are frozen dataclasses: what equal ones find is found once and kept (`froc.reference.Reference`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from froc.batches import Encoded

if TYPE_CHECKING:
    from froc.methods import Facts
    from froc.reference import Reference

Found = TypeVar("Found")


class Survey(ABC, Generic[Found]):
    """A question to the base model: where an answer lies, which directions retained inputs take, a second model's numbers."""

    @abstractmethod
    def take(self, reference: "Reference") -> Found:
        """The answer. The model holds the base parameters and must do so afterwards; every draw comes from a seed in the fields."""

    @abstractmethod
    def typical(self, facts: "Facts") -> Found:
        """An answer of the same form where there is no model, for lists of methods."""


class Source(ABC):
    """Makes the rows of a role from the task's: row i stands for forget row i.

    asks: whether every forget row must have a question. wants: what a task must have, in words.
    """

    asks: ClassVar[bool] = True
    wants: ClassVar[str] = "questions"

    @abstractmethod
    def rows(self, reference: "Reference") -> Sequence[Encoded]:
        """As many rows as there are forget rows. The model holds the base parameters and must do so afterwards."""
