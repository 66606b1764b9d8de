"""Passes that begin at a block: what the blocks before it compute stays the same while only later parameters change."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc.models.architecture import agree, few_logits
from froc.models.autocast import current
from froc.models.hooks import blocks, blocks_path

LARGEST_STORE = 2**29
"""Bytes of states that are kept of measured rows, per model."""


@dataclass(frozen=True)
class Entry:
    """Where a pass begins. block: the first that is computed. states: (B, T, D) its inputs."""

    block: int
    states: Tensor


@dataclass
class _Store:
    """States of batches that were measured: (block, precision, shape, token ids) -> states."""

    states: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    bytes: int = 0


_ABLE: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()
_STORES: "WeakKeyDictionary[PreTrainedModel, _Store]" = WeakKeyDictionary()
_FROZEN: "WeakKeyDictionary[PreTrainedModel, int]" = WeakKeyDictionary()


def frozen_blocks(model: PreTrainedModel, changed: Iterable[str]) -> int:
    """Number of leading blocks whose outputs stay the base model's where only parameters of these names differ from it.

    0 where one of them lies outside of the blocks, for it may be the embeddings, and where there are none.
    """
    path, count = blocks_path(model) + ".", len(blocks(model))
    least = count
    for name in changed:
        if not name.startswith(path):
            return 0
        least = min(least, int(name.removeprefix(path).partition(".")[0]))
    return least % count


@contextmanager
def entered(model: PreTrainedModel, entry: Entry) -> Iterator[None]:
    """Context manager: passes do not compute the blocks before `entry.block`, whose inputs are given."""
    skipped = list(blocks(model)[: entry.block])
    for block in skipped[:-1]:
        block.forward = _unchanged
    skipped[-1].forward = lambda *_, **__: entry.states
    try:
        yield
    finally:
        for block in skipped:
            del block.forward


def can_enter(model: PreTrainedModel) -> bool:
    """Whether passes may begin at a block: blocks hand on one tensor, and a pass that begins at the middle gives the same logits.

    Tested once on a few tokens; False on the meta device, in training mode (dropout), for one block, and for compiled or recomputed ones.
    """
    if model.training or model.device.type == "meta" or any("forward" in vars(block) for block in blocks(model)):
        return False
    if model not in _ABLE:
        _ABLE[model] = _agrees(model)
    return _ABLE[model]


@torch.no_grad()
def _agrees(model: PreTrainedModel) -> bool:
    middle = len(blocks(model)) // 2
    if not middle:
        return False
    outputs: list[Any] = []
    handle = blocks(model)[middle - 1].register_forward_hook(lambda _module, _args, output: outputs.append(output))
    try:
        whole = few_logits(model)
    finally:
        handle.remove()
    if not isinstance(outputs[-1], Tensor):
        return False
    try:
        with entered(model, Entry(middle, outputs[-1])):
            return agree(few_logits(model), whole, model)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False


@contextmanager
def reusing_states(model: PreTrainedModel, changed: Iterable[str]) -> Iterator[None]:
    """Context manager: measuring begins behind the frozen blocks for batches that were measured before, to the same bits.

    changed: names of the parameters that may differ from the base model's.
    """
    depth = frozen_blocks(model, changed)
    if not depth or not can_enter(model):
        yield
        return
    before = _FROZEN.get(model)
    _FROZEN[model] = depth
    try:
        yield
    finally:
        if before is None:
            del _FROZEN[model]
        else:
            _FROZEN[model] = before


@dataclass(frozen=True)
class Reuse:
    """How a batch is measured. entry: of states that are known. block: of states that are to be kept, else None."""

    entry: Entry | None = None
    block: int | None = None
    key: tuple[Any, ...] = ()


def reuse(model: PreTrainedModel, ids: Tensor) -> Reuse:
    """What is known of a batch's (B, T) token ids; nothing outside of `reusing_states`."""
    block = _FROZEN.get(model)
    if block is None:
        return Reuse()
    key = (block, current(ids.device), tuple(ids.shape), ids.cpu().numpy().tobytes())
    known = _STORES.setdefault(model, _Store()).states.get(key)
    return Reuse(block=block, key=key) if known is None else Reuse(Entry(block, known))


def keep(model: PreTrainedModel, reuse: Reuse, states: Tensor) -> None:
    """Keep the (B, T, D) inputs of a batch's first block that changes, while there is room."""
    store = _STORES[model]
    if store.bytes + states.nbytes <= LARGEST_STORE:
        store.states[reuse.key] = states
        store.bytes += states.nbytes


def _unchanged(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden
