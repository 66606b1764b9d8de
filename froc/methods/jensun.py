"""Unlearning by the Jensen-Shannon divergence (JensUn)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import buckets, token_nll
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import State, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class Refusals(BaseModelQuery[tuple[Tensor, Tensor]]):
    """The tokens of each forget row's refusal, without its end."""

    def compute(self, reference: BaseStatistics) -> tuple[Tensor, Tensor]:
        """(forget rows, longest) int64 tokens, padded with 0, and (forget rows,) their number. InputError without refusals."""
        reference.ensure("refusal")
        rows = [torch.tensor(row.answer_ids) for row in reference.pools.rows["refusal"]]
        count = torch.tensor([len(row) for row in rows])
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return tokens.to(reference.base.device), count.to(reference.base.device)

    def placeholder(self, context: MethodContext) -> tuple[Tensor, Tensor]:
        """One row of one token."""
        return torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)


@dataclass(frozen=True)
class TowardsRefusal(TokenTerm):
    """JS(e_v || p) at each position that predicts the answer or its end, v the refusal's tokens over and over (2509.02820).

    Against a single token the divergence is a function of its probability p_v alone: ln 2 + (p_v ln p_v - (1 + p_v)
    ln(1 + p_v)) / 2, which is ln 2 at p_v = 0 and 0 at p_v = 1.

    refusal, count: each forget row's tokens and their number; see `Refusals`.
    """

    refusal: Tensor = field(compare=False, repr=False)
    count: Tensor = field(compare=False, repr=False)

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats, in [0, ln 2]."""
        row = reference["row"][forward.row]
        label = self.refusal[row, forward.place % self.count[row]]
        p = torch.exp(-forward.over_logits(token_nll, label))
        return math.log(2.0) + (torch.xlogy(p, p) - (1.0 + p) * torch.log1p(p)) / 2


@dataclass(frozen=True)
class BaseLikeness(TokenTerm):
    """JS(base || theta) of the next token at the positions that predict answers, over the stored buckets."""

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats, in [0, ln 2]; 0, with zero gradient, at the base model."""
        return forward.over_logits(_divergence, reference["token_distribution"], reference["buckets"])


def _divergence(logits: Tensor, base: Tensor, ids: Tensor) -> Tensor:
    """(n,) nats of (n, V) logits from (n, K) log-probabilities of buckets."""
    # keeps buckets of probability 0 finite
    now, before = buckets(logits, ids).clamp_min(-1e4), base.clamp_min(-1e4)
    middle = torch.logaddexp(now, before) - math.log(2.0)
    return ((now.exp() * (now - middle) + before.exp() * (before - middle)) / 2).sum(-1)


@dataclass(frozen=True)
class JensUn(Method):
    """Move the predictions of forget answers towards a refusal's tokens, and hold those of retain answers, by one bounded divergence.

    Loss: L_F + retain_weight * L_R. L_F = JS(e_v || p_theta) averaged over the positions of the forget answer and its
    end, with the true answer as context; e_v is the one-hot distribution of the refusal's token for that position, its
    tokens repeated until the answer's end. L_R = JS(p_base || p_theta) over the positions of retain answers. JS(p || q)
    = KL(p || m)/2 + KL(q || m)/2 with m = (p + q)/2, at most ln 2.

    lr: 8e-6 in the authors' scripts.
    retain_weight: the paper's lambda_R relative to lambda_F; both are 1 in the authors' scripts.

    Limits: the gradient in p_v vanishes at p_v = 0, so a refusal that the base model never gives is learnt slowly.

    The authors repeat "No idea" for all rows; here each row has the refusal that is drawn for it. They clamp
    probabilities at 1e-9 and m at 1e-10; here nothing is clamped.
    """

    paper: ClassVar[str] = "Singh et al. 2509.02820"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "distillation"

    retain_weight: float = hyperparameter(1.0, Range(0.1, 20.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, two terms."""
        parts = {
            "forget": WeightedTerm(TowardsRefusal("forget", *context.ask(Refusals()))),
            "retain": WeightedTerm(BaseLikeness("retain"), self.retain_weight),
        }
        return (Phase(parts, reads=("refusal",)),)
