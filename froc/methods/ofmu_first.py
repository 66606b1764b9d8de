"""OFMU without second derivatives."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._bilevel import ForgetThenRetain
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class OFMUFirst(Retaining):
    """Ascend the forget loss a few steps, then descend the retain loss from there: `ofmu` to first order.

    Inner: `inner_steps` times theta' += eta g_f(theta'), g_f the gradient of NLL(forget) with its norm clipped to 1.
    Outer: theta <- theta' - eta g_r(theta'). AdamW receives g_r(theta') - sum of the clipped g_f. OFMU's cosine and
    penalty are left out, since both need second derivatives.

    inner_steps: number of ascents.
    inner_rate: eta for taking gradients, as a share of the parameters' norm; towards 0 the method is gradient
        difference with a clipped ascent.
    retain_weight: ours.
    """

    paper: ClassVar[str] = "after Asif and Amiri 2509.22483"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "constrained"

    inner_steps: int = hyperparameter(1, Range(1, 3))
    inner_rate: float = hyperparameter(1e-3, Range(1e-4, 1e-2, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, whose combiner takes gradients at points ahead."""
        return (
            Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0)), **self.retain_terms()}, combiner=self.combiner()),
        )

    def combiner(self) -> ForgetThenRetain:
        """How both sides become one step."""
        return ForgetThenRetain(self.inner_steps, self.inner_rate)
