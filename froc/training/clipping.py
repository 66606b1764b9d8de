"""Clipping gradients to a norm, on one device or several."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import Parameter

from froc.models.process_group import whole


def clip(parameters: Collection[Parameter], largest: float, home: torch.device) -> Tensor:
    """Scale all gradients so that their joint norm is at most `largest`; returns the norm () before, on `home`.

    torch adds the norms device by device. Here they are added in the parameters' order, so that the sum is the same on any
    number of devices.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if len({gradient.device for gradient in gradients}) < 2:
        return whole(torch.nn.utils.clip_grad_norm_(parameters, largest))
    norms: dict[int, Tensor] = {}
    for device in {gradient.device for gradient in gradients}:
        mine = [place for place, gradient in enumerate(gradients) if gradient.device == device]
        here = torch._foreach_norm([gradients[place] for place in mine])
        norms |= {place: norm.to(home) for place, norm in zip(mine, here, strict=True)}
    total: Tensor = torch.linalg.vector_norm(torch.stack([norms[place] for place in range(len(gradients))]))
    torch.nn.utils.clip_grads_with_norm_(parameters, largest, total)
    return total
