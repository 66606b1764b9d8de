"""Adversaries that bring forgotten answers back during training, so that forgetting is learnt under attack."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc import hashing
from froc.models.batches import Batch, on_device
from froc.models.forward import Pass
from froc.models.hooks import blocks, output_changed
from froc.models.process_group import whole
from froc.training.components import Adversary, PassContext
from froc.training.method import Method
from froc.training.terms import State


@dataclass(frozen=True)
class Latent(Adversary):
    """Perturbs the hidden states of prompt tokens so that the forgotten answers become likely.

    A separate perturbation is added to each prompt token behind `layer` blocks (0: the embeddings). Its length is at
    most epsilon times the median hidden norm of the pass's prompt tokens; a mean would be dominated by first tokens,
    whose states are a hundred times as large. It starts at zero and takes `steps` normalised gradient steps down the
    answers' negative log-likelihood, each followed by a projection to the allowed length.
    """

    layer: int
    epsilon: float

    def against(self, model: PreTrainedModel, batch: Batch, state: State) -> tuple[Batch, PassContext]:
        """The unchanged batch, and the context in which its passes are perturbed."""
        place = blocks(model)[self.layer - 1] if self.layer else model.get_input_embeddings()
        start = on_device(batch.start, batch.ids.device)
        prompt = (torch.arange(batch.ids.shape[1], device=batch.ids.device) < start[:, None])[..., None]
        push, radius = torch.zeros(1, device=batch.ids.device), 0.0

        def add(out: Tensor) -> Tensor:
            nonlocal push, radius
            if push.dim() == 1:
                push = torch.zeros_like(out, dtype=torch.float32).requires_grad_()
                radius = self.epsilon * float(out.detach().float().norm(dim=-1)[prompt[..., 0]].median())
            return out + (prompt * push).to(out.dtype)

        for _ in range(self.steps):
            with output_changed(place, add), torch.enable_grad():
                (grad,) = torch.autograd.grad(Pass(model, batch).nll.sum(), [push])
            length = grad.norm(dim=-1, keepdim=True).clamp_min(1e-20)
            push = push.detach() - 2 * radius / self.steps * grad / length
            size = push.norm(dim=-1, keepdim=True).clamp_min(1e-20)
            push = (push * (radius / size).clamp_max(1.0)).requires_grad_()
        push = push.detach()
        return batch, lambda: output_changed(place, add)


@dataclass(frozen=True)
class SoftPrompt(Adversary):
    """Inserts `tokens` trained vectors before every prompt so that the forgotten answers become likely.

    The vectors start as embeddings of randomly drawn tokens and take signed gradient steps in each pass, from where the
    last pass left them.

    rate: step size relative to the root mean square of the initial embeddings.
    """

    tokens: int
    rate: float
    seed: int

    def against(self, model: PreTrainedModel, batch: Batch, state: State) -> tuple[Batch, PassContext]:
        """The batch with `tokens` placeholder positions before each row, and the context that fills them."""
        room = batch.ids.new_zeros(len(batch.ids), self.tokens)
        start, stop, length = (part + self.tokens for part in (batch.start, batch.stop, batch.length))
        longer = Batch(batch.index, torch.cat([room, batch.ids], 1), start, stop, length)
        embeddings = model.get_input_embeddings()
        soft: Tensor = state["soft"] if "soft" in state else self._first(model)
        # scaled by the initial vectors: steps relative to the current ones would grow without bound
        step = state.setdefault("soft_step", self.rate * float(soft.square().mean().sqrt()))

        def put(out: Tensor) -> Tensor:
            return torch.cat([soft.to(out.dtype).expand(len(out), -1, -1), out[:, self.tokens :]], 1)

        for _ in range(self.steps):
            soft = soft.detach().requires_grad_()
            with output_changed(embeddings, put), torch.enable_grad():
                (grad,) = torch.autograd.grad(Pass(model, longer).nll.sum(), [soft])
            soft = soft.detach() - step * grad.sign()
        state["soft"] = soft = soft.detach()
        return longer, lambda: output_changed(embeddings, put)

    @torch.no_grad()
    def _first(self, model: PreTrainedModel) -> Tensor:
        """(tokens, D) embeddings of drawn tokens."""
        embeddings: Any = model.get_input_embeddings()
        weight = whole(embeddings.weight)
        draw = torch.Generator().manual_seed(hashing.derive_seed("soft prompt", self.seed))
        drawn: Tensor = weight[torch.randint(len(weight), (self.tokens,), generator=draw).to(weight.device)]
        return drawn.float()


def unfit(inner: type[Method]) -> str | None:
    """Why a method cannot be trained under attack, or None. A method that learns other answers has nothing for an adversary to bring back."""
    others = set(inner.roles()) - {"forget", "retain"}
    return f"needs a method that learns no other answers (here: {min(others)})" if others else None
