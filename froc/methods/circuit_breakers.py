"""Representation rerouting (circuit breakers)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._tilted import tilted
from froc.models.forward import Forward
from froc.models.likelihood import widened
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import LayerTerm, Objective, State, WeightedTerm


@dataclass(frozen=True)
class Reroute(LayerTerm):
    """relu(cos(h, h_base)) of one layer's states, averaged over those that predict an answer (2406.04313, algorithm 1).

    h_base is tilted (`froc.methods._tilted`), since the cosine of equal states has no gradient.
    """

    seed: int = 0

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses in [0, 1]; about 1 at the base model, and 0 with zero gradient once states are orthogonal to it."""
        base = tilted(widened(reference["hidden"]), self.layer, self.seed)
        return forward.mean_over_states(cosine_similarity(widened(forward.hidden(self.layer)), base, dim=-1).relu())


ROUNDING = 1e-4
"""Share of a state's length below which a shift counts little: rounding has a direction, too, and a length's gradient is as long for it."""


@dataclass(frozen=True)
class Keep(LayerTerm):
    """|h - h_base| of one layer's states, averaged over those that predict an answer: a length, not its square.

    To be exact sqrt(|h - h_base|^2 + (1e-4 |h_base|)^2), so that states which differ by rounding alone have no gradient.
    """

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses in the hidden states' units; about 0, with zero gradient, at the base model."""
        base = widened(reference["hidden"])
        shift = widened(forward.hidden(self.layer)) - base
        lengths: Tensor = torch.cat([shift, ROUNDING * base.norm(dim=-1, keepdim=True)], -1).norm(dim=-1)
        return forward.mean_over_states(lengths)


@dataclass(frozen=True)
class Ramp(Combiner):
    """Factors 1 - t/2 of the forget and t/2 of the retain objective, t from 0 to 1 over the phase."""

    needs_progress: ClassVar[bool] = True

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """1 and 0 at the first step, 1/2 and 1/2 after the last."""
        half = 0.5 * float(state.get("progress", 0.0))
        return {"forget": 1.0 - half, "retain": half}


@dataclass(frozen=True)
class CircuitBreakers(Method):
    """Representation rerouting: make forget states orthogonal to the base model's, hold retain states where they are.

    Loss at step t of T: c_s mean relu(cos(h, h_base)) on forget rows + c_r retain_weight mean |h - h_base| on retain
    rows, with c_s = 1 - t/(2T) and c_r = t/(2T). Forget states are those behind two blocks, retain states those and the
    last block's; means are over blocks and states. The matrices of all blocks up to the deeper of the two train.

    lr: 1e-4 in the authors' scripts, for adapters.
    depth: the deeper block as a share of all; the other one is at half of it. Blocks 20 and 10 of 32 in the paper.
    retain_weight: ours; 1 in the paper, where a factor alpha of the whole loss (10 or 5) is the knob, which AdamW's
        steps do not depend on.

    Averages run over the states that predict an answer; the authors' run over all tokens of a prompt and its answer,
    and their retain states are those of all blocks, of which the base model's take too much memory to be kept here.
    The tilt of the base states is ours: in the authors' code dropout tells equal states apart.
    """

    paper: ClassVar[str] = "Zou et al. 2406.04313"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "representation"

    lr: float = hyperparameter(1e-4, Range(1e-5, 1e-3, log=True))
    retain_weight: float = hyperparameter(1.0, Range(0.1, 20.0, log=True))
    depth: float = hyperparameter(0.65, Range(0.3, 0.9))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, with a term per block."""
        deep, last = round(self.depth * (context.layers - 1)), context.layers - 1
        targets = tuple(dict.fromkeys((round(self.depth / 2 * last), deep)))
        held = tuple(dict.fromkeys((*targets, last)))
        parts = {
            f"reroute {layer}": WeightedTerm(Reroute("forget", layer, context.seed), 1.0 / len(targets))
            for layer in targets
        }
        parts |= {
            f"keep {layer}": WeightedTerm(Keep("retain", layer), self.retain_weight / len(held)) for layer in held
        }
        trained = "|".join(str(layer) for layer in range(deep + 1))
        # the first number in a name is the block's
        return (Phase(parts, combiner=Ramp(), trains=rf"^\D*\.({trained})\."),)
