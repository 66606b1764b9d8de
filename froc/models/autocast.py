"""Autocast on every device, the meta device included, which torch's does not know."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


def autocast(
    device: torch.device, dtype: torch.dtype | None, *, cached: bool | None = None
) -> AbstractContextManager[Any]:
    """Context manager: matrix products in `dtype`, or in the parameters' own for None.

    cached: whether casts of parameters are kept until it ends; None for as it is.
    """
    if device.type == "meta":
        return _on_meta(dtype, cached is not False)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=cached)


def current(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast's products; None where it is off."""
    if device.type == "meta":
        return MetaAutocast.dtype
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def recomputing() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of a checkpointed forward pass and of its repetition; torch itself repeats its own autocast."""
    return nullcontext(), nullcontext() if MetaAutocast.dtype is None else _on_meta(MetaAutocast.dtype)


@contextmanager
def _on_meta(dtype: torch.dtype | None, cached: bool = True) -> Iterator[None]:
    before, MetaAutocast.dtype = MetaAutocast.dtype, dtype
    try:
        with MetaAutocast(cached) if dtype is not None else nullcontext():
            yield
    finally:
        MetaAutocast.dtype = before


class MetaAutocast(TorchFunctionMode):
    """Products in `dtype` on the meta device; casts of parameters are kept until it ends, as torch's are."""

    dtype: ClassVar[torch.dtype | None] = None
    PRODUCTS: ClassVar[frozenset[Any]] = frozenset(
        {
            torch.nn.functional.linear, torch.nn.functional.scaled_dot_product_attention, torch.matmul, torch.bmm, torch.addmm, torch.mm,
            torch.baddbmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm, torch.conv1d, torch.nn.functional.conv1d,
        }
    )  # fmt: skip

    WIDE: ClassVar[frozenset[Any]] = frozenset(
        {
            torch.nn.functional.layer_norm, torch.nn.functional.softmax, torch.nn.functional.log_softmax, torch.softmax,
            torch.log_softmax, Tensor.softmax, Tensor.log_softmax, torch.pow, Tensor.pow, Tensor.__pow__, torch.exp, Tensor.exp,
            torch.log, Tensor.log, torch.rsqrt, Tensor.rsqrt, torch.sum, Tensor.sum, torch.cumsum, Tensor.cumsum,
            torch.nn.functional.softplus, torch.reciprocal, Tensor.reciprocal,
        }
    )  # fmt: skip
    """Computed in float32, as far as models use them."""

    def __init__(self, cached: bool = True) -> None:
        super().__init__()
        self._cached = cached
        self._casts: dict[int, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in self.PRODUCTS and self.dtype is not None:
            args, kwargs = tree_map(self._cast, (args, dict(kwargs or {})))
        elif function in self.WIDE and self.dtype is not None:
            args = tree_map(_widened, args)
        return function(*args, **(kwargs or {}))

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == self.dtype:
            return value
        if not (self._cached and value.is_leaf and value.requires_grad):
            return value.to(self.dtype)
        if id(value) not in self._casts:
            self._casts[id(value)] = value.to(self.dtype)
        return self._casts[id(value)]


def _widened(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
