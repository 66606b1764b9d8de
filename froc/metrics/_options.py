"""What metrics share that compare an answer with others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.measuring.metric import Observed


def wrong(seen: Observed) -> NDArray[np.float64]:
    """(n, K) log-probability per token of each row's other answers; -inf where a row has fewer.

    A whole row is NaN where it has none, or where the model gave no number for one.
    """
    assert seen.others is not None
    mean = seen.others[:, :, 1].astype(np.float64)
    told = np.array([len(row.others) for row in seen.rows])[:, None]
    found = np.where(np.arange(mean.shape[1]) < told, mean, -np.inf)
    return np.where((told == 0) | np.isnan(found).any(axis=1, keepdims=True), np.nan, found)


def lacking(rows: Sequence[Row]) -> str:
    """Why rows cannot be compared with other answers; "" where all can."""
    none = sum(not row.others for row in rows)
    return f"needs wrong answers, and {none} of {len(rows)} queries have none; give a column 'others'" if none else ""
