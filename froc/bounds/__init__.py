"""Bounds: one file each. For losses in [0, 1] with mean risk R, from n independent units:

* `p_value(losses, alpha)` is a p-value for H: R > alpha (small means: the risk is within budget);
* `upper(losses, delta)` is an upper bound that R exceeds with probability at most delta.

losses: (m configurations, n units) int64 thousandths; results: (m,) float64 in [0, 1]. A bound that needs 0-1
losses refuses others. Nothing here rounds; `froc.risk` does, against the claim. Each file keeps its theorem in
functions of plain numbers beside the class, where it can be held against published values.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.errors import InputError
from froc.losses import SCALE

Losses = NDArray[np.int64]
Reals = NDArray[np.float64]
Wholes = NDArray[np.int64]


@dataclass(frozen=True)
class Bound(ABC):
    """binary_only: needs losses of 0 or 1. order_free: the order of units is ignored. theorem: its source."""

    binary_only: ClassVar[bool] = False
    order_free: ClassVar[bool] = True
    theorem: ClassVar[str]

    @abstractmethod
    def p_value(self, losses: Losses, alpha: float) -> Reals:
        """(m,) p-values for H: R > alpha, alpha in (0, 1)."""

    @abstractmethod
    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) upper bounds at error delta in (0, 1), each in (0, 1]."""


def shape(losses: Losses) -> tuple[int, int]:
    """(m, n) as Python ints; InputError for a matrix without units."""
    m, n = losses.shape
    if n == 0:
        raise InputError("a bound needs at least one measured unit")
    return int(m), int(n)


def whole(losses: Losses) -> Wholes:
    """(m,) smallest whole number not below the sum of losses: exact, since losses are integers."""
    return np.asarray(-(-losses.sum(axis=1) // SCALE), dtype=np.int64)
