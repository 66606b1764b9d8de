"""Simple negative preference optimisation (SimNPO)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, Term, WeightedTerm


@dataclass(frozen=True)
class SimpleNegativePreference(Term):
    """-(2/beta) log sigmoid(beta (NLL per token - margin)): without a reference model, length-normalised."""

    beta: float = 4.5
    margin: float = 0.0

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; their gradient is 2 sigmoid(-beta (NLL - margin)) times that of -NLL per token."""
        return -2.0 / self.beta * logsigmoid(self.beta * (forward.mean_nll - self.margin))


@dataclass(frozen=True)
class SimNPO(Retaining):
    """NPO without a reference model: length-normalised, with a margin.

    Loss: -(2/beta) log sigmoid(beta (NLL(forget) - margin)) + retain_weight * NLL(retain), row by row.

    beta: inverse temperature, 2.5 to 4.5 in the paper on TOFU.
    margin: the paper's delta, nats per token.
    retain_weight: the paper puts its coefficient on the other term: 0.125 to 0.1375 there are 8 to 7.3 here, since the
        optimiser's steps do not depend on a factor of the whole loss.
    """

    paper: ClassVar[str] = "Fan et al. 2410.07163"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "preference"
    standard: ClassVar[bool] = True

    beta: float = hyperparameter(2.5, Range(0.5, 6.0, log=True))
    margin: float = hyperparameter(0.0, Range(0.0, 2.0))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference term and the retain term."""
        forget = WeightedTerm(SimpleNegativePreference("forget", self.beta, self.margin))
        return (Phase({"forget": forget, **self.retain_terms()}),)
