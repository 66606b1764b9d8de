"""Primal-dual unlearning (PDU)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Term, TokenTerm, WeightedTerm


@dataclass(frozen=True)
class Flatten(TokenTerm):
    """(max z - mean z)^2 of the logits at the positions that predict an answer (2506.05314); 0 where all logits are equal.

    Its gradient is 2 (max z - mean z) (e_argmax - 1/V), with V the vocabulary size.
    """

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,), not negative."""
        return forward.over_logits(lambda logits: (logits.amax(-1) - logits.mean(-1)) ** 2)


@dataclass(frozen=True)
class Excess(Term):
    """NLL per token in excess of the base model's."""

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) nats, 0 at the base model."""
        return forward.mean_nll - reference["sum_nll"] / forward.count


@dataclass(frozen=True)
class PrimalDual(Combiner):
    """L_f + lambda (L_r - slack); after each optimiser step lambda <- max(0, lambda + rate (L_r - slack)).

    slack: allowed retain loss, nats per token above the base model's.
    rate: step size of lambda.
    start: initial lambda.
    """

    needs_losses: ClassVar[bool] = True
    slack: float = 0.3
    rate: float = 5.0
    start: float = 100.0

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """lambda as the weight of the retain side."""
        return {"retain": state.setdefault("lambda", self.start)}

    def after_step(self, losses: Mapping[Objective, Tensor], state: State) -> None:
        """The dual step, on the losses of the whole batch."""
        multiplier = state.setdefault("lambda", self.start) + self.rate * (losses["retain"] - self.slack)
        state["lambda"] = torch.as_tensor(multiplier).clamp_min(0.0)


@dataclass(frozen=True)
class PDU(Method):
    """Flatten the logits on forget rows as far as the retain loss stays within a slack (primal-dual training).

    min (max z - mean z)^2 on forget rows subject to NLL(retain) <= NLL_base(retain) + slack, by alternating primal and
    dual steps: loss L_f + lambda (L_r - slack), then lambda <- max(0, lambda + dual_rate (L_r - slack)).

    slack: nats per token.
    dual_rate: step size of lambda.
    dual_start: initial lambda.

    Our reading: the slack is added to the base model's loss; the authors bound by 1 + a times that loss, which is no
    bound where it is 0. Their warm-up without dual steps is left out. OpenUnlearning's mask is shifted by one token and
    it takes a dual step per micro-batch; here positions are those that predict the answer, and there is one dual step
    per optimiser step.
    """

    paper: ClassVar[str] = "Entesari et al. 2506.05314"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "constrained"

    slack: float = hyperparameter(0.3, Range(0.01, 2.0, log=True))
    dual_rate: float = hyperparameter(5.0, Range(0.1, 10.0, log=True))
    dual_start: float = hyperparameter(100.0, Range(1.0, 200.0, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, two terms, lambda between them."""
        parts = {"forget": WeightedTerm(Flatten("forget")), "retain": WeightedTerm(Excess("retain"))}
        return (Phase(parts, combiner=PrimalDual(self.slack, self.dual_rate, self.dual_start)),)
