"""Tamper-resistant safeguards (TAR)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import Parameter

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._combining import norm, plus, restored
from froc.methods.circuit_breakers import Keep
from froc.methods.rmu import Hold, Steer
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, GradientProbe
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, Objective, State, TokenTerm, WeightedTerm, Weights

MAPPED, HOLD = 0.65, 10.0
"""The block at which the first stage steers, as a share of all, and its weight of the retain states (`froc.methods.rmu`)."""
DECAY = 4.0
"""The first of the attack's gradients has a weight of about e to the minus this, the last one 1, as in the authors' script."""


@dataclass(frozen=True)
class Entropy(TokenTerm):
    """Minus the entropy of the next token at the positions that predict the answer; under attack, the answer's NLL."""

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats, in [-ln V, 0]; not negative under attack."""
        return forward.nll if state.get("attacked") else forward.over_logits(_minus_entropy)


def _minus_entropy(logits: Tensor) -> Tensor:
    """(n,) nats of (n, V) logits."""
    log = logits.log_softmax(-1)
    return (log.exp() * log).sum(-1)


@dataclass(frozen=True)
class Tampering(Combiner):
    """scale sum over k of s_k g_f(theta_k) + g_r(theta), theta_k after k steps of an attack that relearns the forget rows.

    The attack descends the forget rows' NLL from theta_0 = theta by steps of root mean square `rate`, which is AdamW's.
    Weights s_k = exp(DECAY (k - steps) / steps) favour the last of them. g_f(theta_k) stands for the
    gradient with respect to theta (first-order MAML).
    """

    needs_probes: ClassVar[bool] = True
    steps: int = 4
    rate: float = 1e-5
    scale: float = 4.0

    @property
    def n_extra_gradients(self) -> float:
        """Two gradients of the forget side per step of the attack, in units of both sides."""
        return float(self.steps)

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """The sum; `parameters` are restored bit by bit."""
        total: Weights = {}
        with restored(parameters):
            for step in range(1, self.steps + 1):
                relearning = self._relearning(probe, state)
                count = sum(grad.numel() for grad in relearning.values())
                factor = self.rate * math.sqrt(count) / max(norm(relearning), 1e-30)
                for name, grad in relearning.items():
                    parameters[name].sub_(grad, alpha=factor)
                weight = self.scale * math.exp(DECAY * (step - self.steps) / self.steps)
                total = plus((1.0, total), (weight, probe("forget")["forget"]))
        return plus((1.0, total), (1.0, gradients.get("retain", {})))

    @staticmethod
    def _relearning(probe: GradientProbe, state: State) -> Weights:
        """Gradient of the forget rows' NLL, which the forget term is under attack (`Entropy`)."""
        state["attacked"] = True
        try:
            return probe("forget")["forget"]
        finally:
            state["attacked"] = False


@dataclass(frozen=True)
class TAR(Method):
    """Forget so that fine-tuning does not bring it back: the forget loss is taken after steps of a simulated relearning attack.

    Stage 1: `rmu`'s loss, |h - norm u|^2 on forget rows + 10 |h - h_base|^2 on retain rows, + retain_weight
    NLL(retain). Stage 2: min over theta of scale sum over k of s_k L_TR(attack_k(theta)) + retain_weight L_R(theta).
    attack_k: k steps of descent on NLL(forget). L_TR: minus the entropy of the predictions of forget answers, so that
    an attack has to start from uniform predictions. L_R: NLL(retain) + mean |h - h_base| of retain states behind the
    middle and the last block. Gradients at the attacked parameters are taken for gradients at theta (first order).

    mapping: share of the steps spent in stage 1 (ours: the authors start from a model that has been through it).
    attack_steps: 64 in the authors' script, of which every fourth is counted; here few, all of which count.
    attack_rate: the attack's step as a multiple of lr; 0.1, 1 and 2 in the authors' script.
    scale: 4 in the authors' script, with a retain term of weight 1.

    Cost of stage 2: 1 + attack_steps times that of gradient difference. In stage 1 the authors turn forget states
    towards a random vector per token. They sample attacks, attack by AdamW (here: normalised gradients), take L_TR on
    other rows than the attack's, and hold retain states behind all blocks; here there is one kind of attack, and the
    step's rows are used for both.

    Limits: without stage 1 the entropy of answers that are known by heart has hardly a gradient, least of all after an
    attack.
    """

    paper: ClassVar[str] = "Tamirisa et al. 2408.00761"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "constrained"

    lr: float = hyperparameter(2e-5, Range(2e-6, 2e-4, log=True))
    retain_weight: float = hyperparameter(1.0, Range(0.1, 20.0, log=True))
    mapping: float = hyperparameter(0.5, Range(0.2, 0.8))
    attack_steps: int = hyperparameter(4, Range(1, 8))
    attack_rate: float = hyperparameter(0.1, Range(0.05, 2.0, log=True))
    scale: float = hyperparameter(4.0, Range(0.5, 8.0, log=True))

    @property
    def can_stop_early(self) -> bool:
        """False: stage 1 alone is another method."""
        return False

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """Mapping, then training under attack. InputError in half precision."""
        if context.half:
            raise InputError("tar moves parameters less than half precision can tell; give --dtype float32")
        held = tuple(dict.fromkeys((context.layers // 2, context.layers - 1)))
        parts = {
            "forget": WeightedTerm(Entropy("forget")),
            "retain": WeightedTerm(NLL("retain"), self.retain_weight),
        }
        parts |= {
            f"keep {layer}": WeightedTerm(Keep("retain", layer), self.retain_weight / len(held)) for layer in held
        }
        layer = round(MAPPED * (context.layers - 1))
        mapping = {
            "map": WeightedTerm(Steer("forget", layer, 1.0, context.seed)),
            "hold": WeightedTerm(Hold("retain", layer), HOLD),
            "retain": WeightedTerm(NLL("retain"), self.retain_weight),
        }
        tampering = Tampering(self.attack_steps, self.attack_rate * self.lr, self.scale)
        return (
            Phase(mapping, step_fraction=self.mapping),
            Phase(parts, step_fraction=1 - self.mapping, combiner=tampering),
        )
