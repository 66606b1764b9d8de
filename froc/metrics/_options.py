"""Shared by metrics that compare an answer with other answers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.measuring.metric import Observation


def wrong(observation: Observation) -> NDArray[np.float64]:
    """(n, K) log-probability per token of each row's other answers; -inf where a row has fewer.

    A whole row is NaN where it has none, or where a log-probability is not a number.
    """
    assert observation.others is not None
    mean = observation.others[:, :, 1].astype(np.float64)
    n_others = np.array([len(row.others) for row in observation.rows])[:, None]
    log_p = np.where(np.arange(mean.shape[1]) < n_others, mean, -np.inf)
    return np.where((n_others == 0) | np.isnan(log_p).any(axis=1, keepdims=True), np.nan, log_p)


def lacking(rows: Sequence[Row]) -> str:
    """Why rows cannot be compared with other answers; "" where all can."""
    none = sum(not row.others for row in rows)
    return f"needs wrong answers, and {none} of {len(rows)} queries have none; give a column 'others'" if none else ""
