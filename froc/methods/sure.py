"""Saliency-based unlearning with a large learning rate (SURE)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.training.base_statistics import MethodContext
from froc.training.components import UpdateFilter, UpdateInputs
from froc.training.method import Wrapper
from froc.training.phase import Phase
from froc.training.terms import Weights


@dataclass(frozen=True)
class Salient(UpdateFilter):
    """Updates only the neurons (rows of a parameter) with the largest forget gradients in this step.

    A row is updated if its gradient norm is at or above the quantile `threshold` of all rows' norms and not 0;
    embeddings of absent tokens never are.
    """

    needs_gradients: ClassVar[bool] = True
    threshold: float = 0.9

    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """The update, zero for all other rows, momentum and weight decay included."""
        norms = {name: _rows(grad) for name, grad in inputs.gradients["forget"].items()}
        home = next(iter(norms.values())).device
        every = torch.cat([norm.to(home) for norm in norms.values()])
        # a quantile between two ranks is above the lower one; the subtracted 1e-9 absorbs rounding of the product
        rank = math.ceil(self.threshold * (len(every) - 1) - 1e-9)
        least = every.sort().values[rank].clamp_min(torch.finfo(every.dtype).tiny)
        return {
            name: change * (norms[name] >= least.to(norms[name].device)).view(-1, *[1] * (change.dim() - 1))
            if name in norms
            else torch.zeros_like(change)
            for name, change in update.items()
        }


def _rows(grad: Tensor) -> Tensor:
    norms: Tensor = grad.reshape(len(grad), -1).float().norm(dim=-1)
    return norms


@dataclass(frozen=True)
class SURE(Wrapper):
    """Move few neurons far instead of all a little, so that quantisation does not undo the unlearning.

    A neuron is a row of a parameter, and its saliency the norm of the forget side's gradient in this step. Rows below
    the quantile `threshold` of all rows stay unchanged. Meant for learning rates ten times as large as usual: set them
    with --space sure(npo).lr=...

    threshold: 0.9 in the authors' README, 0.99 in their class.

    Our reading: the realised update is masked, since momentum would leak through a masked gradient. The authors' code
    masks gradients in a function that its trainer does not call, and counts the forget gradient twice.
    """

    paper: ClassVar[str] = "Zhang et al. 2410.16454"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "wrapper"

    threshold: float = hyperparameter(0.9, Range(0.5, 0.99))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """One more filter."""
        return replace(phase, filters=(*phase.filters, Salient(self.threshold)))
