"""Bounds on a mean loss, one theorem per file. For losses in [0, 1] with mean risk R, from n units:

* `p_value(losses, alpha)` is a p-value for H: R > alpha (a small one means that the risk is within budget);
* `upper(losses, delta)` is an upper bound that R exceeds with probability at most delta;
* `e_value(losses, alpha)`, where a bound has one, has expectation at most 1 under H.

losses: (m configurations, n units) whole thousandths; results: (m,) float64, computed per row. A bound for 0-1 losses
    refuses others. Nothing is rounded here; `froc.risk.claim` rounds, against the claim. Besides each class there are
    functions of plain numbers (`p_value_from_...`, `upper_from_...`), which tests compare with published values.

Clustered data need no bound of their own: `froc.loss_table.matrix(unit="group")` makes one column per cluster.

May import: loss_table, hyperparameters, errors.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.errors import InputError
from froc.loss_table import SCALE

Losses = NDArray[np.integer[Any]]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Level = float | FloatArray
"""A risk level for all configurations, or (m,) one for each."""
BLOCK_LOSSES = 1 << 16
"""Losses processed at a time, so that temporary arrays fit into the processor's cache."""
THREADED_LOSSES = 10**7
"""Table size from which threads are worth starting."""


@dataclass(frozen=True)
class Bound(ABC):
    """A theorem, with what it assumes.

    binary_only: needs losses of 0 or 1. order_free: the order of units is ignored; otherwise it must have been fixed
    before losses were known. finite: bounds the mean of a finite population sampled without replacement, whose size
    is the field `population`. monotone: p-values never rise with the risk that they are against, as a combined risk needs. anytime: valid at every stopping time, so that measuring may stop early.
    extendable: its test goes on with units that were not planned (`froc.risk.claim.Stage`), and has the field `ends`.
    """

    binary_only: ClassVar[bool] = False
    order_free: ClassVar[bool] = True
    finite: ClassVar[bool] = False
    anytime: ClassVar[bool] = False
    extendable: ClassVar[bool] = False
    monotone: ClassVar[bool] = True
    theorem: ClassVar[str]

    @abstractmethod
    def p_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) p-values for H: R > alpha, alpha in (0, 1)."""

    @abstractmethod
    def upper(self, losses: Losses, delta: float) -> FloatArray:
        """(m,) upper bounds at error delta in (0, 1), each in [0, 1]."""

    def p_values_aimed(self, losses: Losses, alpha: FloatArray, levels: FloatArray) -> FloatArray:
        """(m,) p-values at (m,) risks, with the bets of each configuration, if there are any, tuned for its own of (m,) error levels."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        if "level" not in settings:
            return self.p_value(losses, alpha)
        bounds = [type(self)(**{**settings, "level": float(level)}) for level in levels]
        rows = [bound.p_value(losses[i : i + 1], alpha[i : i + 1]) for i, bound in enumerate(bounds)]
        return np.concatenate([np.zeros(0), *rows])

    def uppers(self, losses: Losses, deltas: FloatArray) -> FloatArray:
        """(m,) upper bounds, each at its own of (m,) error levels."""
        rows = [self.upper(losses[i : i + 1], float(delta)) for i, delta in enumerate(deltas)]
        return np.concatenate([np.zeros(0), *rows])

    def e_value(self, losses: Losses, alpha: Level) -> FloatArray:
        """(m,) e-values against H: R > alpha, 0 or larger. InputError where the theorem gives none."""
        raise InputError(f"{type(self).__name__} has no e-values; take --bound mixture or betting")


def shape(losses: Losses) -> tuple[int, int]:
    """(m, n) as Python ints; InputError for a matrix without units."""
    m, n = losses.shape
    if n == 0:
        raise InputError("a bound needs at least one measured unit")
    return int(m), int(n)


def total(losses: Losses) -> IntArray:
    """(m,) sums of thousandths, exact."""
    n = shape(losses)[1]
    # two million losses fit into 32 bits, which are summed twice as fast
    kind = np.int32 if n * SCALE < 2**31 else np.int64
    return np.asarray(losses.sum(axis=1, dtype=kind), dtype=np.int64)


def mean(losses: Losses) -> FloatArray:
    """(m,) mean losses in [0, 1]."""
    return np.asarray(total(losses) / (SCALE * losses.shape[1]))


def ceil_sum(losses: Losses) -> IntArray:
    """(m,) sums of losses rounded up to whole numbers; exact, since losses are integers.

    >>> ceil_sum(np.array([[300, 300], [500, 500]])).tolist()
    [1, 1]
    """
    return ceil_thousandths(total(losses))


def ceil_thousandths(sums: IntArray) -> IntArray:
    """(m,) sums of thousandths in whole losses, rounded up."""
    return np.asarray(-(-sums // SCALE), dtype=np.int64)


def counts(losses: Losses) -> IntArray:
    """(m,) numbers of losses of 1; InputError for losses other than 0 and 1.

    >>> counts(np.array([[0, 1000, 1000]])).tolist()
    [2]
    """
    # in 0..SCALE, only 0 and SCALE are multiples of SCALE
    if any(bool((losses[block] % SCALE).any()) for block in blocks(losses)):
        raise InputError("this bound needs losses of 0 or 1; take --bound auto, betting or hoeffding_bentkus")
    return ceil_sum(losses)


def blocks(losses: Losses) -> list[slice]:
    """Slices of configurations, about BLOCK_LOSSES losses each."""
    m, n = losses.shape
    step = max(1, BLOCK_LOSSES // max(1, n))
    return [slice(start, start + step) for start in range(0, m, step)]


def by_block(losses: Losses, work: Callable[[slice], FloatArray]) -> FloatArray:
    """(m,) results of `work` on every block; in threads where the table is large."""
    slices = blocks(losses)
    if losses.size < THREADED_LOSSES:
        parts = [work(block) for block in slices]
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy releases the GIL
            parts = list(pool.map(work, slices))
    return np.concatenate([np.zeros(0), *parts])


def per_config(level: Level, m: int) -> FloatArray:
    """(m,) the level of each configuration, from one for all or one for each."""
    return np.broadcast_to(np.asarray(level, dtype=np.float64), (m,))
