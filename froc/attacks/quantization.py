"""Quantisation attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks import Attack, Material, parameters
from froc.params import Choice, hyper


@dataclass(frozen=True)
class Quantization(Attack):
    """Round every weight matrix to the nearest of 2**bits levels per group of inputs (2410.16454).

    Small changes that unlearning made vanish when they are below half a level: what was hidden comes back.
    bits: 4 or 8. group: inputs that share a scale; symmetric, largest magnitude maps to the outermost level.
    """

    allows: ClassVar[str] = "store the model with fewer bits"

    bits: int = hyper(4, Choice((4, 8)))
    group: int = hyper(32, Choice((32, 64, 128)))

    @torch.no_grad()
    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Matrices rounded, vectors (norms, biases) as they are."""
        for parameter in parameters(model).values():
            if parameter.ndim == 2:
                parameter.copy_(self._round(parameter))

    def _round(self, matrix: Tensor) -> Tensor:
        out, inputs = matrix.shape
        top = 2 ** (self.bits - 1) - 1
        padded = torch.nn.functional.pad(matrix.float(), (0, -inputs % self.group)).reshape(out, -1, self.group)
        scale = (padded.abs().amax(-1, keepdim=True) / top).clamp_min(torch.finfo(torch.float32).tiny)
        rounded: Tensor = (padded / scale).round().clamp(-top, top) * scale
        flat: Tensor = rounded.reshape(out, -1)[:, :inputs]
        return flat.to(matrix.dtype)
