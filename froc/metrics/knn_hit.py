"""Nearest neighbours in representations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.metric import Metric, Observable, Observation


@dataclass(frozen=True)
class KnnHit(Metric):
    """Whether the k nearest forget rows of other groups vote for the answer (k-NN on features, 2503.06991; k = 5, cosine).

    k: number of neighbours.
    layer: block whose output is the feature, from 0; -1 is the last.

    Our reading for language models: the feature is a block's output at the position before the answer; votes are
    answers; rows of the query's own group do not vote, since otherwise the group would be recognised and not the fact.
    A tie of votes or distances is a hit. An answer that no other group has cannot be measured this way.
    """

    k: int = hyperparameter(5, Range(1, 50))
    layer: int = -1
    reads: ClassVar[tuple[Observable, ...]] = ("hidden",)
    bank: ClassVar[Literal["", "holdout", "forget"]] = "forget"
    fidelity: ClassVar[Fidelity] = "reading"
    one_means: ClassVar[str] = "the model represents the question like those of others that have the same answer"
    binary: ClassVar[bool] = True

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) 0 or 1."""
        assert observation.bank is not None
        mine, theirs = self._features(observation), self._features(observation.bank)
        answers, labels = np.unique(
            [row.answer for observed in (observation, observation.bank) for row in observed.rows], return_inverse=True
        )
        groups = np.unique(
            [row.group for observed in (observation, observation.bank) for row in observed.rows], return_inverse=True
        )[1]
        labels_asked, labels_of_bank = np.split(labels, [len(mine)])
        same = labels_asked[:, None] == labels_of_bank
        other_group = groups[: len(mine), None] != groups[len(mine) :]
        near = np.where(other_group, mine @ theirs.T, -np.inf)
        # nearest first; among equally near rows, those with the same answer first
        order = np.lexsort((~same, -near), axis=1)[:, : self.k]
        voted = np.where(np.take_along_axis(other_group, order, 1), labels_of_bank[order], len(answers))
        votes = (voted[:, :, None] == voted[:, None, :]).sum(axis=2)
        own = (voted == labels_asked[:, None]).sum(axis=1)
        hit = (own > 0) & (own >= np.where(voted < len(answers), votes, 0).max(axis=1))
        failed = np.isnan(mine).any(axis=1) | (np.isnan(theirs).any(axis=1) & other_group).any(axis=1)
        return observation.measured(np.where(failed | ~(same & other_group).any(axis=1), np.nan, hit))

    def _features(self, observation: Observation) -> NDArray[np.float64]:
        """(n, D) of length 1, at the chosen block."""
        assert observation.hidden is not None
        depth = observation.hidden.shape[1]
        if not -depth <= self.layer < depth:
            raise InputError(f"knn_hit:layer={self.layer}: the model has {depth} blocks; give 0 to {depth - 1}, or -1")
        features = observation.hidden[:, self.layer].astype(np.float64)
        size: NDArray[np.float64] = np.linalg.norm(features, axis=1, keepdims=True)
        return features / np.where(size == 0, 1.0, size)

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: a row without a group, or no answer that two groups share. Empty where it applies."""
        if not all(row.group for row in rows):
            return "needs rows with groups; give a column 'group'"
        pairs = {(row.answer, row.group) for row in rows}
        if len(pairs) == len({answer for answer, _ in pairs}):
            return "needs answers that several groups share; give rows of a fact that many have, such as a home town"
        return ""
