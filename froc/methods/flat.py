"""Loss adjustment by f-divergence."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.hyperparameters import Choice, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, Term, WeightedTerm


@dataclass(frozen=True)
class Divergence:
    """f, its optimal output map g*, and f*(g*): f convex with f(1) = 0, f* its Legendre transform."""

    f: Callable[[Tensor], Tensor]
    g: Callable[[Tensor], Tensor]
    conjugate_of_g: Callable[[Tensor], Tensor]


DIVERGENCES = {
    "kl": Divergence(lambda u: u * u.log(), lambda v: v, lambda v: torch.exp(v - 1)),
    "total_variation": Divergence(
        lambda u: (u - 1).abs() / 2, lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2
    ),
    "pearson": Divergence(lambda u: (u - 1) ** 2, lambda v: v, lambda v: v**2 / 4 + v),
    "jensen_shannon": Divergence(
        lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
        lambda v: math.log(2.0) - torch.nn.functional.softplus(-v),
        lambda v: v + torch.nn.functional.softplus(-v) - math.log(2.0),
    ),
}
"""Those whose g* rises with the likelihood and whose conjugate is right. The authors' Neyman is not the conjugate of its g*,
their Jeffrey is a series, and the g* of their reverse KL and Hellinger falls: minimised, it would unlearn the template."""


@dataclass(frozen=True)
class Likelihood(Term):
    """A function of the mean probability of a row's answer tokens, in [0, 1]; `divergence` and `part` name it."""

    divergence: str = "kl"
    part: str = "template"

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) -g*(P) of templates, f*(g*(P)) of forgotten answers."""
        divergence = DIVERGENCES[self.divergence]
        p = forward.mean(torch.exp(-forward.nll))
        return -divergence.g(p) if self.part == "template" else divergence.conjugate_of_g(p)


@dataclass(frozen=True)
class FLAT(Retaining):
    """Template answers up, forgotten answers down, by the variational form of an f-divergence between them.

    E_template[-g*(P)] + E_forget[f*(g*(P))], P the mean probability of a row's answer tokens; templates are the refusals, one per
    row. The authors average P over a batch before g*, we take g* row by row, which is the variational form itself, and mean over
    answer tokens, where theirs counts padding. retain_weight: ours; the paper has no retain rows, and then refuses everything.
    """

    paper: ClassVar[str] = "Wang et al. 2410.11143"
    family: ClassVar[str] = "refusal"

    divergence: str = hyperparameter("total_variation", Choice(tuple(DIVERGENCES)))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: template, forget and retain terms."""
        parts = {
            "template": WeightedTerm(Likelihood("refusal", self.divergence)),
            "forget": WeightedTerm(Likelihood("forget", self.divergence, "forget")),
        }
        return (Phase({**parts, **self.retain_terms()}),)
