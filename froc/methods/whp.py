"""Unlearning by generic labels (Who's Harry Potter?)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._teacher import AgainstTeacher, Teacher, rate
from froc.models.forward import Forward
from froc.models.likelihood import token_nll
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, WeightedTerm


@dataclass(frozen=True)
class Generic(AgainstTeacher):
    """NLL of the generic token argmax(v_baseline - alpha relu(v_reinforced - v_baseline)) in the answer token's place (2310.02238)."""

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) nats."""
        generic, ids = self.lessened(forward, reference), reference["buckets"]
        # the last of several buckets is all other tokens, none of which can be learnt
        known = generic[:, : ids.shape[-1]] if ids.numel() else generic
        likeliest = known.argmax(-1, keepdim=True)
        label = ids.gather(-1, likeliest) if ids.numel() else likeliest
        return forward.over_logits(token_nll, label[:, 0])


@dataclass(frozen=True)
class WHP(Retaining):
    """Learn what a model would say that never knew the text: the base model's likeliest token after what a reinforced model raises.

    Labels: argmax of v_generic = v_baseline - alpha relu(v_reinforced - v_baseline) at each position of a forget answer
    and its end, v being logits; the reinforced model is the base model after `teacher_epochs` more passes over the
    forget rows. Loss: NLL of these labels with the true answer as context + retain_weight * NLL(retain). `e2urec` learns
    the whole distribution softmax(v_generic) instead of its likeliest token.

    alpha: 5 in the paper.
    teacher_rate: the reinforced model's learning rate, as for `e2urec`.
    teacher_epochs: 3 in the paper.
    retain_weight: 0 in the paper, which trains on the forget text alone.

    Limits: a label is the forgotten token itself, and is learnt even better, unless alpha times what reinforcement
    raises exceeds the margin by which the base model prefers it: rows known by heart have margins around 8 nats, hence
    the range up to 50. The paper's second half, predictions in a text whose names are replaced by generic ones from a
    dictionary that another model writes, is left out.
    """

    paper: ClassVar[str] = "Eldan and Russinovich 2310.02238"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "distillation"

    alpha: float = hyperparameter(5.0, Range(1.0, 50.0, log=True))
    teacher_rate: float = hyperparameter(1.0, Choice((1.0, 2.0)))
    teacher_epochs: int = hyperparameter(3, Choice((1, 3)))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: generic labels on forget rows, likelihood on retain rows."""
        teacher = Teacher(self.teacher_rate * rate(context), self.teacher_epochs)
        generic = Generic("forget", self.alpha, context.ask(teacher))
        return (Phase({"forget": WeightedTerm(generic), **self.retain_terms()}),)
