"""Gradient ascent."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class GradAscent(Method):
    """Gradient ascent on the forget rows: minimise -NLL(forget), without a retain term.

    Every row counts once, whatever its length, as in all terms here; TOFU's code takes one mean over the tokens of a
    batch. The loss is unbounded below, so long training makes the model collapse; it is the usual lower baseline.
    """

    paper: ClassVar[str] = "Jang et al. 2210.01504; TOFU 2401.06121"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "gradient"
    standard: ClassVar[bool] = True

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, one term."""
        return (Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0))}),)
