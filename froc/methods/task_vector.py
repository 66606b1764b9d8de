"""Task-vector negation."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class TaskVector(Method):
    """Train further on the forget rows, then move the opposite way: theta_0 - scale * (theta_ft - theta_0).

    theta_ft minimises NLL(forget) from the base parameters theta_0. Where the base knows the rows by heart, the vector
    is short and noisy. Training moves away from the result until the end, so early stops are not candidates.

    scale: multiple of the task vector that is subtracted; 5 in MUSE's scripts.
    """

    paper: ClassVar[str] = "Ilharco et al. 2212.04089; MUSE 2407.06460"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "edit"

    scale: float = hyperparameter(5.0, Range(0.5, 20.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase of descent."""
        return (Phase({"learn": WeightedTerm(NLL("forget"))}),)

    @property
    def mix(self) -> float:
        """Negative: the result lies beyond the base, opposite to the trained parameters."""
        return -self.scale
