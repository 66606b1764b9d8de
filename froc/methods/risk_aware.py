"""Risk-aware unlearning."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from froc.bounds.betting import Betting
from froc.data.task import UTILITY
from froc.hyperparameters import Range, hyperparameter
from froc.methods.ceu import Otherwise
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, Objective, State, WeightedTerm

LEVEL = 0.1
"""Error level of the test that the margins are of; that of a certificate unless another confidence is asked for."""
CLOSE = 0.2
"""Share of its budget that utility is tested against: forgetting must keep a budget, and utility be as little as can be told."""
SHOWN = 1.25
"""Times ln(1 / LEVEL) / n: a risk that n losses of 0 rule out; the best bettor's would do with 1."""
TELLINGS = 8
"""Looks on the way."""


def shortfall(losses: NDArray[np.int16], budget: float) -> float:
    """How much is missing for the betting test to say that the risk is within the budget: 1 - ln p / ln LEVEL, at least -1.

    1 where the losses say nothing, 0 where p is LEVEL, negative beyond. losses: (n,) whole thousandths.
    """
    p = float(Betting(level=LEVEL).p_value(losses[None], budget)[0])
    return max(-1.0, 1.0 - math.log(p) / math.log(LEVEL))


@dataclass(frozen=True)
class Certifying(Combiner):
    """A step on lambda_f L_f + lambda_r L_r, lambda on the simplex, moved at each look by what the certified risks fall short of.

    lambda_j <- lambda_j exp(rate * shortfall_j), normalised: multiplicative weights, the dual ascent of max over lambda of
    sum_j lambda_j (R_j - budget_j), with the betting test's margin for R_j - budget_j. The forget side takes the largest shortfall
    of all risks but utility. Training is over once utility does not fall short of `CLOSE` times its budget, nor any other of `headroom` times its own.
    """

    rate: float = 0.3
    headroom: float = 0.3
    start: float = 0.45

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """Twice lambda, so that equal sides weigh 1."""
        forget = 1.0 / (1.0 + math.exp(-self._balance(state)))
        return {"forget": 2.0 * forget, "retain": 2.0 * (1.0 - forget)}

    def on_search_losses(
        self, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float], state: State
    ) -> bool:
        """The dual step, on search losses; True once certification is likely."""
        short = {
            risk: shortfall(risk_losses, self._aim(risk, budgets[risk], len(risk_losses)))
            for risk, risk_losses in losses.items()
        }
        forget = max((value for risk, value in short.items() if risk != UTILITY), default=0.0)
        state["balance"] = self._balance(state) + self.rate * (forget - short.get(UTILITY, 0.0))
        return max(short.values(), default=1.0) <= 0.0

    def _aim(self, risk: str, budget: float, count: int) -> float:
        """What a risk is tested against; no less than what `count` losses of 0 could show."""
        if risk != UTILITY:
            return self.headroom * budget
        return min(budget, max(CLOSE * budget, SHOWN * math.log(1.0 / LEVEL) / count))

    def _balance(self, state: State) -> float:
        """ln(lambda_f / lambda_r)."""
        balance: float = state.setdefault("balance", math.log(self.start / (1.0 - self.start)))
        return balance


@dataclass(frozen=True)
class RiskAware(Method):
    """Train under the certified risks themselves: weigh forgetting against retaining by what each lacks, stop when none lacks anything.

    lambda_f CE-U(forget) + lambda_r NLL(retain), CE-U's own prediction without the true token, whose gradient is bounded. At each of
    8 looks the losses of search queries (never calibration ones, and never in a gradient) are put to the betting test, forgetting
    against `headroom` times its budget and utility against a fifth of its own; lambda goes to the side that falls short
    (`Certifying`), and training ends once neither does: both would then be certified with room. Ours, no paper's. dual_rate: of lambda's steps, in e-folds per unit of shortfall.
    forget_share: lambda_f at first.
    """

    paper: ClassVar[str] = "ours; test by Waudby-Smith and Ramdas 2010.09686, term of 2503.01224"
    family: ClassVar[str] = "constrained"

    dual_rate: float = hyperparameter(0.3, Range(0.1, 1.0, log=True))
    headroom: float = hyperparameter(0.3, Range(0.2, 0.6, log=True))
    forget_share: float = hyperparameter(0.45, Range(0.3, 0.6))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: a bounded forget term and the retain rows' likelihood, lambda between them."""
        combiner = Certifying(self.dual_rate, self.headroom, self.forget_share)
        parts = {"forget": WeightedTerm(Otherwise("forget", 0)), "retain": WeightedTerm(NLL("retain"))}
        return (Phase(parts, combiner=combiner),)

    @property
    def n_feedback_evals(self) -> int:
        """Evenly through training; a run that is told nothing goes to its end with lambda as it was."""
        return TELLINGS
