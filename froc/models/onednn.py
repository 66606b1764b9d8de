"""Linear layers through oneDNN, on CPUs where torch's default library leaves half of the speed unused.

torch multiplies float32 matrices with MKL, which does not use AVX-512 on other makers' processors; oneDNN, which ships
with torch, does. Precision is the same, the order of summation differs. Without AVX-512 both are equally fast, and the
way through Python costs a fifth of a small model's step.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class _Product(torch.autograd.Function):
    """x W^T + b and its gradients; x (..., in), W (out, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., out)."""
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _times(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The requested gradients."""
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        to_x = _times(grad, weight.t(), None).reshape(x.shape) if wants_x else None
        to_weight = _times(grad.t(), x.reshape(-1, x.shape[-1]).t(), None) if wants_weight else None
        return to_x, to_weight, grad.sum(0) if wants_bias and ctx.biased else None


def helps() -> bool:
    """Whether this processor gains: decided by its maker, not by timing, so that results on a machine stay the same."""
    cpu = Path("/proc/cpuinfo")
    try:
        cpu_info = cpu.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return False
    wide = "AuthenticAMD" in cpu_info and " avx512f " in cpu_info
    return wide and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def through_onednn(model: torch.nn.Module) -> int:
    """Route every float32 linear layer through oneDNN on a CPU that gains; returns the number of layers."""
    count = 0
    for module in model.modules() if helps() else ():
        if (
            type(module) is torch.nn.Linear
            and module.weight.dtype == torch.float32
            and module.weight.device.type == "cpu"
        ):
            layer: Any = module
            layer.forward = _Routed(module)
            count += 1
    return count


def as_they_were(model: torch.nn.Module) -> None:
    """Undo the route before compiling: a compiler brings its own matrix products."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), _Routed):
            del module.forward


class _Routed:
    """Forward of a routed linear layer."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        self._layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self._layer
        if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return torch.nn.functional.linear(x, layer.weight, layer.bias)
        product: Tensor = _Product.apply(x, layer.weight, layer.bias)
        return product


def _times(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
