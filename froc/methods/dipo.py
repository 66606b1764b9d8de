"""Distribution preference optimisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, Term, WeightedTerm


@dataclass(frozen=True)
class DistributionPreference(Term):
    """-(2/beta) log sigmoid(beta sum_t E_{fgt - mem}[log p_theta - log p_base]) (2510.04773, our reading).

    The sum is [KL(fgt||base) - KL(fgt||theta)] - [KL(mem||base) - KL(mem||theta)], each summed over the answer. fgt and mem are the
    base's distributions with the `top` likeliest logits, measured from the next one, taken away or added `strength` times:
    softmax(z -+ strength max(0, z - z_(top + 1))), which no shift of logits changes.
    """

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)
    beta: float = 0.1
    strength: float = 1.0
    top: int = 10

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; 2 ln 2 / beta at the base model."""
        base, ids = reference["token_distribution"].clamp_min(-1e4), reference["buckets"]
        ratio = buckets(forward.logits, ids).clamp_min(-1e4) - base
        fgt, mem = self.pair(base, bool(ids.numel()))
        return -2.0 / self.beta * logsigmoid(self.beta * forward.sum(((fgt - mem) * ratio).sum(-1)))

    def pair(self, base: Tensor, rest: bool) -> tuple[Tensor, Tensor]:
        """(N, K) probabilities that promote forgetting and memory, of (N, K) log-probabilities. rest: whether the last is all others'."""
        tokens = base[..., :-1] if rest else base
        top = min(self.top, tokens.shape[-1] - 1)
        above = (base - tokens.topk(top + 1).values[..., -1:]).clamp_min(0.0)
        if rest:
            # the others are no token, however much they weigh together
            above[..., -1] = 0.0
        return (base - self.strength * above).softmax(-1), (base + self.strength * above).softmax(-1)


@dataclass(frozen=True)
class DiPO(Retaining):
    """Prefer a distribution without its likeliest tokens to one made surer (our reading: the paper's text could not be read).

    -(2/beta) log sigmoid(beta S) + retain_weight * NLL(retain), S = sum_t E_{fgt - mem}[log p_theta - log p_base] over the answer:
    Bradley-Terry on sequence KL divergences, whose winner fgt = softmax(z - a m) and loser mem = softmax(z + a m) come from the base
    model's next-token logits z; m is how far each of the `top` likeliest stands above the next one, 0 elsewhere. Known of the paper
    are the pair of suppressed and amplified likeliest logits, the Bradley-Terry form and the sequence KL. Ours are the base as
    source, m, the factor 2/beta (NPO's: at the base the gradient is S's), the retain term and all ranges. strength: a; at 1 the `top`
    are as likely as the next one under fgt, beyond 1 less likely. beta: inverse temperature; S is in nats, so a large beta ends the
    push early. Where the base's distributions are kept of its likeliest tokens and the rest as one, the divergences are of these
    buckets (`froc.training.base_statistics`).
    """

    paper: ClassVar[str] = "Qin et al. 2510.04773 (our reading)"
    family: ClassVar[str] = "preference"

    beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))
    strength: float = hyperparameter(1.0, Range(0.5, 5.0, log=True))
    top: int = hyperparameter(10, Range(1, 100, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the preference between distributions and the retain term."""
        forget = WeightedTerm(DistributionPreference("forget", self.beta, self.strength, self.top))
        return (Phase({"forget": forget, **self.retain_terms()}),)
