"""Quantisation attack."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, hyperparameter
from froc.measuring.attack import Attack, Material, parameters
from froc.models.process_group import edited

CHUNK = 2**24
"""Weights rounded at a time."""


def nf4() -> Tensor:
    """(16,) levels of NormalFloat4 in [-1, 1], ascending (QLoRA 2305.14314, section 3 and its code).

    Normal quantiles at even steps, eight above zero and seven below, and 0 itself, divided by the largest.
    """
    from scipy.stats import norm

    most = 1 - (1 / 32 + 1 / 30) / 2
    above, below = norm.ppf(np.linspace(most, 0.5, 9)[:-1]), -norm.ppf(np.linspace(most, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below]))
    return torch.from_numpy(levels / levels[-1]).float()


def fp4() -> Tensor:
    """(15,) levels of bitsandbytes' default four-bit float, ascending: one sign bit, two exponent bits, one mantissa bit."""
    above = torch.tensor([1 / 192, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0])
    return torch.cat([-above.flip(0), torch.zeros(1), above])


@dataclass(frozen=True)
class Quantization(Attack):
    """Round every weight matrix to a few levels per group of inputs (Zhang et al. 2410.16454).

    Unlearning's small weight changes vanish where they are below half a level, so that what was hidden returns. Plain
    rounding without calibration text; embeddings and head are rounded like any matrix, vectors (norms, biases) stay.

    scheme: `rtn` rounds to the nearest of 2**bits - 1 even levels; `nf4` to one of 16 levels that a normal distribution
        fills evenly; `fp4` to those of a small float, as in the paper's code.
    bits: 4 or 8 per weight; nf4 and fp4 have 4.
    group: inputs that share a scale, 0 for all of an output channel; symmetric, the largest magnitude is a level.
    backend: `torch`, or another library's implementation, which must be installed: bitsandbytes has nf4 and fp4 in
        groups, and 8 bits per output channel; torchao has rtn, with one more level below zero.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "store the model with fewer bits"

    scheme: str = hyperparameter("rtn", Choice(("rtn", "nf4", "fp4")))
    bits: int = hyperparameter(4, Choice((4, 8)))
    group: int = hyperparameter(32, Choice((32, 64, 128, 0)))
    backend: str = hyperparameter("torch", Choice(("torch", "bitsandbytes", "torchao")))

    def __post_init__(self) -> None:
        if self.scheme != "rtn" and self.bits != 4:
            raise InputError(
                f"quantization: {self.scheme} has 4 bits, not {self.bits}; leave bits out, or write scheme=rtn"
            )
        if self.backend == "torchao" and self.scheme != "rtn":
            raise InputError(f"quantization: torchao has no {self.scheme}; write scheme=rtn, or leave backend out")
        if self.backend == "bitsandbytes" and (self.bits == 8) != (self.group == 0):
            raise InputError("quantization: bitsandbytes has bits=8,group=0, or bits=4 in groups; or leave backend out")
        if self.backend == "bitsandbytes" and self.bits == 4 and self.scheme == "rtn":
            raise InputError(
                "quantization: bitsandbytes has no rtn of 4 bits; write scheme=nf4 or fp4, or leave backend out"
            )

    @torch.no_grad()
    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Round the matrices in place."""
        turned = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
        for parameter in parameters(model).values():
            if parameter.ndim >= 2 and parameter.dtype.is_floating_point:
                with edited(parameter) as whole:
                    # GPT-2's layers hold (inputs, outputs)
                    self._round_rows(whole.T if id(parameter) in turned else whole)

    def _round_rows(self, matrix: Tensor) -> None:
        ways = {"torch": self._round, "bitsandbytes": self._by_bitsandbytes, "torchao": self._by_torchao}
        # groups lie within a row, so parts of a matrix are rounded as the whole, with less memory
        size = max(1, CHUNK // matrix[0].numel()) if self.backend == "torch" else len(matrix)
        for part in matrix.split(size):
            part.copy_(ways[self.backend](part))

    def _round(self, matrix: Tensor) -> Tensor:
        inputs = matrix.shape[-1]
        size = self.group or inputs
        groups = torch.nn.functional.pad(matrix.float().reshape(-1, inputs), (0, -inputs % size)).unflatten(
            1, (-1, size)
        )
        top = 1 if self.scheme != "rtn" else 2 ** (self.bits - 1) - 1
        scale = (groups.abs().amax(-1, keepdim=True) / top).clamp_min(torch.finfo(torch.float32).tiny)
        rounded: Tensor = self._nearest(groups / scale, top) * scale
        flat: Tensor = rounded.flatten(1)[:, :inputs].reshape(matrix.shape)
        return flat.to(matrix.dtype)

    def _nearest(self, values: Tensor, top: int) -> Tensor:
        if self.scheme == "rtn":
            return values.round().clamp(-top, top)
        levels = (nf4() if self.scheme == "nf4" else fp4()).to(values.device)
        return levels[torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)]

    def _by_torchao(self, matrix: Tensor) -> Any:
        try:
            library: Any = import_module("torchao.quantization")
            granularity: Any = import_module("torchao.quantization.granularity")
        except ImportError as error:
            raise InputError("quantization: pip install torchao, or leave backend out") from error
        each = granularity.PerGroup(self.group) if self.group else granularity.PerAxis(0)
        kind = getattr(torch, f"int{self.bits}")
        inputs = matrix.shape[1]
        # it requires whole groups; the padding is zero and does not change a scale
        wide = torch.nn.functional.pad(matrix, (0, -inputs % (self.group or inputs)))
        layer = torch.nn.Linear(wide.shape[1], wide.shape[0], bias=False, device=matrix.device, dtype=matrix.dtype)
        layer.weight.copy_(wide)
        library.quantize_(layer, library.IntxWeightOnlyConfig(weight_dtype=kind, granularity=each))
        return layer.weight.dequantize()[:, :inputs]

    def _by_bitsandbytes(self, matrix: Tensor) -> Any:
        try:
            library: Any = import_module("bitsandbytes.functional")
        except ImportError as error:
            raise InputError("quantization: pip install bitsandbytes, or leave backend out") from error
        if self.bits == 8:
            quantized, scale, _ = library.int8_vectorwise_quant(matrix.half())
            return library.int8_vectorwise_dequant(quantized, scale)
        return library.dequantize_4bit(
            *library.quantize_4bit(matrix.contiguous(), blocksize=self.group, quant_type=self.scheme)
        )
