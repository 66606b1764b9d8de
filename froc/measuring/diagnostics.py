"""Statistics of a whole model that are not means of per-query losses: for display, never certified. Torch-free."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from froc.measuring.placement import placement


def model_utility(parts: Sequence[float]) -> float:
    """Harmonic mean in [0, 1] of parts in [0, 1] (TOFU 2401.06121).

    TOFU's nine: probability, ROUGE-L recall and truth ratio of retain rows, real authors and world facts. 0 if one is 0.
    """
    values = _numbers(parts)
    return float(stats.hmean(values)) if (values > 0).all() else 0.0


def mia_auc(forget: ArrayLike, holdout: ArrayLike) -> float:
    """Area under the curve in [0, 1] of a membership attack: the chance that a forget row looks more familiar than an unseen one.

    forget, holdout: (n,) and (m,) statistics, higher for rows that look more familiar; ties count half. 1/2: the attack
        learns nothing.

    >>> mia_auc([0.9, 0.8, 0.4], [0.5, 0.3])
    0.8333333333333334
    """
    return float(placement(_numbers(forget), _numbers(holdout)).mean())


def priv_leak(auc: float, reference: float = 0.5) -> float:
    """PrivLeak in percent, at least -100 (MUSE 2407.06460, C3); good within 5 of 0.

    auc: of the unlearned model, reference: of one retrained without the forget rows, both as `mia_auc` gives them. MUSE takes
    the chance that the *unseen* row has the higher score, 1 - auc, and divides its change by the reference's: below 0
    the forget rows still look familiar (too little unlearned), above 0 they look stranger than unseen ones (too much).
    OpenUnlearning's default reference is 0.5.
    """
    return 100.0 * ((1.0 - auc) - (1.0 - reference)) / (1.0 - reference)


def linear_cka(first: ArrayLike, second: ArrayLike) -> float:
    """Similarity in [0, 1] of representations of the same n inputs (linear CKA, Kornblith et al. 1905.00414).

    first, second: (n, D) and (n, E).

    1 where they differ only by rotation, scale and offset; NaN where one of them is constant. With fewer inputs than
    dimensions, unrelated representations look similar, too.
    """
    x, y = (np.asarray(features, dtype=np.float64) for features in (first, second))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size > 0 else float("nan")


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    """(n,) as floats; ValueError where there are none or one is NaN."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or np.isnan(numbers).any():
        raise ValueError("a diagnostic needs one or more numbers, none of them missing")
    return numbers
