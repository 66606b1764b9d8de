"""Attacks: one file each. What an adversary may do before the model is measured; any metric then measures the result.

An attack works on the model (quantisation, relearning) or on the queries (paraphrase, prefix); it leaves what it does
not touch as it is. Measured under an attack, a risk is a risk of its own with its own budget.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from froc.data import Row


@dataclass(frozen=True)
class Attack(ABC):
    """allows: what the adversary may do, in one sentence."""

    allows: ClassVar[str]

    def weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameter name -> attacked parameter, same shapes and dtypes; the input is not changed."""
        return weights

    def rows(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The attacked queries, in the same order."""
        return rows
