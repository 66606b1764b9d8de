"""Alternate preference optimisation (AltPO)."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._dpo import preferring
from froc.training.alternates import Alternates
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase


@dataclass(frozen=True)
class AltPO(Retaining):
    """Prefer another plausible answer to the forgotten one: DPO with an alternate that the base model writes.

    Loss: -(2/beta) log sigmoid(beta [log-ratio(alternate) - log-ratio(answer)]) + retain_weight * NLL(retain); a
    log-ratio is the summed log-likelihood minus the base model's.

    beta: inverse temperature.

    Our reading: one alternate is drawn from the base model with the true answer's first token ruled out, so that it
    differs for any model; the authors ask an instruct model for five altered answers. An alternate that states the same
    fact in other words is not detected.
    """

    paper: ClassVar[str] = "Mekala et al. 2409.13474"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "preference"

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference and the retain term."""
        parts = {**preferring("alternate", self.beta), **self.retain_terms()}
        return (Phase(parts, sources={"alternate": Alternates()}),)
