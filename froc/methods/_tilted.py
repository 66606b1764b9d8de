"""Base states from which a cosine has a gradient: those of the model itself are where it has none."""

import torch
from torch import Tensor

from froc import hashing

TILT = 0.01
"""Relative tilt of the base states: where both states are equal, the cosine has zero gradient."""


def tilted(base: Tensor, layer: int, seed: int) -> Tensor:
    """(..., D) states moved by `TILT` of their length in one direction, drawn by layer and seed."""
    draw = torch.Generator().manual_seed(hashing.derive_seed("tilt", layer, seed))
    tilt = torch.randn(base.shape[-1], generator=draw).to(base)
    direction: Tensor = tilt / tilt.norm()
    length: Tensor = base.norm(dim=-1, keepdim=True)
    return base + TILT * length * direction
