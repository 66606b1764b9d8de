"""Frozen linear layers whose weights are held in four bits (NF4, QLoRA 2305.14314), each used as what it is worth in the parameters' type.

bitsandbytes rounds each group of 64 weights to 16 levels that a normal distribution fills evenly, times the group's largest magnitude.
From then on the rounded weights are the model: they are what is trained on, measured, merged with adapters and saved.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter

from froc.errors import InputError
from froc.models.autocast import autocast, current

GROUP = 64
"""Weights that share a scale."""
PARTS = ("nf4_codes", "nf4_scales")
"""Buffers of a layer in four bits: two weights a byte, and a float32 scale per group."""


def pack(layers: Iterable[Linear]) -> None:
    """Round the layers' weights and hold them in four bits. InputError without bitsandbytes."""
    for layer in layers:
        codes, state = _rounded(layer.weight.detach())
        layer.register_buffer(PARTS[0], codes, persistent=False)
        layer.register_buffer(PARTS[1], state.absmax, persistent=False)
        layer.nf4_state = state
        _hold(layer)


def is_packed(module: Module) -> bool:
    """Whether a layer holds its weight in four bits now."""
    return PARTS[0] in module._buffers and "weight" not in module._parameters


def weight(layer: Module) -> Tensor:
    """(out, in) weight of a layer in four bits, in the parameters' type."""
    codes, state = cast(Tensor, layer.nf4_codes), cast(Any, layer.nf4_state)
    if codes.is_meta:
        return torch.empty(state.shape, dtype=state.dtype, device=codes.device)
    values: Tensor = library().dequantize_4bit(codes, state)
    return values


@contextmanager
def unpacked(module: Module) -> Iterator[None]:
    """Context manager: all layers of a module have plain weights, which may be changed; afterwards they are what they were."""
    layers = [layer for layer in module.modules() if is_packed(layer)]
    for layer in layers:
        layer.register_parameter("weight", Parameter(weight(layer), requires_grad=False))
        vars(layer).update(_plain_forward(layer))
    try:
        yield
    finally:
        for layer in layers:
            _hold(layer)


def held(model: Module) -> list[Tensor]:
    """Parameters of a model, and the four-bit values that stand for some."""
    return [*model.parameters(), *(b for name, b in model.named_buffers() if name.rpartition(".")[2] in PARTS)]


def count(model: Module) -> int:
    """Number of weights without adapters, in whatever they are held."""
    plain = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
    states: list[Any] = [layer.nf4_state for layer in model.modules() if is_packed(layer)]
    return int(plain + sum(state.shape.numel() for state in states))


def library() -> Any:
    """bitsandbytes' functions; InputError where it is not installed."""
    try:
        return import_module("bitsandbytes.functional")
    except ImportError as error:
        raise InputError("bits=4 needs bitsandbytes, which is not installed; pip install 'froc[nf4]'") from error


class _Product(torch.autograd.Function):
    """x W^T + b for a frozen W that is made of its four bits in both directions, and kept in neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.layer, ctx.dtype = layer, dtype
        with autocast(x.device, None):
            return torch.nn.functional.linear(
                x.to(dtype), weight(layer).to(dtype), None if bias is None else bias.to(dtype)
            )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (grads[0].to(ctx.dtype) @ weight(ctx.layer).to(ctx.dtype)), None, None, None


class _Forward:
    """Forward of a layer in four bits. plain: the forward that it had, if not its class's."""

    def __init__(self, layer: Any, plain: Any) -> None:
        self.plain, self._layer = plain, layer

    def __call__(self, x: Tensor) -> Tensor:
        dtype = current(x.device) or x.dtype
        product: Any = _Product
        result: Tensor = product.apply(x, self._layer, self._layer.bias, dtype)
        return result


def _hold(layer: Module) -> None:
    """Drop the plain weight."""
    plain = vars(layer).pop("forward", None)
    del layer.weight
    vars(layer)["forward"] = _Forward(layer, plain)


def _plain_forward(layer: Module) -> dict[str, Any]:
    plain = vars(layer).pop("forward").plain
    return {} if plain is None else {"forward": plain}


def _rounded(values: Tensor) -> tuple[Tensor, Any]:
    """The codes, and bitsandbytes' state with the scales (`absmax`)."""
    if values.is_meta:
        # both are as long as bitsandbytes makes them
        scales = values.new_empty(-(-values.numel() // GROUP), dtype=torch.float32)
        state = SimpleNamespace(absmax=scales, shape=values.shape, dtype=values.dtype)
        return values.new_empty((-(-values.numel() // 2), 1), dtype=torch.uint8), state
    codes, state = library().quantize_4bit(values.contiguous(), blocksize=GROUP, quant_type="nf4")
    return codes, state
