"""The memory that training takes, in parts. All but the activations follow from the parameters alone.

The weights are there under every method, so a device with less memory cannot do it, whatever the batch; the copy of the base may lie on the host.
Gradients and moments are of all that `--train` allows; a method may train less. `froc.training.memory_simulation` counts what a method's own
steps take, activations included; `froc.models.memory` meets what is too much with fewer rows.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from froc.errors import InputError
from froc.models.base import Base
from froc.models.hooks import blocks, blocks_path
from froc.models.nf4 import held
from froc.models.trainable import Full

GB = 10**9
EIGHT_BITS = 2 + 8 / 256
"""Bytes per parameter of two moments in 8 bits, each with a scale for 256."""
MOST = 0.9
"""Share of a device's memory that is planned with: an allocator cannot use all of it, and activations come on top."""


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes on the device that trains.

    weights: all parameters, adapters included.
    base_copy: the base values of the trained parameters, from which every trial starts; none for adapters.
    gradients: of the trained parameters.
    moments: AdamW's two, in the type of the parameters.
    activations: all else at the largest use: what a pass keeps for its gradients, logits, and what a method keeps.
    """

    weights: int
    base_copy: int
    gradients: int
    moments: int
    activations: int = 0

    @property
    def total(self) -> int:
        """All parts."""
        return self.weights + self.base_copy + self.gradients + self.moments + self.activations

    @property
    def document(self) -> dict[str, int]:
        """Part -> bytes, and the total."""
        return {**asdict(self), "total": self.total}

    def sentence(self) -> str:
        """The total and its parts in words, in GB of 10^9 bytes."""
        parts = ", ".join(f"{name.replace('_', ' ')} {size / GB:.3g}" for name, size in asdict(self).items() if size)
        return f"{self.total / GB:.3g} GB ({parts})"


def needs(base: Base) -> MemoryNeeds:
    """Of a loaded model as `--train` has prepared it."""
    scope = base.trainable
    trained = [p for adapter in range(scope.n_adapters) for p in scope.parameters(adapter).values()]
    return _of(_bytes(held(base.model)), _bytes(trained), copied=isinstance(scope, Full))


def needs_of_devices(base: Base) -> dict[str, MemoryNeeds]:
    """Device -> what training needs on it, of a loaded model as `--train` has prepared it."""
    scope = base.trainable
    trained = [p for adapter in range(scope.n_adapters) for p in scope.parameters(adapter).values()]
    copied = isinstance(scope, Full)

    def on(device: torch.device, tensors: Iterable[Any]) -> int:
        return _bytes(tensor for tensor in tensors if tensor.device == device)

    return {str(d): _of(on(d, held(base.model)), on(d, trained), copied=copied) for d in base.devices}


def alternatives(base: Base, rank: int = 16, last: int = 4) -> Mapping[str, MemoryNeeds]:
    """`--train` option -> what it needs, for smaller choices of what trains."""
    own = {name: p for name, p in base.model.named_parameters() if ".lora_" not in name}
    weights, path = _bytes(own.values()), blocks_path(base.model)
    count = len(blocks(base.model))
    few = {f"{path}.{layer}." for layer in range(count)[-last:]}
    kept = _bytes(p for name, p in own.items() if any(map(name.startswith, few)))
    linear = [
        module for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(f"{path}.") and ".lora_" not in name
    ]  # fmt: skip
    adapters = sum(max(4, m.weight.element_size()) * rank * (m.in_features + m.out_features) for m in linear)
    return {
        f"lora:rank={rank}": _of(weights + adapters, adapters, copied=False),
        f"layers:last={len(few)}": _of(weights, kept, copied=True),
    }


def refuse_too_large(base: Base, device: torch.device | None = None, count: int | None = None) -> None:
    """InputError, with what would fit, where a device's whole memory is less than the weights, which every method needs there.

    device, count: the first of the devices that the model is divided among, and their number; the base's by default.
    """
    device, count = device or base.device, count or len(base.devices)
    needed, memory = needs(base), device_memory(device)
    there = None if memory is None else memory * count
    least = needed.weights
    if there is None or least <= there:
        return
    fits = {f"--train {option}": estimate for option, estimate in alternatives(base).items() if estimate.total <= there}
    smaller = ", ".join(f"{option} needs at least {estimate.total / GB:.3g}" for option, estimate in fits.items())
    raise InputError(
        f"the weights need {least / GB:.3g} GB, and {device}{f' with {count - 1} more' if count > 1 else ''} has "
        f"{there / GB:.3g} GB; " + (smaller or "take a smaller model, --dtype bfloat16, or a device with more memory")
    )


def copy_on_host(needed: MemoryNeeds, itemsize: int, optimizer: str, there: int | None) -> bool:
    """Whether the base copy goes to the host: it is read between trials and for mixes only, and the rest is needed in every step.

    The copy has the size of all that `--train` allows, and so would its gradients; a search may hold methods that train less.
    """
    copy = needed.base_copy
    moments = moment_bytes(optimizer, copy // itemsize, copy)
    return there is not None and copy > 0 and needed.weights + 2 * copy + moments > MOST * there


def place_base_copy(base: Base, optimizer: str = "adamw") -> None:
    """Move the base copy to pinned host memory where a device has no room for all that training needs; losses do not depend on it."""
    scope = base.trainable
    if not isinstance(scope, Full) or base.device.type != "cuda":
        return
    there = device_memory(base.device)
    itemsize = next(iter(scope.parameters().values())).element_size()
    if copy_on_host(needs(base), itemsize, optimizer, there and there * len(base.devices)):
        scope.keep_base_on_host()


def moment_bytes(optimizer: str, count: int, size: int) -> int:
    """Of an optimiser's moments of so many parameters of so many bytes."""
    return round(EIGHT_BITS * count) if optimizer == "adamw8bit" else 2 * size


def device_memory(device: torch.device) -> int | None:
    """Bytes of memory of a device, in use or not; None where it cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of(weights: int, trained: int, *, copied: bool) -> MemoryNeeds:
    return MemoryNeeds(weights, trained if copied else 0, trained, 2 * trained)


def _bytes(tensors: Iterable[Tensor] | Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
