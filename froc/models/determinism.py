"""The same bits from the same numbers, on devices whose fastest kernels add in another order each time.

What torch computes otherwise then: sums over indices (`index_add`, `scatter_add`, gradients of embeddings and of attention) in a fixed order,
matrix products in a workspace of a fixed size. An operator that has no such implementation raises an error that names it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from froc.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

WORKSPACE, SIZE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""Environment variable that cuBLAS reads at its first use, and the value that torch asks for."""


def prepare() -> None:
    """Set what is read at a device's first use. InputError where it was used already, without."""
    torch = sys.modules.get("torch")
    if WORKSPACE not in os.environ and torch is not None and torch.cuda.is_initialized():
        raise InputError(
            f"--deterministic needs {WORKSPACE}={SIZE} before CUDA is used for the first time, and it was used in this process; set it "
            "in the environment and start again"
        )
    os.environ.setdefault(WORKSPACE, SIZE)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Context in which torch computes to the same bits, or raises an error for an operator that cannot."""
    if not wanted:
        yield
        return
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    enable()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def enable() -> None:
    """The same from here on, as in a worker process."""
    import torch

    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def cumulated(values: "Tensor") -> "Tensor":
    """Cumulated sums along the last dimension; on the host where they must be the same each time, since CUDA has them in no fixed order."""
    import torch

    if torch.are_deterministic_algorithms_enabled() and values.is_cuda:
        return values.cpu().cumsum(-1).to(values.device)
    return values.cumsum(-1)
