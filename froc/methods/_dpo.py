"""Direct preference optimisation (DPO) with the forgotten answer as the rejected one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from froc.models.forward import Forward
from froc.training.base_statistics import Role
from froc.training.terms import State, Term, WeightedTerm


@dataclass(frozen=True)
class Preferred(Term):
    """-(2/beta) log sigmoid(beta [log-ratio(preferred) - log-ratio(forgotten)]) (DPO 2305.18290; TOFU 2401.06121).

    A log-ratio is the summed log-likelihood minus the base model's. `Remember` stores the forgotten answers' log-ratios
    earlier in the same step: the preferred answers belong to the forget rows' questions, in the same order.
    """

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)
    row_separable: ClassVar[bool] = False
    beta: float = 0.1

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses; 2 ln 2 / beta at the base model."""
        winner = reference["sum_nll"] - forward.sum_nll
        return -2.0 / self.beta * logsigmoid(self.beta * (winner - state["answer_ratio"]))


@dataclass(frozen=True)
class Remember(Term):
    """Zero loss that hands the forgotten answer's log-ratio, with its gradient, to `Preferred`."""

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) zeros."""
        state["answer_ratio"] = reference["sum_nll"] - forward.sum_nll
        return forward.sum_nll.detach() * 0.0


def preferring(winner: Role, beta: float) -> dict[str, WeightedTerm]:
    """Both terms. The forgotten answer's comes first, because the other reads what it stores."""
    return {"answer": WeightedTerm(Remember("forget")), "winner": WeightedTerm(Preferred(winner, beta))}
