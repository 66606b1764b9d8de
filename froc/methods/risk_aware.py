"""Risk-aware unlearning: training is steered by the risks that a certificate tests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from froc.bounds.betting import Betting
from froc.data.task import UTILITY
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods.ceu import Otherwise
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, Objective, State, WeightedTerm

LEVEL = 0.1
"""Error level of the betting test in training; also the default of a certificate."""
CLOSE = 0.2
"""Utility is tested against this share of its budget: forgetting has to keep its budget, utility has to be as small as can be shown."""
SHOWN = 1.25
"""Multiple of ln(1 / LEVEL) / n: a risk that n losses of 0 rule out. The best possible bettor would manage 1."""
TELLINGS = 8
"""Number of times that search losses are reported during training."""


def shortfall(losses: NDArray[np.int16], budget: float) -> float:
    """How far the betting test is from certifying that the risk is within the budget: 1 - ln p / ln LEVEL, at least -1.

    It is 1 where the losses show nothing (p = 1), 0 at p = LEVEL, and negative beyond.

    losses: (n,) int16, in whole thousandths.
    budget: largest allowed risk, in [0, 1].
    """
    p = float(Betting(level=LEVEL).p_value(losses[None], budget)[0])
    return max(-1.0, 1.0 - math.log(p) / math.log(LEVEL))


@dataclass(frozen=True)
class Certifying(Combiner):
    """Balances lambda_f L_f + lambda_r L_r by how far each side's risks are from being certified.

    At each report of search losses lambda_j <- lambda_j exp(rate * shortfall_j), normalised to sum 1: multiplicative
    weights, the dual ascent of max over lambda of sum_j lambda_j (R_j - budget_j) with the betting test's margin in
    place of R_j - budget_j. The forget side takes the largest shortfall of all risks but utility. Training ends once
    utility has no shortfall against `CLOSE` times its budget and no other risk has one against `headroom` times its
    own.

    rate: dual step size.
    headroom: share of their budgets that the other risks are tested against.
    start: initial lambda_f.
    """

    rate: float = 0.3
    headroom: float = 0.3
    start: float = 0.45

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """Twice lambda, so that equal sides weigh 1 each."""
        forget = 1.0 / (1.0 + math.exp(-self._balance(state)))
        return {"forget": 2.0 * forget, "retain": 2.0 * (1.0 - forget)}

    def on_search_losses(
        self, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float], state: State
    ) -> bool:
        """The dual step; True (stop training) once certification is likely."""
        short = {
            risk: shortfall(risk_losses, self._aim(risk, budgets[risk], len(risk_losses)))
            for risk, risk_losses in losses.items()
        }
        forget = max((value for risk, value in short.items() if risk != UTILITY), default=0.0)
        state["balance"] = self._balance(state) + self.rate * (forget - short.get(UTILITY, 0.0))
        return max(short.values(), default=1.0) <= 0.0

    def _aim(self, risk: str, budget: float, count: int) -> float:
        """The level that a risk is tested against; for utility not below what `count` losses of 0 could show."""
        if risk != UTILITY:
            return self.headroom * budget
        return min(budget, max(CLOSE * budget, SHOWN * math.log(1.0 / LEVEL) / count))

    def _balance(self, state: State) -> float:
        """ln(lambda_f / lambda_r)."""
        balance: float = state.setdefault("balance", math.log(self.start / (1.0 - self.start)))
        return balance


@dataclass(frozen=True)
class RiskAware(Method):
    """Train under the certified risks: balance forgetting and retaining by their shortfalls, stop once both would certify.

    Loss: lambda_f CE-U(forget) + lambda_r NLL(retain). CE-U is the cross-entropy with the model's own prediction
    without the true token (`ceu`), whose gradient is bounded. At 8 points in training, losses of search queries (never
    of calibration queries, and never in a gradient) go through the betting test: forgetting against `headroom` times
    its budget, utility against a fifth of its own. lambda moves to the side that falls short (`Certifying`); training
    ends once neither does. This method is ours.

    dual_rate: step size of ln lambda per unit of shortfall.
    headroom: share of the forgetting budget to aim for.
    forget_share: initial lambda_f.
    """

    paper: ClassVar[str] = "ours; test by Waudby-Smith and Ramdas 2010.09686, term of 2503.01224"
    fidelity: ClassVar[Fidelity] = "own"
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
        """Evenly through training; a run without such reports trains to the end with the initial lambda."""
        return TELLINGS
