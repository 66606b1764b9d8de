"""Representation selectivity (RepSelect)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from froc import hashing
from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._matrices import feedforward
from froc.models.forward import Forward
from froc.models.likelihood import widened
from froc.models.process_group import differentiable, edited, gradients, whole
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext
from froc.training.components import Edit, StepContext
from froc.training.fisher import as_out_in, linear_layers
from froc.training.method import Method
from froc.training.phase import Phase

RANK = 8
"""Rank of the adapters that elicit what is to be forgotten, peft's default."""
ROWS = 8
"""Rows per step of that training."""


@dataclass(frozen=True)
class Elicited(BaseModelQuery[Mapping[str, Tensor]]):
    """Weight name -> (out, in) gradient of the forget rows' NLL, at parameters that know these rows even better.

    Adapters of rank `RANK` on the matrices take one pass of gradient descent at rate `rate` over the forget rows; the
    gradient is the mean over rows at the weights with the adapters, kept in CPU memory. At rate 0 it is that at the
    base model.
    """

    pattern: str
    rate: float

    def compute(self, reference: BaseStatistics) -> Mapping[str, Tensor]:
        """The gradients; the base model is restored bit by bit. InputError if no matrix matches."""
        model = reference.base.model
        named = dict(model.named_parameters())
        layers = linear_layers(model, [name for name in named if re.search(self.pattern, name)])
        if not layers:
            raise InputError("does not know the feed-forward matrices of this architecture")
        weights = {name: named[name] for name in layers}
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            if self.rate:
                self._elicit(reference, layers, weights)
            gradients_by_name = reference.mean_gradient("forget", weights)
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(kept[name])
        return {name: as_out_in(layers[name], whole(gradient)).cpu() for name, gradient in gradients_by_name.items()}

    def _elicit(
        self, reference: BaseStatistics, layers: Mapping[str, Module], weights: Mapping[str, torch.nn.Parameter]
    ) -> None:
        """W <- W + B A, with A drawn, B = 0 at the start and both trained: B -= rate g A', A -= rate B' g, g the gradient in W."""
        draw = torch.Generator().manual_seed(hashing.derive_seed("elicitation", reference.pools.seed))
        lora_a, lora_b, base = {}, {}, {}
        for name, layer in layers.items():
            matrix = as_out_in(layer, whole(weights[name].detach()))
            base[name] = widened(matrix.clone())
            bound = matrix.shape[1] ** -0.5
            drawn = torch.rand(RANK, matrix.shape[1], generator=draw, dtype=base[name].dtype)
            lora_a[name] = ((2.0 * drawn - 1.0) * bound).to(base[name])
            lora_b[name] = torch.zeros(matrix.shape[0], RANK, dtype=base[name].dtype, device=base[name].device)
        with differentiable(reference.base.model, weights.values()):
            for _, batch in reference.batches("forget", ROWS):
                loss = Forward.of(reference.base.model, batch).mean_nll.mean()
                with torch.no_grad():
                    for name, grad in zip(weights, gradients(loss, list(weights.values())), strict=True):
                        if grad is None:
                            continue
                        g = widened(as_out_in(layers[name], whole(grad)))
                        a, b = lora_a[name], lora_b[name]
                        lora_a[name], lora_b[name] = a - self.rate * b.T @ g, b - self.rate * g @ a.T
                        with edited(weights[name]) as weight:
                            as_out_in(layers[name], weight).copy_(base[name] + lora_b[name] @ lora_a[name])

    def placeholder(self, context: MethodContext) -> Mapping[str, Tensor]:
        """No gradients."""
        return {}


def collapsed(gradient: Tensor, count: int, form: str, seed: int = 0) -> Tensor:
    """(out, in) gradient whose `count` largest principal components are collapsed, on the side of inputs and of outputs.

    With G = U S V': `hard` removes components, G - G V V'; `soft` divides each by its singular value relative to the
    smallest of them, `quadratic` by the square of that. Then the same of the rows by U.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        outputs, values, inputs = torch.svd_lowrank(gradient, q=count)
    relative = (values / values[-1].clamp_min(torch.finfo(values.dtype).tiny)) ** (2 if form == "quadratic" else 1)
    taken = torch.ones_like(relative) if form == "hard" else 1.0 - 1.0 / relative
    gradient = gradient - (gradient @ inputs * taken) @ inputs.T
    return gradient - outputs @ (taken[:, None] * (outputs.T @ gradient))


@dataclass(frozen=True)
class AscendSelected(Edit):
    """W <- W + c G for all matrices, G their collapsed gradients, c such that the change is `size` times as long as the weights."""

    gradients: Mapping[str, Tensor]
    share: float
    form: str
    size: float

    @torch.no_grad()
    def __call__(self, step_context: StepContext) -> None:
        """Edits the weights in place."""
        layers = linear_layers(step_context.reference.base.model, list(step_context.parameters))
        changes: dict[str, Tensor] = {}
        for name in layers:
            gradient = self.gradients[name].to(step_context.parameters[name].device)
            count = max(1, round(self.share * min(gradient.shape)))
            changes[name] = collapsed(gradient, count, self.form, step_context.reference.pools.seed)
        parameters = step_context.parameters
        total = sum(float(whole(widened(parameters[name]).square().sum())) for name in changes) ** 0.5
        length = sum(float(change.square().sum()) for change in changes.values()) ** 0.5
        for name, change in changes.items():
            with edited(parameters[name]) as matrix:
                weight = as_out_in(layers[name], matrix)
                weight.add_((self.size * total / max(length, 1e-30) * change).to(weight))


@dataclass(frozen=True)
class RepSelect(Method):
    """Ascend the forget rows' loss along what is special to them: without the gradient's largest principal components.

    W <- W + c G for all feed-forward matrices, in one edit. G is the gradient of NLL(forget) with adapters that were
    trained on the forget rows first (and are taken away again), G = U S V' its principal components: these are shared
    with the retain rows and with an attacker's fine-tuning, and are collapsed on both sides, `soft`: divided by their
    singular value relative to the smallest of those kept.

    size: length of the change as a share of the weights' (ours: the authors repeat plain steps of the same G and stop
        at a budget of utility; so does a search over size).
    components: number of principal components as a share of a matrix's smaller side; 512 in the paper, an eighth of
        4,096.
    form: `soft` in the paper; `hard` removes components, `quadratic` divides by the square.
    elicitation: learning rate of the adapters, 0.01 in the paper; 0 leaves them out.

    The authors' later default, components of the retain rows' gradient, is left out. Rows that are known by heart have
    hardly a gradient, whose direction is that of the least known tokens.
    """

    paper: ClassVar[str] = "Sondej et al. 2606.17168"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "edit"

    lr: float = 0.0
    epochs: int = 0
    size: float = hyperparameter(0.1, Range(0.02, 0.5, log=True))
    components: float = hyperparameter(0.125, Range(0.01, 0.5, log=True))
    form: str = hyperparameter("soft", Choice(("hard", "soft", "quadratic")))
    # few values: the gradients of each are kept
    elicitation: float = hyperparameter(0.01, Choice((0.0, 0.01, 0.1)))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One edit."""
        context.refuse_adapters("repselect")
        pattern = feedforward("both", range(context.layers))
        gradients = context.ask(Elicited(pattern, self.elicitation))
        edit = AscendSelected(gradients, self.components, self.form, self.size)
        return (Phase({}, edit=edit, trains=pattern, reads=("forget",)),)
