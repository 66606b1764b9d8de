"""Counting the bytes that code would allocate on a device, by running it on torch's meta device, which computes nothing.

Numbers that the code reads are ones there, and what it finds by value is everything: shapes, and so bytes, hardly depend on them.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

META = torch.device("meta")
SMALL = 2**20
"""Number of elements up to which a tensor that is copied to the host becomes real there."""


class Allocations(TorchDispatchMode):
    """While it is active, counts bytes of tensors on the meta device, as an allocator would: live now, and at their peak.

    What lies on the host has no bytes of a device, whatever its size.
    """

    def __init__(self, present: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._on_host: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in present:
            self._count(tensor)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if torch.is_inference_mode_enabled():
            # there, operators that consist of others come here whole
            with self:
                parts = function.decompose(*args, **options)
            if parts is not NotImplemented:
                return parts
        if function is torch.ops.aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if function is torch.ops.aten.equal.default:
            return True
        to_host = (
            function is torch.ops.aten._to_copy.default and torch.device(options.get("device") or META).type == "cpu"
        )
        if to_host and args[0].is_meta:
            return self._read(args[0], options)
        result = _all_unique(*args) if function is torch.ops.aten._unique2.default else function(*args, **options)
        hosted = not options.get("device") and self._all_on_host((args, options))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.is_meta:
                if hosted and value.untyped_storage()._cdata not in self._sizes:
                    self._on_host.add(value.untyped_storage())
                self._count(value)
        return result

    def reset_peak(self) -> None:
        """Let the peak begin at what is live now."""
        self.peak = self.live

    def _read(self, value: Tensor, options: Mapping[str, Any]) -> Tensor:
        dtype = options.get("dtype") or value.dtype
        if value.numel() <= SMALL:
            return torch.ones(value.shape, dtype=dtype)
        on_host = torch.empty(value.shape, dtype=dtype, device=META)
        self._on_host.add(on_host.untyped_storage())
        return on_host

    def _all_on_host(self, values: Any) -> bool:
        """Whether tensors of the host, and no others, are among the arguments: then the result is made there, too."""
        if not self._on_host:
            return False
        storages = [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, Tensor) and v.is_meta]
        return bool(storages) and all(storage in self._on_host for storage in storages)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or storage in self._on_host:
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _all_unique(values: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    flat = values.reshape(-1).clone()
    return flat, torch.zeros_like(values, dtype=torch.int64), torch.ones_like(flat, dtype=torch.int64)


def without_values(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same architecture on the meta device, without adapters."""
    dtype = next(p.dtype for name, p in model.named_parameters() if ".lora_" not in name)
    config: Any = deepcopy(model.config)
    if str(config._attn_implementation).startswith("flash"):
        # its kernels are on GPUs alone; plain products need more
        config._attn_implementation = "sdpa"
    with META:
        made: Any = type(model)(config)
    twin: PreTrainedModel = made.to(dtype).eval()
    return twin


@contextmanager
def counted(present: Iterable[Tensor]) -> Iterator[Allocations]:
    """Context manager: bytes are counted, from the tensors that are present."""
    config: Any = _config
    with config.patch(meta_nonzero_assume_all_nonzero=True), Allocations(present) as allocations:
        yield allocations
