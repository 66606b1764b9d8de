"""The contract of metrics: one score in [0, 1] per query, computed from an observation of the model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.fidelity import Fidelity

Observable = Literal["written", "continued", "others", "token_moments", "hidden", "gradient", "base", "depth"]
"""Parts of an `Observation` that a metric may need in addition to answer tokens."""


@dataclass(frozen=True)
class Observation:
    """The behaviour of a model on n queries; A is the longest answer in tokens. Optional parts are None where no metric reads them.

    hit: (n, A) bool, whether the likeliest token is the answer's, given all answer tokens before it.
    logp: (n, A) float32, log-probability of the answer's token, nats.
    length: (n,) int, answer tokens; entries of `hit` and `logp` beyond it are False and 0.
    rows: the n queries.
    written, expected: n greedy continuations of the prompts, and the answers.
    continued, rest: n greedy continuations of each text's first half, and its true second half.
    others: (n, K, 2) float32, sum and mean over tokens of the log-probability of each row's other answers, NaN where a
        row has fewer.
    restated: (n, 2) the same for the restated answer, NaN where there is none.
    token_moments: (n, A, 2) float32, mean and standard deviation of the log-probability of a token drawn from the model
        itself.
    hidden: (n, L, D) float32, output of each transformer block at the position before the answer.
    gradient: (n,) float64, norm of the gradient of the answer's mean loss.
    depth: (n, L) float64, drop of the base model's log-probability per answer token, nats, when one of its block
        outputs is replaced by this model's.
    start: the base model's `Observation` of the same queries (its `depth`: the retrained model's).
    bank: `Observation` of the rows that queries are compared with.
    device: of the model, for metrics that bring a model of their own.
    """

    hit: NDArray[np.bool_]
    logp: NDArray[np.float32]
    length: NDArray[np.int64]
    rows: tuple[Row, ...] = ()
    written: tuple[str, ...] | None = None
    expected: tuple[str, ...] | None = None
    continued: tuple[str, ...] | None = None
    rest: tuple[str, ...] | None = None
    others: NDArray[np.float32] | None = None
    restated: NDArray[np.float32] | None = None
    token_moments: NDArray[np.float32] | None = None
    hidden: NDArray[np.float32] | None = None
    gradient: NDArray[np.float64] | None = None
    depth: NDArray[np.float64] | None = None
    start: "Observation | None" = None
    bank: "Observation | None" = None
    device: str = "cpu"

    @property
    def mean_logp(self) -> NDArray[np.float64]:
        """(n,) log-probability per answer token, nats; at most 0."""
        mean: NDArray[np.float64] = self.logp.sum(axis=1, dtype=np.float64) / self.length
        return np.minimum(mean, 0.0)

    def measured(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) the values, NaN where the log-probability of an answer token is NaN."""
        return np.where(np.isnan(self.logp).any(axis=1), np.nan, values)

    def and_then(self, following: "Observation") -> "Observation":
        """This observation and one of further queries, in this order; bank and device are this one's."""
        parts = {name: _joined(getattr(self, name), getattr(following, name)) for name in _PARTS}
        start = self.start.and_then(following.start) if self.start and following.start else None
        return Observation(**parts, start=start, bank=self.bank, device=self.device)

    def at(self, places: Sequence[int]) -> "Observation":
        """The observation of the queries at `places`."""
        index = list(places)
        parts = {name: _picked(getattr(self, name), index) for name in _PARTS}
        return replace(self, **parts, start=self.start and self.start.at(index))


_PARTS = (
    "hit", "logp", "length", "rows", "written", "expected", "continued", "rest", "others", "restated", "token_moments", "hidden",
    "gradient", "depth",
)  # fmt: skip


def _joined(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return None
    if isinstance(first, tuple):
        return first + second
    if first.ndim > 1:
        width = max(first.shape[1], second.shape[1])
        blank = np.nan if first.dtype.kind == "f" and first.ndim == 3 else 0
        first, second = (
            np.pad(part, ((0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)), constant_values=blank)
            for part in (first, second)
        )
    return np.concatenate([first, second])


def _picked(part: Any, index: list[int]) -> Any:
    if part is None or len(part) == 0:
        return part
    return tuple(part[i] for i in index) if isinstance(part, tuple) else part[index]


@dataclass(frozen=True)
class Metric(ABC):
    """A score per query.

    one_means: meaning of a score of 1, in one sentence.
    reads: observables needed in addition to answer tokens.
    bank: rows that queries are compared with: `holdout` (the task's, never seen by the base model), `forget` (the
        training rows) or `retain` (some of the rows to keep that are trained on).
    binary: whether scores are only 0 or 1.
    fidelity: how true it is to its paper (`froc.fidelity`).
    finds: `knowledge`, or `faults` (such as refusals), which are losses on any queries.
    """

    plugin_group: ClassVar[str] = "froc.metrics"
    fidelity: ClassVar[Fidelity] = "reading"
    one_means: ClassVar[str]
    reads: ClassVar[tuple[Observable, ...]] = ()
    bank: ClassVar[Literal["", "holdout", "forget", "retain"]] = ""
    binary: ClassVar[bool] = False
    finds: ClassVar[Literal["knowledge", "faults"]] = "knowledge"

    @abstractmethod
    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) scores in [0, 1]; NaN where a query could not be measured, which counts as a loss of 1."""

    def fits(self, rows: Sequence[Row]) -> str:
        """Why these queries cannot be measured, with the fix; "" where they can. Checked before anything is trained."""
        return ""
