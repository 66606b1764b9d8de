"""Mixture-of-experts layers: the matrices of all experts in one tensor, and the router that sends tokens to them.

Adapters change the experts; what decides where a token goes stays the base model's unless the user asks for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from froc.errors import InputError
from froc.models.hooks import blocks

COUNTS = (
    "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts", "moe_num_routed_experts",
)  # fmt: skip
"""Names under which configurations have the number of experts."""


@dataclass(frozen=True)
class Targets:
    """What adapters change in a model with experts, by names within the list of blocks.

    linear: linear layers. experts: parameters (experts, ., .). routers: parameters that decide which experts see a token.
    """

    linear: tuple[str, ...]
    experts: tuple[str, ...]
    routers: tuple[str, ...]


def number_of_experts(config: Any) -> int:
    """Experts per layer by a configuration; 0 for a model without."""
    text = config.get_text_config()
    return max(int(getattr(text, name, None) or 0) for name in COUNTS)


def refuse_packed_experts(name: str, config: Any, n_adapters: int) -> None:
    """InputError where several adapters shall train in the same passes over experts, which see tokens of all rows mixed."""
    if n_adapters > 1 and number_of_experts(config) > 1:
        raise InputError(
            f"{name} is a mixture of experts ({config.model_type}): its experts see the tokens of all rows mixed, so that adapters "
            "cannot be told apart by row; give --pack 1 with --train lora:rank=8"
        )


def adapter_targets(model: PreTrainedModel) -> Targets | None:
    """The targets in a model with stacked experts; None for one without."""
    inside = blocks(model)
    modules = dict(inside.named_modules())
    stacks = {name: parameter.shape[0] for name, parameter in _stacked(inside)}
    if not stacks:
        return None
    # a router stands beside the experts, or in a module beside them
    layers = {name.rpartition(".")[0].rpartition(".")[0]: count for name, count in stacks.items()}
    routers = set()
    for layer, count in layers.items():
        for name, parameter in modules[layer].named_parameters():
            whole = f"{layer}.{name}"
            beside = whole not in stacks and not any(
                whole.startswith(stack.rpartition(".")[0] + ".") for stack in stacks
            )
            if beside and name.endswith("weight") and parameter.ndim == 2 and parameter.shape[0] in (1, count):
                routers.add(whole)
    linear = [
        name for name, module in modules.items() if isinstance(module, torch.nn.Linear) and f"{name}.weight" not in routers
    ]  # fmt: skip
    return Targets(tuple(linear), tuple(stacks), tuple(sorted(routers)))


def _stacked(inside: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of each stack of matrices; convolutions have three dimensions, too."""
    for path, module in inside.named_modules():
        # whatever holds a kernel says so in its size
        if hasattr(module, "kernel_size"):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and min(parameter.shape) > 1:
                yield f"{path}.{name}", parameter
