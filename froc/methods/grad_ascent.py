"""Gradient ascent."""

from dataclasses import dataclass
from typing import ClassVar

from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class GradAscent(Method):
    """Gradient ascent on the forget rows: minimise -NLL per answer token; nothing holds the rest.

    Each row counts once, whatever its length, as in all of our terms; TOFU's code takes one mean over the tokens of a batch.
    Unbounded below, so the model collapses when trained for long; the usual lower baseline.
    """

    paper: ClassVar[str] = "Jang et al. 2210.01504; TOFU 2401.06121"
    family: ClassVar[str] = "gradient"
    standard: ClassVar[bool] = True

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, one term."""
        return (Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0))}),)
