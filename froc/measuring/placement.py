"""Placement values: how familiar a query looks among rows never seen."""

import numpy as np
from numpy.typing import NDArray


def placement(queries: NDArray[np.float64], bank: NDArray[np.float64], *, over: bool = False) -> NDArray[np.float64]:
    """(n,) share of the bank below each query and half of what is level; over: 1 - that. NaN where a query is NaN."""
    ordered = np.sort(np.where(np.isnan(bank), np.inf if over else -np.inf, bank))
    twice = np.searchsorted(ordered, queries, "left") + np.searchsorted(ordered, queries, "right")
    value = twice / (2 * len(ordered))
    return np.where(np.isnan(queries), np.nan, 1.0 - value if over else value)
