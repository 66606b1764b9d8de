"""Numbers about a whole model that are no mean of losses: for display and comparison, never certified. Torch-free.

p-values, harmonic means and similarities of sets have no loss for each query, so none of the bounds speaks about them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from froc.measuring.placement import placement


def forget_quality(unlearned: ArrayLike, retrained: ArrayLike) -> float:
    """p-value in [0, 1] of the two-sample Kolmogorov-Smirnov test of truth ratios (TOFU 2401.06121).

    unlearned: (n,), retrained: (m,) truth ratios R of the forget rows, both in the same form. 1: as if retrained; a small
    value tells both apart, and the more rows there are, the smaller a difference it finds.
    """
    return float(stats.ks_2samp(_numbers(unlearned), _numbers(retrained)).pvalue)


def model_utility(parts: Sequence[float]) -> float:
    """Harmonic mean in [0, 1] of parts in [0, 1] (TOFU 2401.06121).

    TOFU's nine: probability, ROUGE-L recall and truth ratio of retain rows, real authors and world facts. 0 if one is 0.
    """
    values = _numbers(parts)
    return float(stats.hmean(values)) if (values > 0).all() else 0.0


def mia_auc(forget: ArrayLike, holdout: ArrayLike) -> float:
    """Area under the curve in [0, 1] of a membership attack: chance that a forget row looks more familiar than an unseen one.

    forget: (n,), holdout: (m,) statistics, higher for rows that look more familiar; ties count half. 1/2: nothing is told.
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

    first: (n, D), second: (n, E). 1 where they differ by rotation, size and offset alone; NaN where one of them does not vary.
    With fewer inputs than dimensions, unrelated representations look similar too.
    """
    x, y = (np.asarray(features, dtype=np.float64) for features in (first, second))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size > 0 else float("nan")


def forget_degree(scores: ArrayLike, start: ArrayLike) -> float:
    """F.D. in [0, 1] of a sequence of requests: mean over tests of what was forgotten of the start's score (2601.21682).

    scores, start: (n,) in [0, 1], of the unlearned and of the base model on what was to be forgotten, one for each test; start
    above 0. 1: nothing is left. The paper's formula could not be read: the base's score as unit, scores beyond it as no
    forgetting, and the mean are our reading.
    """
    return float(1.0 - _left(scores, start).mean())


def retain_utility(scores: ArrayLike, start: ArrayLike) -> float:
    """R.U. in [0, 1], the mirror image of `forget_degree` (2601.21682): mean over tests of what is left of the start's score.

    scores, start: as there, on what was to be kept. 1: nothing is lost. Our reading as there.
    """
    return float(_left(scores, start).mean())


def _left(scores: ArrayLike, start: ArrayLike) -> NDArray[np.float64]:
    """(n,) shares in [0, 1] of the start's scores."""
    after, before = _numbers(scores), _numbers(start)
    if (
        after.shape != before.shape
        or not ((before > 0) & (before <= 1)).all()
        or not ((after >= 0) & (after <= 1)).all()
    ):
        raise ValueError("a share needs as many scores as starts, in [0, 1], and no start of 0")
    return np.minimum(1.0, after / before)


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    """(n,) as floats; ValueError where there are none or one is no number: absence is no number."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or np.isnan(numbers).any():
        raise ValueError("a diagnostic needs one or more numbers, none of them missing")
    return numbers
