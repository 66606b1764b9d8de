"""Preference optimisation towards refusals."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._dpo import preferring
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class IDK(Retaining):
    """Preference optimisation towards refusals ("I don't know"): DPO with the forgotten answer as the rejected one.

    form: `dpo` is -(2/beta) log sigmoid(beta [log-ratio(refusal) - log-ratio(answer)]); `nll` is NLL(refusal) only
        (TOFU's plain PO). Both add retain_weight * NLL(retain).
    beta: inverse temperature of `dpo`.

    A log-ratio is the summed log-likelihood minus the base model's. TOFU's code lacks the factor 2/beta; later code has
    it.
    """

    paper: ClassVar[str] = "Maini et al. 2401.06121; Rafailov et al. 2305.18290"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "refusal"
    standard: ClassVar[bool] = True

    form: str = hyperparameter("dpo", Choice(("dpo", "nll")))
    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True), form=("dpo",))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the refusal's, possibly the forgotten answer's, and the retain term."""
        refusal = {"refusal": WeightedTerm(NLL("refusal"))} if self.form == "nll" else preferring("refusal", self.beta)
        return (Phase({**refusal, **self.retain_terms()}),)
