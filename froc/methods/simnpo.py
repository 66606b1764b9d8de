"""Simple negative preference optimisation (SimNPO)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

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

    Loss: forget_weight * -(2/beta) log sigmoid(beta (NLL(forget) - margin)) + retain_weight * NLL(retain), row by row.

    beta: inverse temperature.
    margin: the paper's delta, nats per token.
    forget_weight: the paper's coefficient of the NPO term.
    """

    paper: ClassVar[str] = "Fan et al. 2410.07163"
    family: ClassVar[str] = "preference"
    standard: ClassVar[bool] = True

    beta: float = hyperparameter(4.5, Range(0.5, 6.0))
    margin: float = hyperparameter(0.0, Range(0.0, 4.0))
    forget_weight: float = hyperparameter(0.125, Range(0.02, 2.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference term and the retain term."""
        forget = WeightedTerm(SimpleNegativePreference("forget", self.beta, self.margin), self.forget_weight)
        return (Phase({"forget": forget, **self.retain_terms()}),)
