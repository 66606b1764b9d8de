"""Adaptive representation misdirection (Adaptive RMU)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from froc.fidelity import Fidelity
from froc.methods.rmu import RMU, Steer
from froc.training.terms import State


@dataclass(frozen=True)
class SteerEach(Steer):
    """`Steer` with a target of c times the row's own mean hidden norm in the base model."""

    needs: ClassVar[tuple[str, ...]] = ("hidden_norm", "row_norm")

    def target(self, hidden: Tensor, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B, 1, D), of length c * the row's norm."""
        drawn = super().target(hidden, reference, state)
        norm: Tensor = state["norm"]
        return drawn / norm * reference["row_norm"][:, None, None]


@dataclass(frozen=True)
class AdaptiveRMU(RMU):
    """RMU with a target length per forget row: c times the mean norm of its own hidden states in the base model.

    c: 5 in the authors' repository.

    Our reading: norms are those of the frozen model, as in the paper; the repository measures one batch per topic in
    the model under training, and keeps that.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "representation"
    paper: ClassVar[str] = "Huu-Tien et al. 2408.06223; Li et al. 2403.03218"
    standard: ClassVar[bool] = False
    steer: ClassVar[type[Steer]] = SteerEach
