"""A group of processes that compute the same on a model whose weights they divide: who is in it, what they decide together.

Every function here does nothing where a process is alone, and has to be called by all of a group otherwise. Decisions go through gloo on the
host, so that no device has to be waited for.
"""

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn import Parameter

PATIENCE = timedelta(minutes=30)
"""Time that a process waits for the others of its group."""
_GROUP: dict[str, Any] = {}
"""`mesh` and `host`, the groups for tensors and for decisions, once joined."""


def join(rank: int, count: int, meeting: Path, device: str) -> None:
    """Enter a group of `count` processes as number `rank`. meeting: a file through which they find each other."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        # started before the mesh is made, which would choose the device by the process's number
        torch.cuda.init()
        torch.cuda.set_device(device)
    if sys.platform == "linux":
        # all are on this machine, whose name may be none that can be looked up
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, f"file://{meeting}", timeout=PATIENCE, rank=rank, world_size=count)
    _GROUP["mesh"] = init_device_mesh("cuda" if cuda else "cpu", (count,))
    _GROUP["host"] = dist.new_group(backend="gloo", timeout=PATIENCE) if cuda else dist.group.WORLD


def joined() -> bool:
    """Whether this process belongs to a group."""
    return bool(dist.is_available() and dist.is_initialized())


def size() -> int:
    """Number of processes of this one's group; 1 without a group."""
    return dist.get_world_size() if joined() else 1


def rank() -> int:
    """This process's number in its group; 0 without a group."""
    return dist.get_rank() if joined() else 0


def mesh() -> DeviceMesh:
    """The devices of the group that was joined."""
    made: DeviceMesh = _GROUP["mesh"]
    return made


def on_gpus() -> bool:
    """Whether this process's group computes on GPUs, to which its parts of a model are moved when it is divided."""
    return joined() and mesh().device_type == "cuda"


def decided_by_first(value: bool) -> bool:
    """What the group's first process says: for what each would decide by its own clock."""
    if not joined():
        return value
    decision = torch.tensor([int(value)])
    dist.broadcast(decision, 0, group=_GROUP["host"])
    return bool(decision.item())


def all_agree(value: bool) -> bool:
    """Whether it is true in every process. Also a meeting: none goes on before all are here."""
    if not joined():
        return value
    decision = torch.tensor([int(value)])
    dist.all_reduce(decision, dist.ReduceOp.MIN, group=_GROUP["host"])
    return bool(decision.item())


def is_divided(value: Tensor) -> bool:
    """Whether processes hold a part of a value each."""
    return isinstance(value, DTensor)


@contextmanager
def in_turn() -> Iterator[None]:
    """Context manager: one process after the other, so that what each reads is in the host's memory once at a time."""
    for _ in range(rank()):
        all_agree(True)
    try:
        yield
    finally:
        for _ in range(size() - rank()):
            all_agree(True)


def whole(value: Tensor) -> Tensor:
    """The value of all processes together, differentiable."""
    joint: Tensor = value.full_tensor() if isinstance(value, DTensor) else value
    return joint


def own(value: Tensor) -> Tensor:
    """This process's part of a divided value, detached and in the same memory; any other value itself."""
    local: Tensor = value.to_local().detach() if isinstance(value, DTensor) else value
    return local


def part(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a value, divided as another is; the value may be whole, as every process has it, or divided."""
    if not isinstance(like, DTensor):
        return value
    return own(divided(value, like))


def divided(value: Tensor, like: Tensor) -> Tensor:
    """A value that every process has whole, divided as another is; nothing is sent."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    made: Tensor = distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return made


def replicated(value: Tensor) -> Tensor:
    """A value that is the same in every process, for arithmetic with divided ones; itself where a process is alone."""
    made: Tensor = DTensor.from_local(value, mesh(), [Replicate()], run_check=False) if joined() else value
    return made


def called(module: torch.nn.Module, *arguments: Any) -> Any:
    """A module's output outside of a pass, where nobody gathers its weights."""
    if not any(is_divided(p) for p in module.parameters()):
        return module(*arguments)
    return torch.func.functional_call(module, {name: whole(p) for name, p in module.named_parameters()}, arguments)


@contextmanager
def edited(value: Tensor) -> Iterator[Tensor]:
    """Context manager: a tensor whole, to be changed in place; of a divided one each process takes over its part afterwards."""
    if not isinstance(value, DTensor):
        yield value
        return
    plain = whole(value.detach()).clone()
    yield plain
    own(value).copy_(part(plain, value))


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradient of a loss in each parameter; None where it has none. `.grad` stays as it is.

    Divided parameters get theirs where a backward pass leaves them, so nothing else of their model may train meanwhile.
    """
    if not any(isinstance(p, DTensor) for p in parameters):
        return list(torch.autograd.grad(loss, list(parameters), allow_unused=True))
    before = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    loss.backward()
    results = [p.grad for p in parameters]
    for p, grad in zip(parameters, before, strict=True):
        p.grad = grad
    return results


@contextmanager
def differentiable(model: torch.nn.Module, parameters: Collection[Parameter]) -> Iterator[None]:
    """Context manager: gradients in these parameters of a model can be computed, frozen or not; where it is divided, in no others."""
    held = [*parameters, *(p for p in model.parameters() if joined())]
    before = [p.requires_grad for p in held]
    chosen = {id(p) for p in parameters}
    try:
        for p in held:
            p.requires_grad_(id(p) in chosen)
        with torch.enable_grad():
            yield
    finally:
        for p, trained in zip(held, before, strict=True):
            p.requires_grad_(trained)


def description(value: Tensor) -> dict[str, Any] | None:
    """How a value is divided, as JSON: its whole shape and the dimension; None for one that is not."""
    if not isinstance(value, DTensor):
        return None
    (placement,) = value.placements
    return {"shape": list(value.shape), "dim": getattr(placement, "dim", None)}


def from_description(local: Tensor, known: Mapping[str, Any] | None) -> Tensor:
    """The divided value of which this is a process's part."""
    if known is None:
        return local
    shape = torch.Size(known["shape"])
    stride = torch.empty(shape, device="meta").stride()
    placement = Replicate() if known["dim"] is None else Shard(known["dim"])
    made: Tensor = DTensor.from_local(local, mesh(), [placement], run_check=False, shape=shape, stride=stride)
    return made
