"""Truth ratio."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, hyperparameter
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics._options import lacking, wrong


@dataclass(frozen=True)
class TruthRatio(Metric):
    """How far the true answer stands above false ones, by R = p(false) / p(true) (TOFU 2401.06121).

    p is length-normalised. p(true) is the restated answer's, or the answer's where a row has none; p(false) is the mean
    of the false answers' p.

    form: `share` is p(true) / (p(true) + p(false)), as in OpenUnlearning; 1/2 where true and false are equally likely.
        `margin` is max(0, 1 - R), which TOFU reports on retain rows. `ratio` is 1 - min(R, 1/R): TOFU reports min(R,
        1/R) on forget rows, where 1 means forgotten, so its complement is the loss; a model that prefers false answers
        counts as knowing, too.
    mean: `arithmetic`, as in TOFU's paper, or `geometric`, as in its code and in OpenUnlearning (2506.12618).
    """

    form: str = hyperparameter("share", Choice(("share", "margin", "ratio")))
    mean: str = hyperparameter("arithmetic", Choice(("arithmetic", "geometric")))
    reads: ClassVar[tuple[Observable, ...]] = ("others",)
    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "the true answer is told from the false ones with certainty"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) in the chosen form."""
        assert observation.restated is not None
        restated = np.array([bool(row.restated) for row in observation.rows])
        true = np.where(restated, observation.restated[:, 1], observation.mean_logp)
        log = self._false(wrong(observation)) - true
        with np.errstate(over="ignore"):
            if self.form == "share":
                score = 1.0 / (1.0 + np.exp(log))
            elif self.form == "margin":
                score = np.maximum(0.0, 1.0 - np.exp(log))
            else:
                score = 1.0 - np.exp(-np.abs(log))
        return observation.measured(score)

    def _false(self, wrong: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) logarithm of the false answers' mean probability."""
        there = wrong != -np.inf
        count = np.maximum(1, there.sum(axis=1))
        if self.mean == "geometric":
            return np.asarray(np.where(there, wrong, 0.0).sum(axis=1) / count)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.logaddexp.reduce(wrong, axis=1) - np.log(count))

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: rows without other answers. Empty where it applies."""
        return lacking(rows)
