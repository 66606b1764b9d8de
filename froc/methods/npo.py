"""Negative preference optimisation."""

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
class NegativePreference(Term):
    """-(2/beta) log sigmoid(beta (NLL - NLL_base)), with the NLL summed over the answer (2404.05868, eq. 3).

    Its gradient is W times that of -NLL, W = 2 p^beta / (p^beta + p_base^beta) with p the answer's probability: W is 1
    at the base model and falls to 0 as the answer is forgotten.
    """

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)
    beta: float = 0.1

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; 2 ln 2 / beta at the base model."""
        return -2.0 / self.beta * logsigmoid(self.beta * (forward.sum_nll - reference["sum_nll"]))


@dataclass(frozen=True)
class NPO(Retaining):
    """Negative preference optimisation: gradient ascent that fades out on answers that are already forgotten.

    Loss: -(2/beta) log sigmoid(beta (NLL - NLL_base)) on forget rows, NLL summed over the answer, + retain_weight *
    NLL(retain).

    beta: inverse temperature; towards 0 the forget term becomes gradient ascent on the summed NLL.
    """

    paper: ClassVar[str] = "Zhang et al. 2404.05868"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "preference"
    standard: ClassVar[bool] = True

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference term and the retain term."""
        return (Phase({"forget": WeightedTerm(NegativePreference("forget", self.beta)), **self.retain_terms()}),)
