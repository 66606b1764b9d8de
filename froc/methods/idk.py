"""Preference optimisation towards refusals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from froc.forward import Forward
from froc.methods import Facts, Retaining
from froc.params import Choice, Range, hyper
from froc.step import NLL, Part, Phase, Term


@dataclass(frozen=True)
class RefusalPreferred(Term):
    """-(2/beta) log sigmoid(beta [log-ratio(refusal) - log-ratio(answer)]) (DPO 2305.18290; TOFU 2401.06121).

    A log-ratio is the summed log-likelihood minus the base model's. The answer's side was stored by `Remember`
    in the same step, for the refusal rows are the forget rows' questions in the same order.
    """

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)
    alone: ClassVar[bool] = False
    beta: float = 0.1

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: dict[str, Any]) -> Tensor:
        """(B,) losses; 2 ln 2 / beta at the base model."""
        refusal = reference["sum_nll"] - forward.sum_nll
        return -2.0 / self.beta * logsigmoid(self.beta * (refusal - state["answer_ratio"]))


@dataclass(frozen=True)
class Remember(Term):
    """Zero loss: hands the forgotten answer's log-ratio to `RefusalPreferred`, with its gradient."""

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: dict[str, Any]) -> Tensor:
        """(B,) zeros."""
        state["answer_ratio"] = reference["sum_nll"] - forward.sum_nll
        return forward.sum_nll.detach() * 0.0


@dataclass(frozen=True)
class IDK(Retaining):
    """Preference optimisation towards refusals ("I don't know"): DPO with the forgotten answer as the loser.

    beta: inverse temperature of DPO. form: `dpo` prefers the refusal, `nll` only imitates it (TOFU's plain PO).
    """

    paper: ClassVar[str] = "Maini et al. 2401.06121; Rafailov et al. 2305.18290"
    family: ClassVar[str] = "refusal"

    beta: float = hyper(0.1, Range(0.01, 1.0, log=True))
    form: str = hyper("dpo", Choice(("dpo", "nll")))

    def phases(self, facts: Facts) -> tuple[Phase, ...]:
        """One phase: refusal (and forgotten answer) and retain terms."""
        if self.form == "nll":
            return (Phase({"refusal": Part(NLL("refusal")), **self.keep()}),)
        # the forgotten answer's term stands first, since the refusal term reads what it stored
        parts = {"answer": Part(Remember("forget")), "refusal": Part(RefusalPreferred("refusal", self.beta))}
        return (Phase({**parts, **self.keep()}),)
