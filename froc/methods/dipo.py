"""Distribution preference optimisation (DiPO)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, Term, WeightedTerm


@dataclass(frozen=True)
class DistributionPreference(Term):
    """-(2/beta) log sigmoid(beta S), S = sum over answer tokens of E_{fgt - mem}[log p_theta - log p_base] (2510.04773, our reading).

    S equals [KL(fgt||base) - KL(fgt||theta)] - [KL(mem||base) - KL(mem||theta)], each summed over the answer. fgt and
    mem are base distributions with the `top` likeliest logits lowered or raised: softmax(z -+ strength max(0, z -
    z_(top + 1))). A shift of all logits changes neither.
    """

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)
    beta: float = 0.1
    strength: float = 1.0
    top: int = 10

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; 2 ln 2 / beta at the base model."""
        preference = forward.over_logits(self._preferred, reference["token_distribution"], reference["buckets"])
        return -2.0 / self.beta * logsigmoid(self.beta * forward.sum(preference))

    def _preferred(self, logits: Tensor, base: Tensor, ids: Tensor) -> Tensor:
        """(n,) summands of S from (n, V) logits and (n, K) base log-probabilities."""
        base = base.clamp_min(-1e4)
        fgt, mem = self.pair(base, bool(ids.numel()))
        return ((fgt - mem) * (buckets(logits, ids).clamp_min(-1e4) - base)).sum(-1)

    def pair(self, base: Tensor, rest: bool) -> tuple[Tensor, Tensor]:
        """(N, K) probabilities fgt and mem from (N, K) log-probabilities.

        rest: whether the last bucket holds all other tokens together.
        """
        tokens = base[..., :-1] if rest else base
        top = min(self.top, tokens.shape[-1] - 1)
        above = (base - tokens.topk(top + 1).values[..., -1:]).clamp_min(0.0)
        if rest:
            # the bucket of all other tokens is not a token, whatever its total probability
            above[..., -1] = 0.0
        return (base - self.strength * above).softmax(-1), (base + self.strength * above).softmax(-1)


@dataclass(frozen=True)
class DiPO(Retaining):
    """Prefer the base distribution with its likeliest tokens suppressed to the one with them amplified (our reading).

    Loss: -(2/beta) log sigmoid(beta S) + retain_weight * NLL(retain), S = sum over answer tokens of E_{fgt - mem}[log
    p_theta - log p_base]: a Bradley-Terry model on sequence KL divergences. The preferred fgt = softmax(z - a m) and
    the rejected mem = softmax(z + a m) come from the base model's next-token logits z; m is the height of each of the
    `top` likeliest logits above the next one, 0 elsewhere.

    beta: inverse temperature; S is in nats, so a large beta ends the push early.
    strength: a; at 1 the `top` tokens are as likely as the next one under fgt, beyond 1 less likely.
    top: number of suppressed tokens.

    Our reading: the paper's text could not be read. Known are the pair of suppressed and amplified likeliest logits,
    the Bradley-Terry form and the sequence KL. Ours are the base model as source, m, the factor 2/beta (NPO's: at the
    base model the gradient is that of S), the retain term and all ranges. Where base distributions are stored as the
    likeliest tokens and one bucket for the rest (`froc.training.base_statistics`), divergences are over these buckets.
    """

    paper: ClassVar[str] = "Qin et al. 2510.04773 (our reading)"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "preference"

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))
    strength: float = hyperparameter(1.0, Range(0.5, 5.0, log=True))
    top: int = hyperparameter(10, Range(1, 100, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference between distributions and the retain term."""
        forget = WeightedTerm(DistributionPreference("forget", self.beta, self.strength, self.top))
        return (Phase({"forget": forget, **self.retain_terms()}),)
