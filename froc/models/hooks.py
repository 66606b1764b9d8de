"""Transformer blocks of a model: finding them, reading and changing their inputs and outputs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc.errors import InputError

HOME: "WeakKeyDictionary[torch.nn.Module, torch.device]" = WeakKeyDictionary()
"""Module of a block -> device on which passes begin, where a model lies on several."""


@contextmanager
def output_changed(module: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Context manager: a module's output passes through `change`, on the device on which passes begin."""
    home = HOME.get(module)

    def at_home(hidden: Tensor) -> Tensor:
        return change(hidden) if home is None else change(hidden.to(home)).to(hidden.device)

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return (at_home(output[0]), *output[1:]) if isinstance(output, tuple) else at_home(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recording_inputs(model: PreTrainedModel, modules: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Context manager: name -> the module's input in the last pass made inside; modules may lie within blocks."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(module: Any, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0].to(HOME.get(module, args[0].device))

        return hook

    with uncompiled(model), ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(note(name)).remove)
        yield seen


@contextmanager
def uncompiled(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: compiled or recomputed blocks get their plain forward back, since neither would call hooks added later."""
    kept = {block: vars(block).pop("forward") for block in blocks(model) if "forward" in vars(block)}
    try:
        yield
    finally:
        for block, forward in kept.items():
            block.forward = forward


def ended_early(model: PreTrainedModel) -> None:
    """After a pass that was ended by an exception: weights that processes divide are put away, since nothing else would."""
    divided: Any = getattr(model, "reset_iter_state", None)
    if divided is not None:
        divided()


def blocks(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The transformer blocks: the module list whose length is the configured number of layers; InputError if there is none."""
    known = _BLOCKS.get(model)
    if known is None:
        known = _BLOCKS[model] = _blocks(model)
    return known


def blocks_path(model: PreTrainedModel) -> str:
    """Name of the list of transformer blocks: parameters of block k are called PATH.k.something."""
    block_list = blocks(model)
    named: Iterator[tuple[str, torch.nn.Module]] = model.named_modules()
    return next(name for name, module in named if module is block_list)


_BLOCKS: "WeakKeyDictionary[PreTrainedModel, torch.nn.ModuleList]" = WeakKeyDictionary()


def _blocks(model: PreTrainedModel) -> torch.nn.ModuleList:
    config: Any = model.config.get_text_config()
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise InputError(
        f"{type(model).__name__} has no list of {config.num_hidden_layers} transformer blocks, which methods and metrics work "
        "on; give a model of a usual architecture (Llama, Qwen, Gemma, GPT-NeoX, ...)"
    )
