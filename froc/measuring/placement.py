"""Placement values: how familiar a query looks compared with unseen rows."""

import numpy as np
from numpy.typing import NDArray


def placement(queries: NDArray[np.float64], bank: NDArray[np.float64], *, over: bool = False) -> NDArray[np.float64]:
    """(n,) share of the bank below each query, ties counted half; over: 1 minus that. NaN where a query is NaN.

    >>> placement(np.array([0.9, 0.5]), np.array([0.5, 0.3])).tolist()
    [1.0, 0.75]
    """
    ordered = np.sort(np.where(np.isnan(bank), np.inf if over else -np.inf, bank))
    twice = np.searchsorted(ordered, queries, "left") + np.searchsorted(ordered, queries, "right")
    value = twice / (2 * len(ordered))
    return np.where(np.isnan(queries), np.nan, 1.0 - value if over else value)
