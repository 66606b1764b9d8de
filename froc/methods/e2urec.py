"""Unlearning towards a teacher's lessened logits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._teacher import Rise, Teacher
from froc.methods.kl_min import BaseDivergence
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, State, TokenTerm, WeightedTerm

PER_WIDTH = 5e-5 * 768
"""The authors' learning rate of the teacher times the width of their T5-base: wide models take small steps."""
FOR_ADAPTERS = 10.0
"""How much longer steps of adapters are, as ranges of learning rates usually have it."""


@dataclass(frozen=True)
class Lessened(TokenTerm):
    """Cross-entropy with softmax(z_base - alpha max(0, z_teacher - z_base)) (2403.03536)."""

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)
    alpha: float
    rise: Rise = field(compare=False, repr=False)

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; at alpha 0 the base model's entropy, with zero gradient, at the base model."""
        base, ids = reference["token_distribution"], reference["buckets"]
        rise = self.rise.of(reference["row"][forward.row], forward.place)
        return -((base - self.alpha * rise).softmax(-1) * buckets(forward.logits, ids).clamp_min(-1e4)).sum(-1)


@dataclass(frozen=True)
class E2URec(Method):
    """Learn from the base model without what more training on the forget rows would add to its logits.

    L_F = CE(softmax(z*), softmax(z)) on forget rows, z* = z_base - alpha max(0, z_teacher - z_base); the teacher is the base trained on
    the forget rows for `teacher_epochs` passes more. First one pass of L_F alone, then w (NLL(retain) + KL(base || theta)(retain)) +
    (1 - w) L_F, w = retain_share; `epochs` counts both, so 1 holds nothing. The authors take alpha 2, w 0.6, and 5e-5 for a teacher
    of width 768. teacher_rate: of that rate, scaled by the model's width, ten times as much for adapters (our reading).

    Where the teacher learns nothing more, the target is the base's own prediction and nothing is forgotten. Of rows known by heart
    the true token's log-probability cannot rise, but its logit does, for AdamW's steps are as long for small gradients. alpha times
    that rise must outdo the margin by which the base prefers the token. On the embedded task margins are around 8 nats and rises
    around 1: alpha below 5 forgets little there, hence a range up to 50. z* changes with a shift of all logits between base and
    teacher, as the authors' does.
    """

    paper: ClassVar[str] = "Wang et al. 2403.03536"
    family: ClassVar[str] = "distillation"

    alpha: float = hyperparameter(2.0, Range(1.0, 50.0, log=True))
    retain_share: float = hyperparameter(0.6, Range(0.2, 0.9))
    teacher_rate: float = hyperparameter(1.0, Choice((1.0, 2.0)))
    teacher_epochs: int = hyperparameter(3, Choice((1, 3)))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """A pass of forgetting, then forgetting and two retain terms."""
        rate = self.teacher_rate * PER_WIDTH / context.width * (FOR_ADAPTERS if context.adapters else 1.0)
        lessened = Lessened("forget", self.alpha, context.ask(Teacher(rate, self.teacher_epochs)))
        alone = Phase({"forget": WeightedTerm(lessened)}, step_fraction=1 / self.epochs)
        if self.epochs == 1:
            return (alone,)
        parts = {
            "forget": WeightedTerm(lessened, 1 - self.retain_share),
            "retain": WeightedTerm(NLL("retain"), self.retain_share),
            "hold": WeightedTerm(BaseDivergence("retain"), self.retain_share),
        }
        return (alone, Phase(parts, step_fraction=1 - 1 / self.epochs))

    @property
    def can_stop_early(self) -> bool:
        """No: the first pass holds nothing, so the way is worse than the end where it counts."""
        return False
