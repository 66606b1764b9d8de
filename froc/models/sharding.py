"""A model whose parameters are divided among a group of processes that compute the same (torch's FSDP2, `fully_shard`).

Each process holds its part of every weight, of the base copy, of gradients and moments; a block's whole weights exist while it
computes. All processes see all rows and take the same decisions: what a step, a look or a mix comes to is what one process comes
to, up to the order in which gradients are added. Adapters are small, so every process has them whole, and computes the same gradients of them.
What leaves the model (digests, kept and saved weights) is whole.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn import Module, Parameter
from transformers import PreTrainedModel

from froc.errors import InputError
from froc.models.experts import adapter_targets
from froc.models.hooks import blocks
from froc.models.process_group import mesh, own, part, rank, whole
from froc.models.trainable import Full, Lora, TrainableParameters, Weights, parse, same_bits
from froc.models.training_options import read_scope


class ShardedFull(Full):
    """All parameters of a model, or those whose names match `pattern`, divided among the processes of this one's group."""

    def __init__(self, model: PreTrainedModel, pattern: str = "") -> None:
        _divide(model, set())
        self._model = model
        super().__init__(model, pattern)

    @torch.no_grad()
    def load(
        self, weights: Mapping[str, Tensor], mix: float = 1.0, adapter_index: int = 0, *, others_stay: bool = False
    ) -> None:
        """Each process writes its part; weights may be whole or divided."""
        for name, parameter in self._own.items():
            local, start = own(parameter), own(self._base_values[name])
            if name in weights:
                local.copy_(part(weights[name], parameter))
                if mix != 1.0:
                    torch.lerp(start, local, mix, out=local)
            elif not others_stay:
                local.copy_(start)

    def snapshot(self, adapter_index: int = 0) -> Weights:
        """Whole, on the CPU."""
        return {name: whole(value.detach()).cpu() for name, value in self._own.items()}

    def copy(self, names: Collection[str], adapter_index: int = 0) -> Weights:
        """Each process's part of these parameters."""
        return {name: self._own[name].detach().clone() for name in names}

    def changed(self, adapter_index: int = 0) -> Weights:
        """Whole, on the CPU of the group's first process, of the parameters that differ from the base in any bit; nothing in the others."""
        changed: Weights = {}
        for name, parameter in self._own.items():
            value, start = whole(parameter.detach()), whole(self._base_values[name])
            if rank() == 0 and not same_bits(value, start):
                changed[name] = value.cpu()
        return changed

    def keep_base_on_host(self) -> None:
        """Nothing: the copy is divided, too."""

    def merged_state_dict(self) -> Weights | None:
        """Whole, on the CPU."""
        state: dict[str, Any] = self._model.state_dict()
        return {name: whole(value.detach()).cpu() for name, value in state.items()}


class ShardedLora(Lora):
    """Adapters over a base whose weights are divided among the processes of this one's group; each process has the adapters whole."""

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        super().__init__(model, **options)
        adapters = {p for index in range(self.n_adapters) for p in self.parameters(index).values()}
        _divide(model, adapters)
        for parameter in adapters:
            parameter.data = parameter.data.to(own(next(model.parameters())).device)


def divided(train: str, model: PreTrainedModel, n_adapters: int = 1) -> TrainableParameters:
    """The parameters that `--train` names, of a model that is divided now. InputError for what cannot be divided."""
    kind, numbers = read_scope(train, n_adapters)
    if "bits" in numbers:
        raise InputError(
            "--executor sharded divides weights, and a base in four bits is held as packed numbers; leave bits out of --train"
        )
    if (
        kind == "lora"
        and adapter_targets(model) is not None
        and (numbers.get("experts", 1) or numbers.get("router", 0))
    ):
        raise InputError(
            "--executor sharded: adapters of experts are added to weights that a process holds a part of; give --train "
            "lora:rank=8,experts=0, or full"
        )
    return parse(train, model, n_adapters, ShardedFull, ShardedLora)


def _divide(model: PreTrainedModel, stay: set[Parameter]) -> None:
    """Divide all parameters but those that stay whole in every process."""
    if not hasattr(torch.distributed.fsdp.FSDPModule, "reset_iter_state"):
        raise InputError(
            f"--executor sharded ends passes early, which torch {torch.__version__} does not allow; install torch 2.13"
        )
    for unit in (*blocks(model), *_alone(model), model):
        # made again before each use, since weights change between passes
        fully_shard(unit, mesh=mesh(), reshard_after_forward=True, ignored_params=stay)


def _alone(model: PreTrainedModel) -> Iterator[Module]:
    """Modules outside of the blocks with parameters of their own that no other module shares.

    What computes before the head may not wait for the end of the pass, which does not come where logits are made a chunk at a time.
    """
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    inside = {id(module) for block in blocks(model) for module in block.modules()}
    for module in model.modules():
        direct = list(module.parameters(recurse=False))
        if direct and id(module) not in inside and module is not model and all(owners[id(p)] == 1 for p in direct):
            yield module
