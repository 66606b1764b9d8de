"""States of torch's random generators: that of the host, and that of the device on which a model draws."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the host's generator, and of the device's own where it has one."""
    here = {"host": torch.get_rng_state()}
    generators: Any = getattr(torch, device.type, None)
    if device.type == "cpu" or not hasattr(generators, "get_rng_state"):
        return here
    # there is one mps device, which is not named
    return here | {"device": generators.get_rng_state(*_named(device))}


def set_rng_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore the states of torch's random generators."""
    torch.set_rng_state(states["host"])
    if "device" in states:
        generators: Any = getattr(torch, device.type)
        generators.set_rng_state(states["device"].cpu(), *_named(device))


@contextmanager
def own_draws(device: torch.device, seed: int) -> Iterator[None]:
    """Context whose draws follow from a seed and leave all others as they were."""
    states = rng_state(device)
    try:
        torch.manual_seed(seed)
        yield
    finally:
        set_rng_state(states, device)


def _named(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)
