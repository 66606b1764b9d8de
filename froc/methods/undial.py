"""Self-distillation from adjusted logits (UNDIAL)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import cross_entropy
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class Distill(TokenTerm):
    """Cross-entropy with the target q(v) proportional to p_base(v) exp(-beta [v = true token]) (2402.10052)."""

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)
    beta: float = 10.0

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; never below the target's entropy."""
        base, ids = reference["token_distribution"], reference["buckets"]
        # where only the likeliest tokens are stored, the true one is the first bucket
        true = torch.zeros_like(forward.target) if ids.numel() else forward.target
        lowered = base.scatter_add(-1, true[:, None], torch.full_like(base[:, :1], -self.beta))
        return forward.over_logits(cross_entropy, lowered.softmax(-1), ids)


@dataclass(frozen=True)
class UNDIAL(Retaining):
    """Distil from the base model with the true token's logit lowered by beta; the rest of its prediction is kept.

    Loss: CE(softmax(z_base - beta e_y), softmax(z)), averaged over answer tokens (the authors' code averages over
    prompts and padding, too), + retain_weight * NLL(retain).

    lr: 1e-4 in OpenUnlearning.
    beta: logits, 10 in OpenUnlearning. Below the base model's margin for the true token, that token stays the
        likeliest; base models that know their rows by heart have margins around 10.
    retain_weight: 0 in the paper.
    """

    paper: ClassVar[str] = "Dong et al. 2402.10052"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "distillation"

    lr: float = hyperparameter(1e-4, Range(1e-5, 3e-4, log=True))
    beta: float = hyperparameter(10.0, Range(3.0, 30.0))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: distillation on forget rows, likelihood on retain rows."""
        return (Phase({"forget": WeightedTerm(Distill("forget", self.beta)), **self.retain_terms()}),)
