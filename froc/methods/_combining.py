"""What combiners of both sides share: sums of gradients, parameters that come back, and which methods they fit."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from froc.training.base_statistics import PLACEHOLDER_CONTEXT
from froc.training.components import Combiner, dot
from froc.training.method import Method
from froc.training.terms import Weights


def plus(*terms: tuple[float | Tensor, Weights]) -> Weights:
    """Weighted sum of parameter dictionaries, over the union of their names. A factor that is a () tensor is not waited for."""
    total: Weights = {}
    for factor, weights in terms:
        for name, value in weights.items():
            part = (factor.to(value) if isinstance(factor, Tensor) else factor) * value
            total[name] = total[name] + part if name in total else part
    return total


def norm(weights: Weights) -> float:
    """Euclidean norm over all parameters."""
    return math.sqrt(float(dot(weights, weights)))


@contextmanager
def restored(parameters: Mapping[str, Tensor]) -> Iterator[Weights]:
    """Context manager: `parameters` may be written to and hold the same values afterwards, bit by bit; yields a copy of these."""
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        yield kept
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])


def without_retain_side(inner: type[Method]) -> str | None:
    """Why a combiner that reads both gradients does not fit a method: a phase that does not train on retain rows. None if it fits."""
    phases = inner().phases(PLACEHOLDER_CONTEXT)
    lacking = any(phase.parts and "retain" not in phase.roles for phase in phases)
    return "needs a method that trains on retain rows in each phase" if lacking else None


def combined_already(inner: type[Method]) -> str | None:
    """Why a combiner cannot be put into a method: a phase, be it the last, has one of its own. None where none has."""
    own = any(type(phase.combiner) is not Combiner for phase in inner().phases(PLACEHOLDER_CONTEXT))
    return "the other method combines its two sides itself" if own else None
