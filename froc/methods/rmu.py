"""Representation misdirection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import widened
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import State, Term, WeightedTerm

OUTPUTS = r"down_proj|dense_4h_to_h|fc2|fc_out|mlp\.c_proj"
"""A feed-forward block's second matrix, by the names that architectures give it."""


@dataclass(frozen=True)
class Steer(Term):
    """Mean square distance of the forget rows' hidden states to a fixed random direction of length c * norm.

    The norm is the base model's mean hidden norm over all forget rows: c is relative, so one range fits all models. Hidden states
    are those that predict an answer or its end (`froc.models.batches.Batch.answer_states`).
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden_norm",)
    needs_logits: ClassVar[bool] = False
    layer: int = 0
    c: float = 5.0
    seed: int = 0

    @property
    def hidden_at(self) -> tuple[int, ...]:
        """The steered layer."""
        return (self.layer,)

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses, mean over positions and dimensions, in units of the squared hidden norm per dimension."""
        hidden = widened(forward.hidden(self.layer))
        distance = (hidden - self.target(hidden, reference, state)) ** 2
        unit: Tensor = state["norm"]
        return forward.mean_over_states(distance.sum(-1)) / unit**2

    def target(self, hidden: Tensor, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(D,) of length c * norm; drawn once."""
        if "target" not in state:
            state["norm"] = reference["hidden_norm"]
            state["target"] = (self.c * state["norm"] * self.direction(hidden.shape[-1]).to(hidden.device)).detach()
        drawn: Tensor = state["target"]
        return drawn

    def direction(self, width: int) -> Tensor:
        """(D,) of length 1, by the seed; no coordinate is negative."""
        drawn = torch.rand(width, generator=torch.Generator().manual_seed(self.seed))
        direction: Tensor = drawn / drawn.norm()
        return direction


@dataclass(frozen=True)
class Hold(Term):
    """Mean square distance of the retain rows' hidden states to the base model's, in the same units as `Steer`."""

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    needs_logits: ClassVar[bool] = False
    # it reads the norm that `Steer` stored
    row_separable: ClassVar[bool] = False
    layer: int = 0

    @property
    def hidden_at(self) -> tuple[int, ...]:
        """The held layer."""
        return (self.layer,)

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; 0 at the base model."""
        norm: Tensor = state["norm"]
        distance = (widened(forward.hidden(self.layer)) - widened(reference["hidden"])) ** 2
        return forward.mean_over_states(distance.sum(-1)) / norm**2


@dataclass(frozen=True)
class RMU(Method):
    """Representation misdirection: steer one layer's hidden states on forget rows, hold them on retain rows.

    MSE(h, c norm u) on forget rows + retain_weight * MSE(h, h_base) on retain rows, u drawn once from [0, 1)^D and made of length 1.
    c: length of the target relative to the mean hidden norm (Adaptive RMU's scale, 2408.06223; the paper's own c is absolute).
    depth: the layer as a share of all layers. Only the feed-forward output matrices (down_proj) of that layer and the two before
    it move, so it takes larger learning rates than methods that move everything: 5e-5 in the authors' code; a task's range counts
    five times. The authors' code takes the mean over all tokens of plain text, padding too; we take the states that predict an
    answer, as OpenUnlearning takes the answer's: questions to forget and to keep begin alike, and cannot be told apart there.
    """

    paper: ClassVar[str] = "Li et al. 2403.03218; Huu-Tien et al. 2408.06223"
    family: ClassVar[str] = "representation"
    standard: ClassVar[bool] = True
    lr_multiplier: ClassVar[float] = 5.0
    steer: ClassVar[type[Steer]] = Steer

    lr: float = hyperparameter(5e-5, Range(5e-6, 5e-4, log=True))
    c: float = hyperparameter(5.0, Range(0.5, 20.0, log=True))
    retain_weight: float = hyperparameter(10.0, Range(0.5, 2000.0, log=True))
    depth: float = hyperparameter(0.4, Range(0.2, 0.8))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase; `trains` selects by name, for parameter positions differ between architectures."""
        layer = min(context.layers - 1, round(self.depth * (context.layers - 1)))
        layers = "|".join(str(n) for n in range(max(0, layer - 2), layer + 1))
        parts = {
            "steer": WeightedTerm(self.steer("forget", layer, self.c, context.seed)),
            "hold": WeightedTerm(Hold("retain", layer), self.retain_weight),
        }
        # the first number in a name is the layer's, a later one an expert's; GPT-2's attention has a c_proj too
        return (Phase(parts, trains=rf"^\D*\.({layers})\.(.*\.)?({OUTPUTS})(\.weight)?$"),)
