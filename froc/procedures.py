"""Family-wise procedures: which candidates may be called safe together. Torch-free.

All hold under any dependence between the p-values: P(any false rejection) <= delta. Hypotheses stand in
testing order. The procedures run in MAPIE, which takes 0.8 s to import and is loaded when one is run.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from froc.errors import InputError

Flags = NDArray[np.bool_]
Reals = NDArray[np.float64]
DEFAULT = "weighted-holm"


def certified(name: str, p_values: Reals, weights: Reals, delta: float) -> Flags:
    """(m,) True where the hypothesis 'some risk exceeds its budget' is rejected.

    p_values: (m,) in [0, 1]. weights: (m,) above 0, read by weighted Holm alone. Raises InputError for unknown
    names and for NaN, which is no evidence of anything.
    """
    refuse_unknown(name)
    if not bool(np.all((p_values >= 0) & (p_values <= 1))):
        raise InputError("a p-value is not a number in [0, 1]")
    if len(p_values) == 0:
        return np.zeros(0, dtype=bool)
    _refuse_weights(weights)
    return PROCEDURES[name](p_values, weights, delta)


def first_levels(name: str, weights: Reals, delta: float) -> Reals:
    """(m,) the level at which each hypothesis is tested while no other has been rejected; 0: not before others."""
    refuse_unknown(name)
    _refuse_weights(weights)
    if name == "fixed-sequence":
        return np.where(np.arange(len(weights)) == 0, delta, 0.0)
    if name == "weighted-holm":
        return delta * weights / math.fsum(weights)
    return np.full(len(weights), delta / max(1, len(weights)))


def refuse_unknown(name: str) -> None:
    """InputError for a name that no procedure has."""
    if name not in PROCEDURES:
        raise InputError(f"no procedure is called {name!r}; there are: {', '.join(PROCEDURES)}")


def _refuse_weights(weights: Reals) -> None:
    if not bool(np.all(np.isfinite(weights) & (weights > 0))):
        raise InputError("a weight is not a number above 0")


def _by_mapie(method: object) -> Callable[[Reals, Reals, float], Flags]:
    def run(p_values: Reals, weights: Reals, delta: float) -> Flags:
        from mapie.risk_control import control_fwer

        flags = np.zeros(len(p_values), dtype=bool)
        flags[control_fwer(p_values, delta, method)] = True
        return flags

    return run


def _weighted_holm(p_values: Reals, weights: Reals, delta: float) -> Flags:
    """Reject the smallest p / w while p <= delta w / (sum of weights left) (Holm 1979).

    It is the closed test of weighted Bonferroni tests; equal weights give Holm's procedure.
    """
    from mapie.risk_control import FWERProcedure

    class WeightedHolm(FWERProcedure):  # type: ignore[misc]  # mapie ships no types
        def _init_state(self, n_lambdas: int, delta: float) -> None:
            self.delta, self.left = delta, np.ones(n_lambdas, dtype=bool)

        def _select_next_hypothesis(self, p_values: Reals) -> int | None:
            if not self.left.any():
                return None
            return int(np.where(self.left, p_values / weights, np.inf).argmin())

        def _local_significance_levels(self) -> Reals:
            # fsum is exact: the same levels on every machine
            return np.where(self.left, self.delta * weights / math.fsum(weights[self.left]), 0.0)

        def _update_on_reject(self, hypothesis_index: int) -> None:
            self.left[hypothesis_index] = False

    return _by_mapie(WeightedHolm())(p_values, weights, delta)


PROCEDURES: dict[str, Callable[[Reals, Reals, float], Flags]] = {
    "weighted-holm": _weighted_holm,
    "holm": _by_mapie("bonferroni_holm"),
    "fixed-sequence": _by_mapie("fixed_sequence"),
    "bonferroni": _by_mapie("bonferroni"),
}
