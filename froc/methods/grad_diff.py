"""Gradient difference."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class GradDiff(Retaining):
    """Gradient difference: ascent on the forget rows, descent on the retain rows.

    Loss: -NLL(forget) + retain_weight * NLL(retain).
    """

    paper: ClassVar[str] = "Liu et al. 2203.12817; TOFU 2401.06121"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "gradient"
    standard: ClassVar[bool] = True

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, two terms."""
        return (Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0)), **self.retain_terms()}),)
