"""Saturation- and importance-weighted ascent."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods.wga import Likely
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm


@dataclass(frozen=True)
class SatImp(Retaining):
    """Gradient ascent that skips tokens already forgotten and tokens the model is almost sure of.

    Loss: -mean of sg(p^beta1 (1 - p)^beta2) NLL over forget tokens + retain_weight * NLL(retain). Weights are largest
    at p = beta1 / (beta1 + beta2), so a base model that is sure of every token (p = 0.999) has almost no gradient at
    first.

    retain_weight: 0.1 in the authors' code, against 1 for the forget term (OpenUnlearning's configuration reverses
        them). beta1: exponent that fades out forgotten tokens. beta2: exponent that fades out tokens of high
        probability; 0.1 in the authors' README, 1 in OpenUnlearning's (their losses differ by a factor of 9).
    """

    paper: ClassVar[str] = "Yang et al. 2505.11953"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "weighted"

    retain_weight: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))
    beta1: float = hyperparameter(5.0, Range(1.0, 8.0))
    beta2: float = hyperparameter(0.1, Range(0.05, 2.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: weighted ascent and the retain term."""
        forget = WeightedTerm(NLL("forget", sign=-1.0), weighters=(Likely(self.beta1, self.beta2),))
        return (Phase({"forget": forget, **self.retain_terms()}),)
