"""Unlearning from a teacher's logits (E2URec)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._teacher import AgainstTeacher, Teacher, rate
from froc.methods.kl_min import BaseDivergence
from froc.models.forward import Forward
from froc.models.likelihood import cross_entropy
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, State, WeightedTerm


@dataclass(frozen=True)
class Lessened(AgainstTeacher):
    """Cross-entropy with softmax(z_base - alpha max(0, z_teacher - z_base)) (2403.03536)."""

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats; at alpha 0 and the base model it is the base's entropy, with zero gradient."""
        return forward.over_logits(cross_entropy, self.lessened(forward, reference).softmax(-1), reference["buckets"])


@dataclass(frozen=True)
class E2URec(Method):
    """Learn the base model's predictions minus what more training on the forget rows would add to the logits.

    L_F = CE(softmax(z*), softmax(z)) on forget rows with z* = z_base - alpha max(0, z_teacher - z_base); the teacher is
    the base model after `teacher_epochs` more passes over the forget rows. One pass of L_F alone is followed by w
    (NLL(retain) + KL(base || theta)(retain)) + (1 - w) L_F with w = retain_share. `epochs` counts both, so at 1 nothing
    holds the retain rows.

    alpha: multiple of the teacher's rise that is subtracted; 2 in the paper.
    retain_share: w; 0.6 in the paper.
    teacher_rate: teacher's learning rate as a multiple of the authors' 5e-5 at width 768, scaled inversely to the
        model's width and times ten for adapters (our reading).
    teacher_epochs: passes over the forget rows.

    Limits: where the teacher learns nothing more, the target is the base's own prediction and nothing is forgotten. On
    rows known by heart the true token's log-probability cannot rise, but its logit does, since AdamW's steps are as
    long for small gradients. alpha times that rise must exceed the margin by which the base prefers the token. On the
    embedded task margins are around 8 nats and rises around 1: alpha below 5 forgets little, hence the range up to 50.
    z* depends on a common shift of all logits between base and teacher, as in the authors' code.
    """

    paper: ClassVar[str] = "Wang et al. 2403.03536"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "distillation"

    alpha: float = hyperparameter(2.0, Range(1.0, 50.0, log=True))
    retain_share: float = hyperparameter(0.6, Range(0.2, 0.9))
    teacher_rate: float = hyperparameter(1.0, Choice((1.0, 2.0)))
    teacher_epochs: int = hyperparameter(3, Choice((1, 3)))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One pass of forgetting, then forgetting with two retain terms."""
        teacher = Teacher(self.teacher_rate * rate(context), self.teacher_epochs)
        lessened = Lessened("forget", self.alpha, context.ask(teacher))
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
