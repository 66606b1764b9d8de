"""In which layers a model still carries an answer: block outputs of one model are put into another, layer by layer.

Only the states that predict the answer's tokens are replaced; those of the question stay the receiving model's.

After the Unlearning Depth Score (arXiv 2605.24614). Shapes: n queries, L blocks, T tokens, D width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from froc.measuring.metric import Metric
from froc.models.base import Base, load
from froc.models.batches import Encoded, Stack, chunks
from froc.models.compute import without_gradients
from froc.models.forward import Pass
from froc.models.hooks import blocks

BATCH_ROWS = 64


def of_reference(base: Base, rows: Sequence[Encoded], metric: Metric) -> NDArray[np.float64]:
    """(n, L) drop of the base model's log-probability with blocks of the retrained model `metric.reference`, nats per token."""
    patching: Any = metric
    model = load(patching.reference, device=str(base.device), dtype=base.dtype).model
    base.restore()
    return _drops(base.model, rows, [_blocks_of(model, rows, index) for index in _batches(base, rows)], base)


def of_current(base: Base, rows: Sequence[Encoded]) -> NDArray[np.float64]:
    """(n, L) the same with blocks of the current model, which is restored afterwards."""
    states = [_blocks_of(base.model, rows, index) for index in _batches(base, rows)]
    kept = base.trainable.snapshot()
    try:
        base.restore()
        return _drops(base.model, rows, states, base)
    finally:
        base.trainable.load(kept)


def _batches(base: Base, rows: Sequence[Encoded]) -> list[NDArray[np.int64]]:
    return chunks(Stack(rows, base.device).length, 1024, BATCH_ROWS)


@without_gradients()
def _blocks_of(model: PreTrainedModel, rows: Sequence[Encoded], index: NDArray[np.int64]) -> list[Tensor]:
    """L block outputs (B, T, D) of the rows at `index`."""
    depth = len(blocks(model))
    observation = Pass(model, Stack(rows, model.device).batch(index), end=False, hidden_at=range(depth))
    return [observation.hidden[layer] for layer in range(depth)]


@without_gradients()
def _drops(
    model: PreTrainedModel, rows: Sequence[Encoded], states: Sequence[list[Tensor]], base: Base
) -> NDArray[np.float64]:
    drops = np.zeros((len(rows), len(blocks(model))))
    stack = Stack(rows, base.device)
    for index, layers in zip(_batches(base, rows), states, strict=True):
        batch = stack.batch(index)
        count = torch.from_numpy(batch.stop - batch.start).to(batch.ids.device)
        predicting = torch.zeros(batch.ids.shape, dtype=torch.bool, device=batch.ids.device)
        predicting[tuple(torch.from_numpy(part).to(batch.ids.device) for part in batch.predicting(end=False))] = True
        plain = Pass(model, batch, end=False).sum_nll / count
        for layer, state in enumerate(layers):
            handle = blocks(model)[layer].register_forward_hook(_replacing(state, predicting))
            try:
                patched = Pass(model, batch, end=False, rows_stay=True).sum_nll / count
            finally:
                handle.remove()
            drops[index, layer] = (patched - plain).double().cpu().numpy()
    return drops


def _replacing(state: Tensor, where: Tensor) -> Any:
    """Hook that replaces a block's output (B, T, D) by `state` at the (B, T) places."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        own = output[0] if isinstance(output, tuple) else output
        mixed = torch.where(where[..., None], state, own)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return hook
