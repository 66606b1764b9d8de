"""Quantisation with error compensation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Linear, Module
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from froc.attacks._hidden_states import batches, sample
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.models.batches import Encoded, Limits, encode
from froc.models.forward import Pass
from froc.models.hooks import blocks, recording_inputs
from froc.models.process_group import edited

DAMPING = 0.01
"""Share of the mean of a Hessian's diagonal that is added to it, as in the authors' code."""


@dataclass(frozen=True)
class Gptq(Attack):
    """Round weights column by column, and let later columns make up for what earlier ones lost (GPTQ, 2210.17323).

    With H = X X' of a layer's inputs on retain rows, column j of its matrix is rounded, and the others lose the rounding error times
    row j of the inverse of H's Cholesky factor, over its diagonal: the layer's outputs stay closer than with plain
    rounding (`quantization`), and so may what unlearning changed. Blocks are rounded in their order, each on what the blocks before it now
    write. Linear layers of blocks are rounded; embeddings, head, vectors and stacked experts stay.

    bits: per weight; symmetric, the largest magnitude of a group is a level.
    group: inputs that share a scale, 0 for all of an output channel.

    Costs one pass over at most 64 retain rows per block, up to that block, and the square of a layer's inputs in float32 for each layer of a block.
    Our reading: inputs at all tokens of the task's rows in place of general text; no reordering of columns.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "store the model with fewer bits, rounded so that its outputs change least"

    bits: int = hyperparameter(4, Choice((2, 3, 4, 8)))
    group: int = hyperparameter(32, Choice((32, 64, 128, 0)))

    @torch.no_grad()
    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Round the linear layers in place."""
        rows = encode(tokenizer, sample(material.retain, material.seed), material.template, Limits.of(model))
        for number, block in enumerate(blocks(model)):
            layers = {name: part for name, part in block.named_modules() if isinstance(part, Linear | Conv1D)}
            for name, hessian in _hessians(model, number, layers, rows).items():
                with edited(layers[name].get_parameter("weight")) as weight:
                    # GPT-2's layers hold (inputs, outputs)
                    matrix = weight.T if isinstance(layers[name], Conv1D) else weight
                    matrix.copy_(rounded(matrix.float(), hessian, self.bits, self.group))


def _hessians(
    model: PreTrainedModel, number: int, layers: Mapping[str, Module], rows: Sequence[Encoded]
) -> dict[str, Tensor]:
    """Layer of the block of this number -> (in, in) float32 sum of x x' over the rows' tokens; layers that no row reaches are left out."""
    total: dict[str, Tensor] = {}
    for batch in batches(model, rows):
        real = torch.arange(batch.ids.shape[1]) < torch.from_numpy(batch.stop)[:, None]
        with recording_inputs(model, layers) as seen:
            # ends behind the block, and whole rows reach it
            Pass(model, batch, end=False, hidden_at=(number,), logits=False)
        for name, inputs in seen.items():
            whole = inputs.shape[:-1] == real.shape
            x = (inputs[real.to(inputs.device)] if whole else inputs.reshape(-1, inputs.shape[-1])).float()
            total[name] = total[name] + x.T @ x if name in total else x.T @ x
    return total


def rounded(matrix: Tensor, hessian: Tensor, bits: int, group: int) -> Tensor:
    """(out, in) matrix on at most 2**bits - 1 levels per group and output, for inputs with this (in, in) sum of x x'.

    >>> round(float(rounded(torch.tensor([[1.0, 0.4]]), torch.eye(2), 2, 0)[0, 1]), 3)
    0.0
    """
    left, inputs = matrix.clone(), matrix.shape[1]
    diagonal = hessian.diagonal()
    damped = hessian + torch.diag((DAMPING * diagonal.mean()).clamp_min(1e-8) + (diagonal == 0) * 1.0)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    top, size = 2 ** (bits - 1) - 1, group or inputs
    scale = left.new_ones(len(left))
    for j in range(inputs):
        if j % size == 0:
            scale = (left[:, j : j + size].abs().amax(1) / top).clamp_min(torch.finfo(torch.float32).tiny)
        level = (left[:, j] / scale).round().clamp(-top, top) * scale
        error = (left[:, j] - level) / factor[j, j]
        left[:, j] = level
        left[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
    return left
