"""Latent perturbation attack."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._hidden_states import (
    GRADIENT_ROWS,
    HIDDEN_OBSERVABLES,
    at_prompt,
    batches,
    layer_at,
    observed_under,
    prompt_tokens,
    sample,
    slope,
)
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.models.batches import Batch, Encoded, Limits, encode
from froc.models.forward import Pass
from froc.models.hooks import blocks, output_changed


@dataclass(frozen=True)
class LatentPerturbation(Attack):
    """Add one vector to the prompts' hidden states that brings answers back (after LAT, Sheshadri et al. 2407.15549).

    Our reading: one vector for all prompts, optimised on forget rows that are not measured, so that it carries no
    measured answer; LAT optimises one per example and position, knowing its answer. Normalised gradient steps within a
    ball; the best vector is used.

    depth: the block whose output is changed, as a share of all blocks.
    epsilon: radius of the ball, relative to the mean hidden norm at prompt positions.
    steps: gradient steps.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "add one vector to the hidden states of every prompt"
    hides: ClassVar[frozenset[Observable]] = HIDDEN_OBSERVABLES - {"written"}
    holds: ClassVar[bool] = True

    depth: float = hyperparameter(0.5, Range(0.0, 1.0))
    epsilon: float = hyperparameter(0.5, Range(0.05, 2.0))
    steps: int = hyperparameter(10, Range(1, 50))

    def observations(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """One observation, under the perturbation."""
        block = blocks(model)[layer_at(model, self.depth)]
        known = encode(tokenizer, sample(material.known, material.seed), material.template, Limits.of(model))
        push = self._optimised(model, block, list(batches(model, known, GRADIENT_ROWS)))
        yield observed_under(model, tokenizer, block, push, rows, queries, observables)

    def _optimised(self, model: PreTrainedModel, block: torch.nn.Module, known: Sequence[Batch]) -> Tensor:
        """(D,) vector that makes known answers likeliest; zero if none does."""
        norms: list[Tensor] = []
        for batch in known:
            real = prompt_tokens(batch)

            def measure(out: Tensor, real: Tensor = real) -> Tensor:
                norms.append(out[real].float())
                return out

            with torch.no_grad(), output_changed(block, measure):
                Pass(model, batch, end=False)
        states = torch.cat(norms)
        radius = self.epsilon * float(states.norm(dim=-1).mean())
        push = torch.zeros_like(states[0])
        best, least = push, float("inf")
        for _ in range(self.steps + 1):
            push = push.detach().requires_grad_()
            value, grad = slope(model, known, partial(_pushing, block, push), push)
            if value < least:
                best, least = push.detach(), value
            push = push.detach() - 2 * radius / max(1, self.steps) * grad / grad.norm().clamp_min(1e-12)
            push = push * min(1.0, radius / max(float(push.norm()), 1e-12))
        return best


def _pushing(block: torch.nn.Module, push: Tensor, batch: Batch) -> AbstractContextManager[None]:
    """Context manager: `push` is added to the block's output at the prompts' tokens."""
    return output_changed(block, at_prompt(batch, push))
