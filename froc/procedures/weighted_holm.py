"""Weighted Holm procedure."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from froc.procedures import Flags, FloatArray, Procedure


@dataclass(frozen=True)
class WeightedHolm(Procedure):
    """Reject the smallest p / w while p <= delta w / (sum of the weights left).

    The closed test of weighted Bonferroni tests; equal weights give Holm's procedure. With weights 1 / rank, the candidates
    that the search ranks first get most of the level, and pass it on once they are rejected.

    >>> weights = 1 / np.arange(1, 4)
    >>> WeightedHolm().first_levels(weights, delta=0.1).round(4).tolist()
    [0.0545, 0.0273, 0.0182]
    >>> WeightedHolm().reject(np.array([0.05, 0.06, 0.04]), weights, delta=0.1).tolist()
    [True, True, True]
    """

    theorem: ClassVar[str] = "Holm 1979"

    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """By MAPIE's engine for step-wise procedures."""
        flags = np.zeros(len(p_values), dtype=bool)
        flags[steps()(weights).run(p_values, delta)] = True
        return flags

    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) delta in proportion to the weights."""
        return np.asarray(delta * weights / weights.sum())


@lru_cache(maxsize=1)
def steps() -> Any:
    """The procedure as a subclass of MAPIE's `FWERProcedure`, for `mapie.risk_control.control_fwer` too.

    Made on first use: MAPIE takes 0.8 s to import. Its constructor takes the (m,) weights.
    """
    from mapie.risk_control import FWERProcedure

    class MapieWeightedHolm(FWERProcedure):  # type: ignore[misc]  # mapie ships no types
        def __init__(self, weights: FloatArray) -> None:
            self.weights = weights

        def _init_state(self, n_lambdas: int, delta: float) -> None:
            self.delta, self.rank = delta, 0

        def _select_next_hypothesis(self, p_values: FloatArray) -> int | None:
            if self.rank == 0:
                self._sort(p_values)
            return int(self.order[self.rank]) if self.rank < len(self.order) else None

        def _local_significance_levels(self) -> FloatArray:
            return self.levels

        def _update_on_reject(self, hypothesis_index: int) -> None:
            self.rank += 1

        def _sort(self, p_values: FloatArray) -> None:
            # the order of rejection is fixed, so all levels are known at once
            self.order = np.argsort(p_values / self.weights, kind="stable")
            ranked = self.weights[self.order]
            self.levels = np.empty(len(ranked))
            self.levels[self.order] = self.delta * ranked / ranked[::-1].cumsum()[::-1]

    return MapieWeightedHolm
