"""A model whose parameters are divided among a group of processes that compute the same (torch's FSDP2, `fully_shard`).

Each process holds its part of every weight, of the base copy, of gradients and moments; a block's whole weights exist while it
computes. All processes see all rows and take the same decisions: what a step, a look or a mix comes to is what one process comes
to, up to the order in which gradients are added. What leaves the model (digests, kept and saved weights) is whole.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from froc.errors import InputError
from froc.models.forward import LINEAR_HEAD
from froc.models.hooks import blocks
from froc.models.trainable import Full, Weights, within
from froc.models.training_options import read_scope

PATIENCE = timedelta(minutes=30)
"""Time that a process waits for the others of its group."""


def join(rank: int, count: int, meeting: Path, device: str) -> None:
    """Enter a group of `count` processes as number `rank`. meeting: a file through which they find each other."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, f"file://{meeting}", timeout=PATIENCE, rank=rank, world_size=count)


def joined() -> bool:
    """Whether this process belongs to a group."""
    return bool(dist.is_available() and dist.is_initialized())


def group_size() -> int:
    """Number of processes of this one's group; 1 without a group."""
    return dist.get_world_size() if joined() else 1


def whole(value: Tensor) -> Tensor:
    """The value of all processes together; every one of them has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


class Sharded(Full):
    """All parameters of a model, or those whose names match `pattern`, divided among the processes of this one's group."""

    def __init__(self, model: PreTrainedModel, pattern: str = "") -> None:
        # made again before each use: weights change between passes, and a pass may end before the head
        for part in (*blocks(model), model):
            fully_shard(part, reshard_after_forward=True)
        # its weight would be needed outside of the pass
        LINEAR_HEAD.discard(model)
        self._model = model
        super().__init__(model, pattern)

    @torch.no_grad()
    def load(
        self, weights: Mapping[str, Tensor], mix: float = 1.0, adapter_index: int = 0, *, others_stay: bool = False
    ) -> None:
        """Each process writes its part; weights may be whole or divided."""
        for name, parameter in self._own.items():
            own, start = _part(parameter, parameter), _part(self._base_values[name], parameter)
            if name in weights:
                own.copy_(_part(weights[name], parameter))
                if mix != 1.0:
                    torch.lerp(start, own, mix, out=own)
            elif not others_stay:
                own.copy_(start)

    def snapshot(self, adapter_index: int = 0) -> Weights:
        """Whole, on the CPU."""
        return {name: whole(value.detach()).cpu() for name, value in self._own.items()}

    def copy(self, names: Collection[str], adapter_index: int = 0) -> Weights:
        """Each process's part of these parameters."""
        return {name: self._own[name].detach().clone() for name in names}

    def changed(self, adapter_index: int = 0) -> Weights:
        """Whole, on the CPU, of the parameters that differ from the base in any bit."""
        base = {name: whole(value) for name, value in self._base_values.items()}
        values = {name: whole(value.detach()) for name, value in self._own.items()}
        return {name: value.cpu() for name, value in values.items() if not torch.equal(value, base[name])}

    def keep_base_on_host(self) -> None:
        """Nothing: the copy is divided, too."""

    @contextmanager
    def temporarily_merged(
        self, model: PreTrainedModel, *, change: bool, keep: float = 1.0
    ) -> Iterator[PreTrainedModel]:
        """Context manager: the model itself. InputError for attacks that change it, which need plain weights."""
        if change:
            raise InputError(
                "attacks that change the model need its weights in one process; leave --executor sharded out, or the risk that "
                "needs the attack"
            )
        yield model

    def merged_state_dict(self) -> Weights | None:
        """Whole, on the CPU."""
        state: dict[str, Any] = self._model.state_dict()
        return {name: whole(value.detach()).cpu() for name, value in state.items()}


def divided(train: str, model: PreTrainedModel) -> Sharded:
    """The parameters that `--train` names, of a model that is divided now. InputError for adapters."""
    kind, numbers = read_scope(train)
    if kind == "lora":
        raise InputError(
            "--executor sharded divides the weights that train; give --train full, or leave it out for adapters"
        )
    return Sharded(model, within(model, numbers) if kind == "layers" else "")


def _part(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a value, divided as a parameter is."""
    if not isinstance(like, DTensor):
        return value
    if not isinstance(value, DTensor):
        # every process has the whole value, so that nothing needs to be sent
        value = distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    assert isinstance(value, DTensor)
    own: Tensor = value.to_local().detach()
    return own
