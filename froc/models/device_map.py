"""One model on several devices: its blocks are divided among them, and a pass goes from one to the next.

All that is no block (embeddings, the last norm, the output head) lies on the first device, where a pass begins and ends. So rows, indices, logits
and losses are in one place, and code outside of the blocks sees one device.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc.models.hooks import HOME, blocks

SEPARATOR = "+"
"""Between the devices of one model, as in cuda:0+cuda:1."""
_DEVICES: "WeakKeyDictionary[PreTrainedModel, tuple[torch.device, ...]]" = WeakKeyDictionary()


def named(devices: str) -> list[str]:
    """The devices that a text names.

    >>> named("cuda:0+cuda:1")
    ['cuda:0', 'cuda:1']
    """
    return devices.split(SEPARATOR)


def devices_of(model: PreTrainedModel) -> tuple[torch.device, ...]:
    """The devices of a model, the first of which has its inputs and outputs."""
    return _DEVICES.get(model) or (next(model.parameters()).device,)


def place_on(model: PreTrainedModel, devices: str) -> PreTrainedModel:
    """The model on these devices; its blocks are divided so that each device holds about as many bytes."""
    places = [torch.device(device) for device in named(devices)]
    moved: Any = model
    if len(places) == 1:
        moved.to(places[0])
        return model
    parts = list(blocks(model))
    inside = [sum(p.nbytes for p in block.parameters()) for block in parts]
    outside = sum(p.nbytes for p in model.parameters()) - sum(inside)
    for block, number in zip(parts, shares(inside, outside, len(places)), strict=True):
        block.to(places[number])
        HOME.update(dict.fromkeys(block.modules(), places[0]))
        block.register_forward_pre_hook(_bring(places[number]), with_kwargs=True)
    for module in _others(model):
        module.to(places[0])
    parts[-1].register_forward_hook(_take_back(places[0]))
    _DEVICES[model] = tuple(places)
    return model


def shares(inside: Sequence[int], outside: int, count: int) -> list[int]:
    """The device of each block, in order.

    inside: bytes of each block. outside: bytes that lie on the first device beside its blocks. count: number of devices.

    >>> shares([1, 1, 1, 1], 1, 2)
    [0, 0, 1, 1]
    """
    device, held, rest = 0, float(outside), float(sum(inside))
    placed = []
    for position, size in enumerate(inside):
        # what this device holds where the rest is divided evenly; none may stay empty
        share = (held + rest) / (count - device)
        if device < count - 1 and (held + size / 2 > share or len(inside) - position < count - device):
            device, held = device + 1, 0.0
        placed.append(device)
        held, rest = held + size, rest - size
    return placed


def _others(model: PreTrainedModel) -> list[Any]:
    """The largest modules that hold no block and lie in none."""
    within = {id(module) for block in blocks(model) for module in block.modules()}
    holding = {id(module) for module in model.modules() if any(id(child) in within for child in module.modules())}
    return [
        child for module in model.modules() if id(module) in holding and id(module) not in within
        for child in module.children() if id(child) not in holding
    ]  # fmt: skip


def _bring(device: torch.device) -> Any:
    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return _moved(args, device), _moved(kwargs, device)

    return hook


def _take_back(device: torch.device) -> Any:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return _moved(output, device)

    return hook


def _moved(value: Any, device: torch.device) -> Any:
    """The same with all tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(item, device) for item in value)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value
