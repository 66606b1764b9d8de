"""How a step is computed: precision, memory and number of passes. Only rounding depends on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from froc.errors import InputError
from froc.models.autocast import autocast, recomputing
from froc.models.hooks import blocks
from froc.models.memory import with_fewer_rows
from froc.models.onednn import as_they_were
from froc.models.training_options import PRECISIONS

PASS = {"cpu": 128, "cuda": 4096}
"""Tokens that a device could process in the time that launching one more pass takes."""
DEFAULT_PASS = 1024

Result = TypeVar("Result")


@contextmanager
def without_gradients() -> Iterator[None]:
    """Context manager and decorator: nothing is differentiated.

    In torch's inference mode, but where a model is divided among processes: weights that are gathered there train afterwards.
    """
    divided = torch.distributed.is_available() and torch.distributed.is_initialized()
    with torch.no_grad() if divided else torch.inference_mode():
        yield


@dataclass
class Engine:
    """Precision and pass size of training.

    autocast: dtype of matrix products in training (parameters keep theirs); None for the parameters' own.
    rows: largest number of rows per role and pass; None for the whole batch. Halved after an out-of-memory error, and
        kept.
    optimizer: of `froc.models.training_options.OPTIMIZERS`.
    """

    autocast: torch.dtype | None = None
    rows: int | None = None
    optimizer: str = "adamw"

    @classmethod
    def of(
        cls, model: PreTrainedModel, *, autocast: str | None = None, checkpointing: bool = False, compiled: bool = False,
        optimizer: str = "adamw",
    ) -> "Engine":  # fmt: skip
        """Prepare a model. Autocast None chooses bfloat16 where the device is fast at it and parameters are float32."""
        if autocast is not None and autocast not in PRECISIONS:
            raise InputError(f"no precision is called {autocast!r}; there are: {', '.join(PRECISIONS)}")
        if compiled:
            as_they_were(model)
        for block in blocks(model) if checkpointing or compiled else ():
            plain: Callable[..., Any] = block.forward
            compact = torch.compile(plain, dynamic=True) if compiled else plain
            # only the block's forward is replaced: hooks and the early end of a pass stay outside of it
            block.forward = (
                partial(checkpoint, compact, use_reentrant=False, context_fn=recomputing) if checkpointing else compact
            )
        if autocast is not None:
            return cls(None if autocast == "off" else getattr(torch, autocast), optimizer=optimizer)
        first = next(model.parameters())
        fast = first.is_cuda and first.dtype == torch.float32 and torch.cuda.is_bf16_supported()
        return cls(torch.bfloat16 if fast else None, optimizer=optimizer)

    def overhead(self, device: torch.device) -> int:
        """Cost of one more pass, in tokens."""
        return PASS.get(device.type, DEFAULT_PASS)

    @contextmanager
    def precision(self, device: torch.device) -> Iterator[None]:
        """Context of a training step's passes."""
        with autocast(device, self.autocast):
            yield

    def fitting(self, rows: int, work: Callable[[int], Result], undo: Callable[[], None]) -> Result:
        """Call `work` with as many rows at once as memory allows; `undo` is called before each retry."""

        def tried(size: int) -> Result:
            result = work(size)
            if size < rows:
                self.rows = size
            return result

        return with_fewer_rows(min(self.rows or rows, rows), tried, undo)


def slowdown(precision: torch.dtype, device: torch.device, size: int = 384) -> float:
    """How many times as long as a float32 matrix product one in another precision takes on a device; the least of three each.

    Processors without instructions for bfloat16 or float16 convert every number, which takes several times as long.
    """

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        taken = []
        for _ in range(4):
            begin = time.perf_counter()
            # reading a number waits for the device
            float((matrix @ matrix)[0, 0])
            taken.append(time.perf_counter() - begin)
        return min(taken[1:])

    return seconds(precision) / seconds(torch.float32)
