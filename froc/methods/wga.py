"""Weighted gradient ascent (WGA)."""

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


@dataclass(frozen=True)
class Likely(Weighter):
    """p^up (1 - p)^down of each token's probability, without gradient."""

    level: ClassVar[Literal["row", "token"]] = "token"
    up: float = 1.0
    down: float = 0.0

    def weights(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) in [0, 1]; largest at p = up / (up + down)."""
        log = -forward.nll.detach()
        return torch.exp(self.up * log) * (-torch.expm1(log)).clamp_min(0.0) ** self.down


@dataclass(frozen=True)
class WGA(Retaining):
    """Gradient ascent with each token weighted by p^beta, so that forgotten tokens are left alone.

    Loss: -mean over tokens of sg(p^beta) NLL + retain_weight * NLL(retain).

    beta: exponent; 0 is gradient difference. OpenUnlearning's default is 1; the authors' code defaults to 5.
    """

    paper: ClassVar[str] = "Wang et al. 2502.19301"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "weighted"

    beta: float = hyperparameter(1.0, Range(0.1, 7.0))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: weighted ascent and the retain term."""
        forget = WeightedTerm(NLL("forget", sign=-1.0), weighters=(Likely(self.beta),))
        return (Phase({"forget": forget, **self.retain_terms()}),)
