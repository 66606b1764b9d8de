"""Cross-entropy unlearning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import widened
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class Otherwise(TokenTerm):
    """Cross-entropy with the model's own prediction, the true token ruled out (2503.01224).

    q = softmax of the logits with the true one at -inf, detached: the gradient in the logits is p - q, of L1 norm 2 p(true).
    """

    skip: int = 1

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; 0 for the first `skip` tokens of an answer, scaled so that a row's mean is one over the others."""
        log = widened(forward.logits).log_softmax(-1)
        q = log.detach().scatter(-1, forward.target[:, None], -torch.inf).softmax(-1)
        counted = (forward.place >= self.skip).to(log)
        left = (forward.count - self.skip).clamp_min(1.0)
        return -(q * log.clamp_min(-1e4)).sum(-1) * counted * (forward.count / left)[forward.row]


@dataclass(frozen=True)
class CEU(Retaining):
    """Predict as now, but not the true token: a bounded push on every answer token after the first `skip`.

    CE(sg(q), p), q the model's own softmax without the true token, mean over the tokens that count. Known from OpenUnlearning's
    code, not the authors'. retain_weight: ours; the paper trains on forget rows alone.
    """

    paper: ClassVar[str] = "Yang 2503.01224"
    family: ClassVar[str] = "distillation"

    skip: int = hyperparameter(1, Range(0, 2))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: the self-made target and the retain term."""
        return (Phase({"forget": WeightedTerm(Otherwise("forget", self.skip)), **self.retain_terms()}),)
