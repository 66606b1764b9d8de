"""Metrics: one file each; every metric is a per-query score in [0, 1].

As forgetting loss the score itself counts (1.0: the forgotten answer is there); as utility loss its drop against the
base model, never below 0. Metrics read what was `Observed` once per query; none runs the model.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observed:
    """What one pass over n queries saw; A is the longest answer in tokens.

    hit: (n, A) bool, the most likely token was the answer's, given all answer tokens before it.
    logp: (n, A) float32, log-probability of the answer's token, nats. length: (n,) int, answer tokens; entries past a
    row's length are False and 0. written, answers: n texts each, greedy continuation and true answer, where generated.
    """

    hit: NDArray[np.bool_]
    logp: NDArray[np.float32]
    length: NDArray[np.int64]
    written: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    def and_then(self, other: "Observed") -> "Observed":
        """What was seen of these queries, followed by what was seen of others."""
        wide = max(self.hit.shape[1], other.hit.shape[1])
        hit, logp = (
            np.concatenate([np.pad(some, ((0, 0), (0, wide - some.shape[1]))) for some in two])
            for two in ((self.hit, other.hit), (self.logp, other.logp))
        )
        length = np.concatenate([self.length, other.length])
        return Observed(hit, logp, length, self.written + other.written, self.answers + other.answers)


@dataclass(frozen=True)
class Metric(ABC):
    """`reads`: whether the metric needs one teacher-forced pass or generated text. `binary`: scores are 0 or 1 only."""

    reads: ClassVar[Literal["teacher-forced", "generated"]] = "teacher-forced"
    binary: ClassVar[bool] = False
    one_means: ClassVar[str]

    @abstractmethod
    def scores(self, seen: Observed) -> NDArray[np.float64]:
        """(n,) in [0, 1]."""
