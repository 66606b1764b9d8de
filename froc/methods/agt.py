"""Adversarial gating training with adaptive orthogonality (AGT-AO)."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._adversaries import unfit
from froc.methods._combining import combined_already, norm, plus, without_retain_side
from froc.models.batches import Batch
from froc.models.forward import Pass
from froc.models.hooks import blocks, output_changed
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, MethodContext
from froc.training.components import Adversary, Combiner, GradientProbe, PassContext, dot
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Weights


@dataclass(frozen=True)
class AdaptiveOrthogonality(Combiner):
    """g_f - lambda (min(0, <g_f, g_r>) / |g_r|^2) g_r + g_r with lambda = ((1 - cos(g_f, g_r)) / 2)^gamma.

    The stronger the conflict, the more of g_f's part against g_r is taken away: 1/2^gamma of it where the two are nearly
    orthogonal, all of it where they are opposed. The norm of the sum is kept in `state["gate"]`, beside the last one
    before the fraction `warmup` of the steps was done.
    """

    # no probe is taken: gradients without the loss scale, whose norms are compared over steps
    needs_probes: ClassVar[bool] = True
    needs_progress: ClassVar[bool] = True
    gamma: float = 1.0
    warmup: float = 0.2

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """The direction, over all parameters at once."""
        forget, retain = gradients["forget"], gradients["retain"]
        product, size = dot(forget, retain), dot(retain, retain)
        cosine = (product / (size * dot(forget, forget)).sqrt()).nan_to_num(0.0, 0.0, 0.0)
        share = (((1.0 - cosine) / 2) ** self.gamma * product.clamp_max(0.0) / size).nan_to_num(0.0, 0.0, 0.0)
        direction = plus((1.0, forget), (1.0 - share, retain))
        length = norm(direction)
        warm = length if state["progress"] < self.warmup or "gate" not in state else state["gate"]["warm"]
        state["gate"] = {"norm": length, "warm": warm}
        return direction


@dataclass(frozen=True)
class Gated(Adversary):
    """Adds a perturbation to the states behind `layer` blocks that makes the forgotten answers likely, while the gate is open.

    The gate opens once the fraction `warmup` of the steps is done, in steps after one whose gradient was smaller than
    `threshold` times the last one of the warm-up. The perturbation starts at zero, takes `steps` signed gradient steps
    down the answers' negative log-likelihood, and stays within epsilon of zero in each coordinate.

    epsilon: relative to the root mean square of the pass's states there.
    """

    layer: int
    epsilon: float
    warmup: float
    threshold: float

    def against(self, model: PreTrainedModel, batch: Batch, state: State) -> tuple[Batch, PassContext]:
        """The unchanged batch, and the context in which its passes are perturbed, if they are."""
        gate = state.get("gate")
        if gate is None or state["progress"] < self.warmup or gate["norm"] >= self.threshold * gate["warm"]:
            return batch, nullcontext
        place = blocks(model)[self.layer - 1] if self.layer else model.get_input_embeddings()
        push, most = torch.zeros(1, device=batch.ids.device), 0.0

        def add(out: Tensor) -> Tensor:
            nonlocal push, most
            if push.dim() == 1:
                push = torch.zeros_like(out, dtype=torch.float32).requires_grad_()
                most = self.epsilon * float(out.detach().float()[batch.attention.bool()].square().mean().sqrt())
            return out + push.to(out.dtype)

        for _ in range(self.steps):
            with output_changed(place, add), torch.enable_grad():
                (grad,) = torch.autograd.grad(Pass(model, batch).nll.sum(), [push])
            push = (push.detach() - 2 * most / self.steps * grad.sign()).clamp(-most, most).requires_grad_()
        push = push.detach()
        return batch, lambda: output_changed(place, add)


@dataclass(frozen=True)
class AGT(Wrapper):
    """Forget under a latent attack that sets in once forgetting has settled, with conflicting forget gradients made orthogonal.

    min over theta of max over |d|_inf <= epsilon of L_f(theta; h + d) + L_r(theta), h the forget rows' states behind a
    block. The attack is left out during the warm-up and while the gradient's norm is at or above rho times that at the
    warm-up's end. Direction: g_f - ((1 - cos(g_f, g_r)) / 2)^gamma (min(0, <g_f, g_r>) / |g_r|^2) g_r + g_r. The
    authors' is agt(npo).

    ao_gamma: 1 in the authors' README.
    rho: threshold of the gate.
    warmup: share of the steps; one of five epochs in the README.
    attack_depth: the block as a share of all; 10 of 32 in the README.
    epsilon: largest change of a coordinate, relative to the states' root mean square; an absolute 0.01 in the authors'
        code.
    attack_steps: 4 in the authors' code.

    Our reading: the paper could not be read. The formula of the orthogonality is the README's, as a projection; in the
    authors' code it is a number without gradient, which is added to the loss and changes no step. Their perturbation is
    kept from step to step at fixed positions, is added in the base model, too, and ascends the whole loss; here it
    starts anew in each pass, and makes the answers likely.
    """

    paper: ClassVar[str] = "Li et al. 2602.01703"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "wrapper"

    ao_gamma: float = hyperparameter(1.0, Range(0.25, 4.0, log=True))
    rho: float = hyperparameter(1.0, Range(0.25, 4.0, log=True))
    warmup: float = hyperparameter(0.2, Range(0.05, 0.5))
    attack_depth: float = hyperparameter(0.3, Range(0.0, 0.8))
    epsilon: float = hyperparameter(0.05, Range(0.01, 0.5, log=True))
    attack_steps: int = hyperparameter(4, Range(1, 8))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase under attack, with this combiner."""
        layer = min(round(self.attack_depth * context.layers), context.layers - 1, *phase.layers)
        return replace(
            phase,
            combiner=AdaptiveOrthogonality(self.ao_gamma, self.warmup),
            adversary=Gated(self.attack_steps, layer, self.epsilon, self.warmup, self.rho),
        )

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """Against forgetting only, with a retain side, and no adversary or combiner of the inner method's own."""
        if any(phase.adversary for phase in inner().phases(PLACEHOLDER_CONTEXT)):
            return "one adversary is enough"
        return without_retain_side(inner) or combined_already(inner) or unfit(inner)
