"""KL minimisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, State, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class BaseDivergence(TokenTerm):
    """KL(base || theta) of the next token, over the buckets that the reference keeps (TOFU 2401.06121).

    On log-probabilities, so a shift of logits changes nothing; only where an answer is predicted, so padding does not either.
    """

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; 0, with zero gradient, at the base model."""
        base = reference["token_distribution"]
        ours = buckets(forward.logits, reference["buckets"])
        # a bucket that the base model rules out has no share
        return (base.exp() * (base.clamp_min(-1e4) - ours.clamp_min(-1e4))).sum(-1)


@dataclass(frozen=True)
class KLMin(Method):
    """Ascent on the forget rows, the base model's distribution held on the retain rows.

    -NLL(forget) + retain_weight * KL(base || theta)(retain), a mean over answer tokens. TOFU's code takes the mean over
    prompts and padding too; we take answers alone. The base's distributions are kept whole for small tasks, else of the 256
    likeliest tokens and the rest as one (`froc.training.base_statistics`). retain_weight: 1 in TOFU.
    """

    paper: ClassVar[str] = "Maini et al. 2401.06121"
    family: ClassVar[str] = "gradient"

    retain_weight: float = hyperparameter(1.0, Range(0.1, 50.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, two terms."""
        keep = WeightedTerm(BaseDivergence("retain"), self.retain_weight)
        return (Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0)), "retain": keep}),)
