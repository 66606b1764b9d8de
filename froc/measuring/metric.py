"""The contract of metrics: a score per query in [0, 1], read from what was observed of the model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row

Sight = Literal["written", "continued", "others", "spread", "hidden", "gradient", "base", "depth"]
"""What a metric may ask to be observed beside the answer's tokens; see `Observed`."""


@dataclass(frozen=True)
class Observed:
    """What was seen of n queries; A is the longest answer in tokens. Optional parts are None where nobody reads them.

    hit: (n, A) bool, the most likely token was the answer's, given all answer tokens before it.
    logp: (n, A) float32, log-probability of the answer's token, nats. length: (n,) int, answer tokens; entries past a
    row's length are False and 0. rows: the n queries.
    written: n texts, greedy continuations of the prompts, beside expected: the answers.
    continued: n texts, greedy continuations of each text's first half, beside rest: what stands there.
    others: (n, K, 2) float32, sum and mean over tokens of the log-probability of each row's other answers, NaN where a row
    has fewer; restated: (n, 2) the same of its restated answer, NaN where it has none.
    spread: (n, A, 2) float32, mean and standard deviation of the log-probability of a token drawn from the model itself.
    hidden: (n, L, D) float32, output of each transformer block where the answer is about to begin.
    gradient: (n,) float64, norm of the gradient of the answer's mean loss.
    depth: (n, L) float64, log-probability per answer token, nats, that the base model loses when the output of one of its
    blocks is replaced by this model's. start: the base model's `Observed` of the same queries (its `depth`: the retrained
    model's). bank: of rows that queries are compared with.
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
    spread: NDArray[np.float32] | None = None
    hidden: NDArray[np.float32] | None = None
    gradient: NDArray[np.float64] | None = None
    depth: NDArray[np.float64] | None = None
    start: "Observed | None" = None
    bank: "Observed | None" = None

    @property
    def mean_logp(self) -> NDArray[np.float64]:
        """(n,) log-probability per answer token, nats; at most 0."""
        mean: NDArray[np.float64] = self.logp.sum(axis=1, dtype=np.float64) / self.length
        return np.minimum(mean, 0.0)

    def measured(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) the values, and NaN where the model gave no number for an answer's token."""
        return np.where(np.isnan(self.logp).any(axis=1), np.nan, values)

    def and_then(self, other: "Observed") -> "Observed":
        """What was seen of these queries, followed by what was seen of others; the bank is the first's."""
        found = {name: _joined(getattr(self, name), getattr(other, name)) for name in _PARTS}
        start = self.start.and_then(other.start) if self.start and other.start else None
        return Observed(**found, start=start, bank=self.bank)

    def at(self, some: Sequence[int]) -> "Observed":
        """Of the queries at `some` alone."""
        index = list(some)
        found = {name: _picked(getattr(self, name), index) for name in _PARTS}
        return replace(self, **found, start=self.start and self.start.at(index))


_PARTS = (
    "hit", "logp", "length", "rows", "written", "expected", "continued", "rest", "others", "restated", "spread", "hidden",
    "gradient", "depth",
)  # fmt: skip


def _joined(one: Any, two: Any) -> Any:
    if one is None or two is None:
        return None
    if isinstance(one, tuple):
        return one + two
    if one.ndim > 1:
        wide = max(one.shape[1], two.shape[1])
        blank = np.nan if one.dtype.kind == "f" and one.ndim == 3 else 0
        one, two = (
            np.pad(some, ((0, 0), (0, wide - some.shape[1]), *[(0, 0)] * (some.ndim - 2)), constant_values=blank)
            for some in (one, two)
        )
    return np.concatenate([one, two])


def _picked(some: Any, index: list[int]) -> Any:
    if some is None or len(some) == 0:
        return some
    return tuple(some[i] for i in index) if isinstance(some, tuple) else some[index]


@dataclass(frozen=True)
class Metric(ABC):
    """A score per query.

    one_means: what 1.0 says, in one sentence. reads: what must be observed beside tokens. bank: rows that queries are
    compared with: `holdout` (the task's, never seen by the base model) or `forget` (the rows trained on). binary: scores are
    0 or 1 only. finds: `knowledge`, or `faults`, which are bad on any queries.
    """

    plugin_group: ClassVar[str] = "froc.metrics"
    one_means: ClassVar[str]
    reads: ClassVar[tuple[Sight, ...]] = ()
    bank: ClassVar[Literal["", "holdout", "forget"]] = ""
    binary: ClassVar[bool] = False
    finds: ClassVar[Literal["knowledge", "faults"]] = "knowledge"

    @abstractmethod
    def scores(self, seen: Observed) -> NDArray[np.float64]:
        """(n,) in [0, 1]; NaN where a query could not be measured, which counts as the worst loss."""

    def fits(self, rows: Sequence[Row]) -> str:
        """Why these queries cannot be measured, with the mend; "" where they can. Said before anything is trained."""
        return ""
