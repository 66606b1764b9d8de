"""Membership inference."""

import zlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.measuring.metric import Metric, Observable, Observation
from froc.measuring.placement import placement

OBSERVABLES: dict[str, tuple[Observable, ...]] = {
    "min_k_pp": ("token_moments",),
    "reference": ("base",),
    "gradient": ("gradient",),
}


@dataclass(frozen=True)
class Membership(Metric):
    """Share of holdout rows that look less familiar than the query, ties counted half.

    This is the placement value of a membership statistic among unseen rows: its mean over queries is exactly the area
    under the curve of the attack, so a bound on the mean bounds that area. Over a fixed bank of rows it is a loss of
    each query by itself. 1/2 means that the attack learns nothing.

    score: what makes a row familiar. `loss`: a high log-probability per token (Yeom et al. 1709.01604). `zlib`: the
        same relative to the compressed bytes of the answer (Carlini et al. 2012.07805, who take one whole text for both). `min_k`: a high mean
        of the lowest share `k` of log-probabilities (2310.16789). `min_k_pp`: the same, each standardised under the
        model itself (2404.02936). `reference`: a higher log-probability than the base model's. `gradient`: a small
        gradient of the loss.
    k: share of tokens in `min_k` and `min_k_pp`.
    over: 1 gives 1 minus the score: forget rows that look stranger than unseen ones reveal that they were removed.

    A bank row that could not be measured counts against the claim.
    """

    score: str = hyperparameter("min_k", Choice(("loss", "zlib", "min_k", "min_k_pp", "reference", "gradient")))
    k: float = hyperparameter(0.4, Range(0.05, 1.0, log=True))
    over: int = hyperparameter(0, Choice((0, 1)))
    bank: ClassVar[Literal["", "holdout", "forget"]] = "holdout"
    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "every row that was never seen looks less familiar (over=1: more familiar)"

    @property
    def reads(self) -> tuple[Observable, ...]:  # type: ignore[override]  # what is read depends on the score
        """The observables that the score needs."""
        return OBSERVABLES.get(self.score, ())

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) placement values."""
        assert observation.bank is not None
        return observation.measured(
            placement(self.familiar(observation), self.familiar(observation.bank), over=bool(self.over))
        )

    def familiar(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) the statistic, higher for rows that look more familiar; NaN where it is not a number."""
        if self.score == "zlib":
            return observation.measured(
                observation.mean_logp / np.array([compressed_size(row.answer) for row in observation.rows])
            )
        if self.score == "min_k":
            return observation.measured(lowest(observation.logp.astype(np.float64), observation.length, self.k))
        if self.score == "min_k_pp":
            assert observation.token_moments is not None
            # OpenUnlearning bounds the variance by 1e-6
            z = (observation.logp - observation.token_moments[:, :, 0]) / np.maximum(
                observation.token_moments[:, :, 1], 1e-3
            )
            return observation.measured(lowest(z.astype(np.float64), observation.length, self.k))
        if self.score == "reference":
            assert observation.start is not None
            # rounded, since an unchanged model differs from the base by rounding
            return observation.measured(np.round(observation.mean_logp - observation.start.mean_logp, 4))
        if self.score == "gradient":
            assert observation.gradient is not None
            return observation.measured(-observation.gradient)
        return observation.measured(observation.mean_logp)


def lowest(values: NDArray[np.float64], length: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """(n,) mean of the lowest share of each row's tokens, at least one token."""
    place = np.arange(values.shape[1])
    count = np.clip((share * length).astype(np.int64), 1, length)
    ordered = np.sort(np.where(place < length[:, None], values, np.inf), axis=1)
    total: NDArray[np.float64] = np.where(place < count[:, None], ordered, 0.0).sum(axis=1)
    return total / count


def compressed_size(text: str) -> int:
    """Number of bytes of a text's zlib stream, at least 8."""
    return len(zlib.compress(text.encode()))
