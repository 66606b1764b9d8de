"""Memory that a device has left at its peak use, and copies of parameters there or in pinned host memory."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

MARGIN = 0.05
"""Share of a device's memory that copies never take: an allocator cannot use all of it."""
_PEAKS: dict[torch.device, int] = {}
"""Largest use of each device before its counter was set to zero."""
_ON_META: "ContextVar[float]" = ContextVar("room on the meta device", default=math.inf)


def reset_peak(device: torch.device) -> None:
    """Set a device's counter of its largest use to zero; `room` still knows it."""
    if device.type == "cuda":
        _PEAKS[device] = max(_PEAKS.get(device, 0), torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)


def room(device: torch.device) -> float:
    """Bytes of a device that this process has not needed so far, and no other process holds; infinite on the host."""
    if device.type == "meta":
        return _ON_META.get()
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    peak = max(_PEAKS.get(device, 0), torch.cuda.max_memory_allocated(device))
    return float(free + torch.cuda.memory_reserved(device) - peak - MARGIN * total)


def host_room() -> float:
    """Bytes that this process may still take of the host's memory, within its control group's limit; infinite where it cannot be told."""
    free = math.inf
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        # what files have cached is given up when memory is needed
        free = min(free, float(limit - used + int(stat.get("inactive_file", 0))))
    return free


@contextmanager
def room_on_meta(free: float) -> Iterator[None]:
    """Context manager: the meta device stands for one with so many bytes left."""
    before = _ON_META.set(free)
    try:
        yield
    finally:
        _ON_META.reset(before)


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the weights' devices where all fit, else on the host."""
    sizes: dict[torch.device, int] = {}
    for value in weights.values():
        sizes[value.device] = sizes.get(value.device, 0) + value.nbytes
    if all(size <= room(device) for device, size in sizes.items()):
        return {name: value.detach().clone() for name, value in weights.items()}
    return on_host(weights)


def on_host(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the host, in pinned memory where the weights are on a device: a pageable copy takes several times as long."""
    return {name: _on_host(value.detach()) for name, value in weights.items()}


def _on_host(value: Tensor) -> Tensor:
    if value.device.type != "cuda":
        return value.to("cpu", copy=True)
    try:
        return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value)
    except RuntimeError:
        # the system limits how much may be pinned
        return value.to("cpu", copy=True)
