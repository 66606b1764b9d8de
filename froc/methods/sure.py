"""Saliency-based unlearning with a large learning rate."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from froc.hyperparameters import Range, hyperparameter
from froc.training.base_statistics import MethodContext
from froc.training.components import UpdateFilter, UpdateInputs
from froc.training.method import Wrapper
from froc.training.phase import Phase
from froc.training.terms import Weights


@dataclass(frozen=True)
class Salient(UpdateFilter):
    """Only neurons (rows of a parameter) move whose forget gradient's norm is among the largest of this step.

    That is, at or above the quantile `threshold` of all rows' norms, and not 0: embeddings of absent tokens are never salient.
    """

    needs_gradients: ClassVar[bool] = True
    threshold: float = 0.9

    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """Zero for all other rows, momentum and decay included."""
        norms = {name: _rows(grad) for name, grad in inputs.gradients["forget"].items()}
        every = torch.cat(list(norms.values()))
        # a quantile between two ranks lies above the lower; products of decimals may lie a little above a rank
        rank = math.ceil(self.threshold * (len(every) - 1) - 1e-9)
        least = every.kthvalue(rank + 1).values.clamp_min(torch.finfo(every.dtype).tiny)
        return {
            name: change * (norms[name] >= least).view(-1, *[1] * (change.dim() - 1))
            if name in norms
            else torch.zeros_like(change)
            for name, change in update.items()
        }


def _rows(grad: Tensor) -> Tensor:
    norms: Tensor = grad.reshape(len(grad), -1).float().norm(dim=-1)
    return norms


@dataclass(frozen=True)
class SURE(Wrapper):
    """Move few neurons far instead of all of them a little, so that quantisation does not undo it.

    A neuron is a row of a parameter; its saliency is the norm of the forget side's gradient, anew in each step; rows below the
    quantile `threshold` of all rows stay where they are. The authors' code masks gradients in a method that its trainer does not
    call, and counts the forget gradient twice; here the realised update is masked, for momentum would leak through a masked
    gradient. threshold: 0.9 in the authors' README, 0.99 in their class. Meant for learning rates ten times as large as without;
    narrow or widen with --space sure(npo).lr=...
    """

    paper: ClassVar[str] = "Zhang et al. 2410.16454"
    family: ClassVar[str] = "wrapper"

    threshold: float = hyperparameter(0.9, Range(0.5, 0.99))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """One filter more."""
        return replace(phase, filters=(*phase.filters, Salient(self.threshold)))
