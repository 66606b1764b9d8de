"""Placement values: where a query stands among the rows of a bank."""

import numpy as np
from numpy.typing import NDArray

from froc.data.rows import Row
from froc.data.splits import SearchView

MAX_RETAIN_ROWS = 400
"""Retain rows that queries are compared with; each costs a pass whenever a model is measured."""


def bank_rows(view: SearchView, name: str) -> tuple[Row, ...]:
    """The rows that a metric with this `bank` compares queries with; of the retain rows at most `MAX_RETAIN_ROWS`, evenly spaced."""
    kept = view.retain[:: -(-len(view.retain) // MAX_RETAIN_ROWS) or 1]
    return {"": (), "holdout": view.holdout, "forget": view.forget, "retain": kept}[name]


def placement(queries: NDArray[np.float64], bank: NDArray[np.float64], *, over: bool = False) -> NDArray[np.float64]:
    """(n,) share of the bank below each query, ties counted half; over: 1 minus that. NaN where a query is NaN.

    >>> placement(np.array([0.9, 0.5]), np.array([0.5, 0.3])).tolist()
    [1.0, 0.75]
    """
    ordered = np.sort(np.where(np.isnan(bank), np.inf if over else -np.inf, bank))
    twice = np.searchsorted(ordered, queries, "left") + np.searchsorted(ordered, queries, "right")
    value = twice / (2 * len(ordered))
    return np.where(np.isnan(queries), np.nan, 1.0 - value if over else value)
