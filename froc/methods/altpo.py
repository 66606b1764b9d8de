"""Alternate preference optimisation."""

from dataclasses import dataclass
from typing import ClassVar

from froc.hyperparameters import Range, hyperparameter
from froc.methods._dpo import preferring
from froc.training.alternates import Alternates
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase


@dataclass(frozen=True)
class AltPO(Retaining):
    """Prefer another plausible answer to the forgotten one: DPO whose winner the base model has written itself.

    -(2/beta) log sigmoid(beta [log-ratio(alternate) - log-ratio(answer)]) + retain_weight * NLL(retain). The authors ask an instruct
    model for five changed versions; we draw one from the base model with the true answer's first token ruled out, so that it
    differs whatever the model. An alternate that states the same fact otherwise is not noticed.
    """

    paper: ClassVar[str] = "Mekala et al. 2409.13474"
    family: ClassVar[str] = "preference"

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference and the retain term."""
        parts = {**preferring("alternate", self.beta), **self.retain_terms()}
        return (Phase(parts, sources={"alternate": Alternates()}),)
