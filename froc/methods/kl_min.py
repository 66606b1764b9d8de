"""KL minimisation (KL-Min)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, State, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class BaseDivergence(TokenTerm):
    """KL(base || theta) of the next token at the positions that predict answers, over the stored buckets (TOFU 2401.06121).

    It uses log-probabilities, so a common shift of the logits changes nothing.
    """

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; 0, with zero gradient, at the base model."""
        return forward.over_logits(_divergence, reference["token_distribution"], reference["buckets"])


def _divergence(logits: Tensor, base: Tensor, ids: Tensor) -> Tensor:
    """(n,) nats of (n, V) logits from (n, K) log-probabilities of buckets; see `buckets`."""
    # keeps buckets of base probability 0 finite
    return (base.exp() * (base.clamp_min(-1e4) - buckets(logits, ids).clamp_min(-1e4))).sum(-1)


@dataclass(frozen=True)
class KLMin(Method):
    """Ascent on the forget rows, with the base model's distribution held on the retain rows.

    Loss: -NLL(forget) + retain_weight * KL(base || theta)(retain), averaged over answer tokens (TOFU's code averages
    over prompts and padding, too). Base distributions are stored whole for small tasks, else as the 256 likeliest
    tokens and one bucket for the rest (`froc.training.base_statistics`).

    retain_weight: 1 in TOFU.
    """

    paper: ClassVar[str] = "Maini et al. 2401.06121"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "gradient"

    retain_weight: float = hyperparameter(1.0, Range(0.1, 50.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, two terms."""
        keep = WeightedTerm(BaseDivergence("retain"), self.retain_weight)
        return (Phase({"forget": WeightedTerm(NLL("forget", sign=-1.0)), "retain": keep}),)
