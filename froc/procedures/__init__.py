"""Multiple-testing procedures, one file each: which hypotheses may be rejected together. Torch-free.

A procedure takes one p-value per candidate, in testing order, and is valid under any dependence between them. It controls

* the family-wise error: P(any false rejection) <= delta. For certificates: every certified candidate may be deployed;
* or the false discovery rate: E[false rejections / rejections] <= delta. For screening long lists: each single rejection
  may be false, so nothing is certified.

Names are written `fixed-sequence` or, with settings, `fixed-sequence:starts=4`.

May import: plugins, errors.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc import plugins
from froc.errors import InputError

Flags = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
DEFAULT = "weighted-holm"


@dataclass(frozen=True)
class Procedure(ABC):
    """How the error level is divided among hypotheses. evidence: "p" reads p-values, "e" inverted e-values, 1 / e."""

    promise: ClassVar[Literal["family-wise", "false-discovery"]] = "family-wise"
    evidence: ClassVar[Literal["p", "e"]] = "p"
    theorem: ClassVar[str]

    @abstractmethod
    def reject(self, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
        """(m,) True where a hypothesis is rejected; m >= 1, p_values in [0, 1], weights above 0."""

    @abstractmethod
    def first_levels(self, weights: FloatArray, delta: float) -> FloatArray:
        """(m,) levels at which hypotheses are tested before any other is rejected; 0: only after others are."""


@lru_cache(maxsize=64)
def find(name: str) -> Procedure:
    """The procedure called `name`, its settings included; InputError where there is none."""
    return plugins.make(Procedure, *plugins.parse(name))


def names(promise: str = "family-wise") -> list[str]:
    """Names of the procedures with this kind of error control, the default first."""
    kept = [name.replace("_", "-") for name in plugins.names(Procedure)]
    kept = [name for name in kept if plugins.find(Procedure, name).promise == promise]
    return sorted(kept, key=lambda name: (name != DEFAULT, name))


def certified(name: str, p_values: FloatArray, weights: FloatArray, delta: float) -> Flags:
    """(m,) True where the hypothesis 'some risk exceeds its budget' is rejected.

    p_values: (m,) in [0, 1]. weights: (m,) above 0, used by some procedures. Raises InputError for unknown names
    and for NaN.

    >>> p = np.array([0.02, 0.06, 0.04])
    >>> certified("fixed-sequence", p, np.ones(3), delta=0.1).tolist()
    [True, True, True]
    >>> certified("bonferroni", p, np.ones(3), delta=0.1).tolist()
    [True, False, False]
    """
    procedure = find(name)
    if not bool(np.all((p_values >= 0) & (p_values <= 1))):
        raise InputError("a p-value is not a number in [0, 1]")
    _refuse_weights(weights)
    if len(p_values) == 0:
        return np.zeros(0, dtype=bool)
    return procedure.reject(p_values, weights, delta)


def first_levels(name: str, weights: FloatArray, delta: float) -> FloatArray:
    """(m,) levels at which hypotheses are tested before any other is rejected; 0: only after others are."""
    _refuse_weights(weights)
    return find(name).first_levels(weights, delta)


def _refuse_weights(weights: FloatArray) -> None:
    if not bool(np.all(np.isfinite(weights) & (weights > 0))):
        raise InputError("a weight is not a number above 0")
