"""Geometric-disentanglement unlearning (GU)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.training.base_statistics import MethodContext
from froc.training.components import UpdateFilter, UpdateInputs, dot
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Weights

EPSILON = 1e-8
"""AdamW's epsilon, in the metric that its second moments define."""


@dataclass(frozen=True)
class Harmless(UpdateFilter):
    """The nearest update that raises none of the last retain losses to first order.

    min 1/2 |D - D0|^2_M subject to g' D <= 0 for each of the last `memory` retain gradients g, with M = sqrt(v) +
    epsilon. The solution is D = D0 - M^-1 G mu with mu >= 0: a non-negative least-squares problem with one unknown per
    gradient.
    """

    needs_gradients: ClassVar[bool] = True
    needs_second_moments: ClassVar[bool] = True
    memory: int = 1

    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """The update; unchanged where no constraint is violated."""
        if not self.memory or not inputs.gradients.get("retain"):
            return update
        past: list[Weights] = inputs.state.setdefault("retain_gradients", [])
        past.insert(0, {name: grad.detach().clone() for name, grad in inputs.gradients["retain"].items()})
        del past[self.memory :]
        raised = torch.stack([dot(grad, update) for grad in past])
        if not bool((raised > 0).any()):
            return update
        steps = [
            {name: g / (inputs.second_moments[name].sqrt() + EPSILON) for name, g in grad.items()} for grad in past
        ]
        gram = torch.stack([torch.stack([dot(grad, step) for step in steps]) for grad in past])
        for share, step in zip(_shares(gram, raised), steps, strict=True):
            if share > 0:
                update = {
                    name: change - share * step[name] if name in step else change for name, change in update.items()
                }
        return update


def _shares(gram: Tensor, raised: Tensor) -> Sequence[float]:
    """mu >= 0 that minimises 1/2 mu' K mu - b' mu, with K = gram and b = raised."""
    scale = gram.diagonal().clamp_min(1e-300).sqrt()
    k = (gram / scale[:, None] / scale).cpu().numpy()
    b = (raised / scale).cpu().numpy()
    values, vectors = np.linalg.eigh(k)
    kept = values > 1e-10 * values.max()
    root = np.sqrt(values[kept])
    mu, _ = nnls(root[:, None] * vectors[:, kept].T, (vectors[:, kept].T @ b) / root)
    return [float(value) for value in mu / scale.cpu().numpy()]


@dataclass(frozen=True)
class GU(Wrapper):
    """Remove from another method's update the part that raises the retain loss.

    The optimiser's realised update, with momentum and weight decay, moves to the nearest one, in the metric of AdamW's
    second moments, along which the losses of the last retain batches do not rise to first order.

    memory: number of retain gradients kept, the current step's included; each takes as much memory as the trained
        parameters. The authors keep 8.

    This is the form that the authors' repository specifies (July 2026). Its released code never reaches the projection,
    so published numbers are not comparable.
    """

    paper: ClassVar[str] = "2511.17100"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "wrapper"

    memory: int = hyperparameter(1, Range(1, 8))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """One more filter."""
        return replace(phase, filters=(*phase.filters, Harmless(self.memory)))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """It needs a retain side."""
        return None if "retain" in inner.trained_roles() else "needs a method that trains on retain rows"
