"""Quantisation attack."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from froc.attacks import Attack, Material, parameters
from froc.errors import InputError
from froc.params import Choice, hyper


def nf4() -> Tensor:
    """(16,) the levels of NormalFloat4 in [-1, 1], ascending (QLoRA 2305.14314, section 3 and its code).

    Quantiles of the normal distribution at even steps, eight above zero and seven below, 0 itself, over the largest.
    """
    from scipy.stats import norm

    most = 1 - (1 / 32 + 1 / 30) / 2
    above, below = norm.ppf(np.linspace(most, 0.5, 9)[:-1]), -norm.ppf(np.linspace(most, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below]))
    return torch.from_numpy(levels / levels[-1]).float()


@dataclass(frozen=True)
class Quantization(Attack):
    """Round every weight matrix to a few levels per group of inputs (Zhang et al. 2410.16454).

    Small changes that unlearning made vanish when they are below half a level: what was hidden comes back. Plain
    rounding, no calibration text: embeddings and head are rounded like any matrix, vectors (norms, biases) stay.
    scheme: rtn, the nearest of 2**bits - 1 even levels; nf4, of 16 levels that a normal distribution fills evenly.
    group: inputs that share a scale, 0 for all of an output channel; symmetric, the largest magnitude is a level.
    """

    allows: ClassVar[str] = "store the model with fewer bits"

    scheme: str = hyper("rtn", Choice(("rtn", "nf4")))
    bits: int = hyper(4, Choice((4, 8)))
    group: int = hyper(32, Choice((32, 64, 128, 0)))

    def __post_init__(self) -> None:
        if self.scheme == "nf4" and self.bits != 4:
            raise InputError(f"quantization: nf4 has 4 bits, not {self.bits}; write scheme=nf4,bits=4 or scheme=rtn")

    @torch.no_grad()
    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Matrices rounded in place."""
        turned = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
        for parameter in parameters(model).values():
            if parameter.ndim >= 2 and parameter.dtype.is_floating_point:
                # GPT-2's layers hold (inputs, outputs)
                matrix = parameter.T if id(parameter) in turned else parameter
                matrix.copy_(self._round(matrix))

    def _round(self, matrix: Tensor) -> Tensor:
        inputs = matrix.shape[-1]
        size = self.group or inputs
        groups = torch.nn.functional.pad(matrix.float().reshape(-1, inputs), (0, -inputs % size)).unflatten(
            1, (-1, size)
        )
        top = 1 if self.scheme == "nf4" else 2 ** (self.bits - 1) - 1
        scale = (groups.abs().amax(-1, keepdim=True) / top).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = self._nearest(groups / scale, top) * scale
        return rounded.flatten(1)[:, :inputs].reshape(matrix.shape).to(matrix.dtype)

    def _nearest(self, values: Tensor, top: int) -> Tensor:
        if self.scheme == "rtn":
            return values.round().clamp(-top, top)
        levels = nf4().to(values.device)
        return levels[torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)]
