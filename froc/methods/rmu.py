"""Representation misdirection (RMU)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import widened
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import LayerTerm, State, WeightedTerm

OUTPUTS = r"down_proj|dense_4h_to_h|fc2|fc_out|mlp\.c_proj"
"""Names of a feed-forward block's output matrix across architectures."""


@dataclass(frozen=True)
class Steer(LayerTerm):
    """Mean square distance of forget rows' hidden states to a fixed random target of length c * norm.

    The norm is the base model's mean hidden norm over all forget rows, so c is relative and one range fits all models.
    Hidden states are those that predict an answer or its end (`froc.models.batches.Batch.answer_states`).
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden_norm",)
    c: float = 5.0
    seed: int = 0

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses: squared distances averaged over positions, in units of the squared hidden norm."""
        hidden = widened(forward.hidden(self.layer))
        distance = (hidden - self.target(hidden, reference, state)) ** 2
        unit: Tensor = state["norm"]
        return forward.mean_over_states(distance.sum(-1)) / unit**2

    def target(self, hidden: Tensor, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(D,) of length c * norm; drawn once per run."""
        if "target" not in state:
            state["norm"] = reference["hidden_norm"]
            state["target"] = (self.c * state["norm"] * self.direction(hidden.shape[-1]).to(hidden.device)).detach()
        drawn: Tensor = state["target"]
        return drawn

    def direction(self, width: int) -> Tensor:
        """(D,) of length 1, drawn by the seed; no coordinate is negative."""
        drawn = torch.rand(width, generator=torch.Generator().manual_seed(self.seed))
        direction: Tensor = drawn / drawn.norm()
        return direction


@dataclass(frozen=True)
class Hold(LayerTerm):
    """Mean square distance of retain rows' hidden states to the base model's, in the same units as `Steer`."""

    # reads the norm that `Steer` stores
    row_separable: ClassVar[bool] = False

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; 0 at the base model."""
        norm: Tensor = state["norm"]
        distance = (widened(forward.hidden(self.layer)) - widened(reference["hidden"])) ** 2
        return forward.mean_over_states(distance.sum(-1)) / norm**2


@dataclass(frozen=True)
class RMU(Method):
    """Representation misdirection: steer one layer's hidden states on forget rows, hold them on retain rows.

    Loss: |h - c norm u|^2 on forget rows + retain_weight * |h - h_base|^2 on retain rows, in units of norm^2. u is
    drawn once from [0, 1)^D and scaled to length 1. Only the feed-forward output matrices (down_proj) of the steered
    layer and the two before it train.

    lr: 5e-5 in the authors' code. Few matrices train, so rates are larger than for other methods: a task's range is
        multiplied by five.
    c: length of the target relative to the mean hidden norm (the scale of Adaptive RMU, 2408.06223; the paper's own c
        is absolute).
    retain_weight: weight of the retain rows' term.
    depth: the layer as a share of all layers.

    Our reading: averages run over the states that predict an answer's tokens, which lie one position before them;
    OpenUnlearning's run over the states at the answer's tokens, and the authors' over all tokens of plain text, padding
    included. Questions to forget and to keep begin alike,
    and their first states cannot be told apart.
    """

    paper: ClassVar[str] = "Li et al. 2403.03218; Huu-Tien et al. 2408.06223"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "representation"
    standard: ClassVar[bool] = True
    lr_multiplier: ClassVar[float] = 5.0
    steer: ClassVar[type[Steer]] = Steer

    lr: float = hyperparameter(5e-5, Range(5e-6, 5e-4, log=True))
    c: float = hyperparameter(5.0, Range(0.5, 20.0, log=True))
    retain_weight: float = hyperparameter(10.0, Range(0.5, 2000.0, log=True))
    depth: float = hyperparameter(0.4, Range(0.2, 0.8))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase. `trains` selects by name, since the order of parameters differs between architectures."""
        layer = min(context.layers - 1, round(self.depth * (context.layers - 1)))
        layers = "|".join(str(n) for n in range(max(0, layer - 2), layer + 1))
        parts = {
            "steer": WeightedTerm(self.steer("forget", layer, self.c, context.seed)),
            "hold": WeightedTerm(Hold("retain", layer), self.retain_weight),
        }
        # the first number in a name is the layer's, a later one an expert's; GPT-2's attention also has a c_proj
        return (Phase(parts, trains=rf"^\D*\.({layers})\.(.*\.)?({OUTPUTS})(\.weight)?$"),)
