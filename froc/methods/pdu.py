"""Primal-dual unlearning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.models.likelihood import widened
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Term, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class Flatten(TokenTerm):
    """(max z - mean z)^2 of the logits where an answer is predicted: 0 where all tokens are alike (2506.05314).

    Its gradient is 2 (max z - mean z) (e_argmax - 1/V).
    """

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,), not negative."""
        wide = widened(forward.logits)
        return (wide.amax(-1) - wide.mean(-1)) ** 2


@dataclass(frozen=True)
class Excess(Term):
    """NLL per token beyond the base model's."""

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) nats, 0 at the base model."""
        return forward.mean_nll - reference["sum_nll"] / forward.count


@dataclass(frozen=True)
class PrimalDual(Combiner):
    """L_f + lambda (L_r - slack); after each optimiser step lambda <- max(0, lambda + rate (L_r - slack))."""

    needs_losses: ClassVar[bool] = True
    slack: float = 0.3
    rate: float = 5.0
    start: float = 100.0

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """lambda on the retain side."""
        return {"retain": state.setdefault("lambda", self.start)}

    def after_step(self, losses: Mapping[Objective, Tensor], state: State) -> None:
        """The dual step, on the losses of the whole batch."""
        multiplier = state.setdefault("lambda", self.start) + self.rate * (losses["retain"] - self.slack)
        state["lambda"] = torch.as_tensor(multiplier).clamp_min(0.0)


@dataclass(frozen=True)
class PDU(Method):
    """Constrained entropic unlearning: flatten the forget rows' logits as far as the retain loss stays within a slack.

    min (max z - mean z)^2 on forget rows subject to NLL(retain) <= NLL_base(retain) + slack, by a primal step and a dual one in
    turn. The authors give the bound itself, 1 + a times the base model's loss, which says nothing where that loss is 0; their
    warm-up without dual steps is left out. OpenUnlearning's mask stands one token off and its dual steps once per micro-batch;
    ours are where the answer is predicted, and once per optimiser step. slack: nats per token. dual_rate: of lambda's steps.
    dual_start: its first value.
    """

    paper: ClassVar[str] = "Entesari et al. 2506.05314"
    family: ClassVar[str] = "constrained"

    slack: float = hyperparameter(0.3, Range(0.01, 2.0, log=True))
    dual_rate: float = hyperparameter(5.0, Range(0.1, 10.0, log=True))
    dual_start: float = hyperparameter(100.0, Range(1.0, 200.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, two terms, lambda between them."""
        parts = {"forget": WeightedTerm(Flatten("forget")), "retain": WeightedTerm(Excess("retain"))}
        return (Phase(parts, combiner=PrimalDual(self.slack, self.dual_rate, self.dual_start)),)
