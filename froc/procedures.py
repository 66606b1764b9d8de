"""Family-wise procedures: which candidates may be called safe together. Torch-free.

All hold under any dependence between the p-values: P(any false rejection) <= delta. Hypotheses stand in testing order.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from froc.errors import InputError

Flags = NDArray[np.bool_]
Reals = NDArray[np.float64]
DEFAULT = "weighted-holm"


def certified(name: str, p_values: Reals, weights: Reals, delta: float) -> Flags:
    """(m,) True where the hypothesis 'some risk exceeds its budget' is rejected.

    p_values: (m,) in [0, 1]. weights: (m,) > 0, used by weighted Holm alone. Raises InputError for NaN, which is no
    evidence of anything, and for unknown names.
    """
    if name not in PROCEDURES:
        raise InputError(f"no procedure is called {name!r}; there are: {', '.join(PROCEDURES)}")
    if not bool(np.all((p_values >= 0) & (p_values <= 1))):
        raise InputError("a p-value is not a number in [0, 1]")
    if len(p_values) == 0:
        return np.zeros(0, dtype=bool)
    return PROCEDURES[name](p_values, weights, delta)


def first_level(name: str, weights: Reals, delta: float) -> float:
    """The level at which the first hypothesis is tested before any other is rejected."""
    if name == "fixed-sequence":
        return delta
    if name == "weighted-holm":
        return float(delta * weights[0] / weights.sum())
    return delta / len(weights)


def _by_mapie(method: object) -> Callable[[Reals, Reals, float], Flags]:
    def run(p_values: Reals, weights: Reals, delta: float) -> Flags:
        from mapie.risk_control import control_fwer

        flags = np.zeros(len(p_values), dtype=bool)
        flags[control_fwer(p_values, delta, method)] = True
        return flags

    return run


def _weighted_holm(p_values: Reals, weights: Reals, delta: float) -> Flags:
    """Reject the smallest p / w while p <= delta w / (sum of weights left) (Holm 1979); closed testing of weighted Bonferroni."""
    from mapie.risk_control import FWERProcedure

    class WeightedHolm(FWERProcedure):  # type: ignore[misc]  # mapie ships no types; the import is slow, hence here
        def _init_state(self, n_lambdas: int, delta: float) -> None:
            self.delta, self.left = delta, np.ones(n_lambdas, dtype=bool)

        def _select_next_hypothesis(self, p_values: Reals) -> int | None:
            if not self.left.any():
                return None
            return int(np.where(self.left, p_values / weights, np.inf).argmin())

        def _local_significance_levels(self) -> Reals:
            return np.where(self.left, self.delta * weights / weights[self.left].sum(), 0.0)

        def _update_on_reject(self, hypothesis_index: int) -> None:
            self.left[hypothesis_index] = False

    return _by_mapie(WeightedHolm())(p_values, weights, delta)


PROCEDURES: dict[str, Callable[[Reals, Reals, float], Flags]] = {
    "weighted-holm": _weighted_holm,
    "holm": _by_mapie("bonferroni_holm"),
    "fixed-sequence": _by_mapie("fixed_sequence"),
    "bonferroni": _by_mapie("bonferroni"),
}
