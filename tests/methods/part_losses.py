"""Losses of each part of a method on a small model, and how its parameters are moved away from the base."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from froc.models.base import Base
from froc.models.batches import Batch, Encoded
from froc.models.forward import Forward, Pass
from froc.models.trainable import Full
from froc.plugins import find
from froc.training.alternates import Alternates
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import Weighter
from tests.methods.test_terms import FACTS, V
from tests.training.small import NO_TOKENIZER


def tiny_statistics() -> BaseStatistics:
    """A GPT-2 of two layers in float64, with six forget and seven retain rows of unequal lengths."""
    torch.manual_seed(5)
    # Llama's norms are computed in float32 whatever the model's dtype is
    config = GPT2Config(
        vocab_size=V, n_embd=16, n_inner=24, n_layer=2, n_head=2, n_positions=64, initializer_range=0.25,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).double().eval()
    draw = np.random.default_rng(1)

    def rows(count: int) -> list[Encoded]:
        made = []
        for i in range(count):
            prompt, answer = 2 + i % 4, 1 + (3 * i) % 5
            ids = (*draw.integers(1, V, prompt + answer).tolist(), 0)
            made.append(Encoded(ids, prompt, answer))
        return made

    forget = rows(6)
    refused = [Encoded((*row.ids[: row.prompt], 7, 8, 9, 0)[: row.prompt + 4], row.prompt, 3) for row in forget]
    base = Base("tiny", model, NO_TOKENIZER, Full(model), "")
    made = BaseStatistics(base, TrainingRows({"forget": forget, "retain": rows(7), "refusal": refused}))
    made.ensure("alternate", Alternates())
    return made


def losses_of(
    made: BaseStatistics, name: str, index: Sequence[int], freeze: dict[str, Tensor] | None = None,
    junk: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """part -> (B,) losses of a method's phases. freeze: weights to keep or to be used again; junk: what padding holds."""
    kept = {key: p.detach().clone() for key, p in made.base.trainable.parameters().items()}
    made.base.restore()
    phases = find(Method, name)().phases(dataclasses.replace(FACTS, answer=made.ask))
    for phase in phases:
        for role in phase.roles:
            made.ensure(role, phase.sources.get(role))
            made.prepare(role, phase.needs(role), phase.hidden_at(role), 3)
    made.base.trainable.load(kept)
    losses_by_label: dict[str, Tensor] = {}
    for number, phase in enumerate(phases):
        losses_by_part = _of_phase(made, phase, index, freeze, junk)
        losses_by_label |= {f"{number} {label}": losses for label, losses in losses_by_part.items()}
    return losses_by_label


def _of_phase(
    made: BaseStatistics, phase: Phase, index: Sequence[int], freeze: dict[str, Tensor] | None, junk: int | None
) -> dict[str, Tensor]:
    state: dict[str, Any] = {}
    losses_by_part = {}
    for label, part in phase.parts.items():
        role = part.term.role
        where = np.asarray(index)
        batch = made.stack.batch(where + made.offsets[role])
        if junk is not None:
            batch = Batch(
                batch.index, torch.where(batch.attention.bool(), batch.ids, junk), batch.start, batch.stop, batch.length
            )
        forward = Forward(
            [
                (
                    Pass(made.base.model, batch, hidden_at=part.term.hidden_at),
                    np.arange(len(where)),
                    np.arange(len(where)),
                )
            ]
        )
        numbers = made.lookup(role, part.needs, part.term.hidden_at, where, forward)
        if freeze is not None:
            part = dataclasses.replace(
                part,
                weighters=tuple(_Frozen(weighter, freeze, f"{label}{k}") for k, weighter in enumerate(part.weighters)),
            )
        losses_by_part[label] = part.losses(forward, numbers, state)
    return losses_by_part


class _Frozen(Weighter):
    """Another weighter's first weights, ever after."""

    def __init__(self, inner: Weighter, kept: dict[str, Tensor], key: str) -> None:
        vars(self).update(level=inner.level, needs=inner.needs)
        self._inner, self._kept, self._key = inner, kept, key

    def weights(self, *args: Any) -> Tensor:
        if self._key not in self._kept:
            self._kept[self._key] = self._inner.weights(*args)
        return self._kept[self._key]


def shifted(made: BaseStatistics, size: float, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: size * torch.randn(p.shape, generator=draw, dtype=torch.float64)
        for name, p in made.base.trainable.parameters().items()
    }


@torch.no_grad()
def move(made: BaseStatistics, by: dict[str, Tensor], share: float) -> None:
    for name, p in made.base.trainable.parameters().items():
        p.add_(by[name] * share)
