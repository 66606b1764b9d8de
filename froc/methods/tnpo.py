"""Token-wise negative preference optimisation (TNPO), and its weighted form (WTNPO)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import MethodContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, State, WeightedTerm, Weighter

EPSILON = 1e-5
"""Added to the weights' denominator in the authors' code: leaves tokens alone whose p^beta is small before and now."""


@dataclass(frozen=True)
class TokenPreference(Weighter):
    """2 p^(beta + alpha) / (p^beta + p_base^beta + 1e-5) of each token, without gradient (2502.19301).

    p and p_base are the true token's probabilities now and in the base model.
    """

    level: ClassVar[Literal["row", "token"]] = "token"
    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)
    beta: float = 4.0
    alpha: float = 0.0

    def weights(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) in [0, 2]; with alpha 0 about 1 at the base model."""
        kept, ids = reference["token_distribution"], reference["buckets"]
        # where only the likeliest tokens are stored, the true one is the first bucket
        true = torch.zeros_like(forward.target) if ids.numel() else forward.target
        now, base = -forward.nll.detach(), kept.gather(-1, true[:, None])[:, 0].to(forward.nll)
        share = torch.exp(self.beta * now) + torch.exp(self.beta * base) + EPSILON
        return 2.0 * torch.exp((self.beta + self.alpha) * now) / share


@dataclass(frozen=True)
class TNPO(Retaining):
    """NPO token by token: ascent with each token weighted by how likely it still is beside the base model; WTNPO with alpha.

    Loss: -mean over tokens of sg(w) NLL + retain_weight * NLL(retain), w = 2 p^(beta + alpha) / (p^beta + p_base^beta).
    With alpha 0 this is TNPO: NPO's weight (`npo`) of each token instead of the whole answer. alpha > 0 is WTNPO: TNPO
    with `wga`'s weight p^alpha on top, so that tokens which are already unlikely are left alone.

    beta: inverse temperature, 4 in the authors' code; 0 with alpha 0 is gradient difference.
    alpha: exponent of p; 0 for TNPO, 1.5 for WTNPO in the authors' code.

    As in the authors' code 1e-5 is added to the weight's denominator: at beta 4, tokens whose probability was and is
    below 0.05 are hardly moved.
    """

    paper: ClassVar[str] = "Wang et al. 2502.19301"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "preference"

    beta: float = hyperparameter(4.0, Range(0.5, 8.0, log=True))
    alpha: float = hyperparameter(0.0, Range(0.0, 3.0))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: weighted ascent and the retain term."""
        weighed = WeightedTerm(NLL("forget", sign=-1.0), weighters=(TokenPreference(self.beta, self.alpha),))
        return (Phase({"forget": weighed, **self.retain_terms()}),)
