"""Cross-entropy unlearning (CE-U)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class Otherwise(TokenTerm):
    """Cross-entropy with the model's own prediction after ruling out the true token (2503.01224).

    The target q is the softmax of the logits with the true token's at -inf, without gradient. The gradient with respect
    to the logits is p - q, of L1 norm 2 p(true).
    """

    skip: int = 1

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; 0 for the first `skip` tokens of an answer, and scaled so that a row's mean is over the other tokens."""
        cross_entropy = forward.over_logits(_to_the_others, forward.target)
        counted = (forward.place >= self.skip).to(cross_entropy)
        left = (forward.count - self.skip).clamp_min(1.0)
        return cross_entropy * counted * (forward.count / left)[forward.row]


def _to_the_others(logits: Tensor, target: Tensor) -> Tensor:
    """(n,) cross-entropies of (n, V) logits with their own distribution over all tokens but the (n,) targets."""
    log = logits.log_softmax(-1)
    q = log.detach().scatter(-1, target[:, None], -torch.inf).softmax(-1)
    return -(q * log.clamp_min(-1e4)).sum(-1)


@dataclass(frozen=True)
class CEU(Retaining):
    """Cross-entropy unlearning: learn the model's own prediction without the true token, a bounded push.

    Loss: CE(sg(q), p) + retain_weight * NLL(retain), q the model's softmax without the true token, averaged over the
    answer tokens after the first `skip`. Implemented after OpenUnlearning's code, not the authors'.

    skip: answer tokens at the start that are left out.
    retain_weight: ours; the paper trains on forget rows alone.
    """

    paper: ClassVar[str] = "Yang 2503.01224"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "distillation"

    skip: int = hyperparameter(1, Range(0, 2))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the self-made target and the retain term."""
        return (Phase({"forget": WeightedTerm(Otherwise("forget", self.skip)), **self.retain_terms()}),)
