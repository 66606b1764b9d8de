"""Loss adjustment by f-divergence (FLAT)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import State, Term, WeightedTerm


@dataclass(frozen=True)
class Divergence:
    """A convex f with f(1) = 0, its optimal output map g*, and f*(g*(P)) with f* the Legendre transform of f."""

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
"""Those whose g* rises with the likelihood and whose conjugate is right.

Left out: the authors' Neyman is not the conjugate of its g*, their Jeffrey is a series, and g* of their reverse KL and
Hellinger falls, so minimising would unlearn the template.
"""


@dataclass(frozen=True)
class Likelihood(Term):
    """A function of the mean probability P in [0, 1] of a row's answer tokens; `divergence` and `part` select it."""

    divergence: str = "kl"
    part: str = "template"

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) -g*(P) of templates, f*(g*(P)) of forgotten answers."""
        divergence = DIVERGENCES[self.divergence]
        p = forward.mean(torch.exp(-forward.nll))
        return -divergence.g(p) if self.part == "template" else divergence.conjugate_of_g(p)


@dataclass(frozen=True)
class FLAT(Retaining):
    """Raise template answers and lower forgotten answers, by the variational form of an f-divergence between them.

    Loss: E_template[-g*(P)] + E_forget[f*(g*(P))] + retain_weight * NLL(retain), P the mean probability of a row's
    answer tokens. Templates are the task's refusals, one per row.

    divergence: which f-divergence.
    retain_weight: ours; without retain rows, as in the paper, the model refuses everything.

    Our reading: g* is taken row by row, which is the variational form itself, where the authors average P over a batch
    first; the mean is over answer tokens, where theirs counts padding.
    """

    paper: ClassVar[str] = "Wang et al. 2410.11143"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "refusal"

    divergence: str = hyperparameter("total_variation", Choice(tuple(DIVERGENCES)))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: template, forget and retain terms."""
        parts = {
            "template": WeightedTerm(Likelihood("refusal", self.divergence)),
            "forget": WeightedTerm(Likelihood("forget", self.divergence, "forget")),
        }
        return (Phase({**parts, **self.retain_terms()}),)
