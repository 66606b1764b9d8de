"""Census: a finite population that was measured completely."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, FloatArray, Level, Losses, mean, shape, total
from froc.errors import InputError
from froc.hyperparameters import Range, hyperparameter
from froc.loss_table import SCALE


@dataclass(frozen=True)
class Census(Bound):
    """The mean itself, for a listed population that was measured completely: no sampling error, no probability.

    p = 0 where the mean is at most alpha, else 1. population: the size of the list; 0: as many as are measured.
    Assumes nothing.

    >>> losses = np.array([97 * [0] + 3 * [1000]])
    >>> Census().p_value(losses, alpha=0.1).tolist()
    [0.0]
    >>> Census().upper(losses, delta=0.1).tolist()
    [0.03]
    """

    finite: ClassVar[bool] = True
    theorem: ClassVar[str] = "arithmetic"

    population: int = hyperparameter(0, Range(0, 10**9))

    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) 0 or 1."""
        n = self._all(losses)
        # floating-point error in alpha n is far below a thousandth
        return np.where(total(losses) <= np.asarray(alpha) * SCALE * n + 1e-6, 0.0, 1.0)

    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) mean losses."""
        self._all(losses)
        return mean(losses)

    def _all(self, losses: Losses) -> int:
        n = shape(losses)[1]
        if self.population not in (0, n):
            raise InputError(
                f"a census needs all of the {self.population} listed units, {n} are measured; take population sample"
            )
        return n
