"""OFMU without second derivatives."""

from dataclasses import dataclass
from typing import ClassVar

from froc.hyperparameters import Range, hyperparameter
from froc.methods._bilevel import ForgetThenRetain
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class OFMUFirst(Retaining):
    """Climb the forget loss a few steps, then descend the retain loss from there: `ofmu` to first order.

    Inner: `inner_steps` times theta' += eta g_f(theta'), g_f the gradient of the forget rows' NLL, its norm clipped to 1; outer:
    theta <- theta' - eta g_r(theta'). Of OFMU's objectives the cosine of the gradients and the penalty are left out, for both need
    second derivatives. The step handed to AdamW is g_r(theta') - sum of the clipped g_f. inner_rate: eta where gradients are
    taken, as a share of the parameters' norm; towards 0 this is gradient difference with a clipped ascent. retain_weight: ours.
    """

    paper: ClassVar[str] = "after Asif and Amiri 2509.22483"
    family: ClassVar[str] = "constrained"

    inner_steps: int = hyperparameter(1, Range(1, 3))
    inner_rate: float = hyperparameter(1e-3, Range(1e-4, 1e-2, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, whose combiner looks ahead."""
        return (
            Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0)), **self.retain_terms()}, combiner=self.combiner()),
        )

    def combiner(self) -> ForgetThenRetain:
        """How the two sides become one step."""
        return ForgetThenRetain(self.inner_steps, self.inner_rate)
