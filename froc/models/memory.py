"""Too little memory: recognised on every device, and met with fewer rows at a time. Torch-free."""

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")

MESSAGES = (
    "can't allocate memory",  # CPU
    "out of memory",  # CUDA, HIP, MPS
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "HIPBLAS_STATUS_ALLOC_FAILED",
    "OUT_OF_DEVICE_MEMORY", "OUT_OF_HOST_MEMORY",  # XPU
)  # fmt: skip
"""Parts of the messages of a RuntimeError that says that an allocation failed."""
FEWER_PASSES = 16
"""Passes that measure a model with fewer rows before all are tried again: what took the memory may be gone."""
SHORT = 75
"""Exit code of a process of a group that had too little memory."""
_ROWS: "WeakKeyDictionary[Any, tuple[int, int]]" = WeakKeyDictionary()
"""Rows per pass that measuring a model was found to have memory for, where it was too little for all; and for how many passes."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device.

    >>> out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    >>> out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    # by its name, so that commands that need no torch can ask
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in MESSAGES)


def with_fewer_rows(rows: int, work: Callable[[int], Result], undo: Callable[[], object] = lambda: None) -> Result:
    """What `work` returns when it is called with `rows` rows at a time, or with half as often as memory is too little.

    undo: called before each retry. Raises what `work` raised where one row does not fit, or where memory is not the cause.
    """
    while True:
        try:
            return work(rows)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            leave_group()
            if rows == 1:
                raise
        # outside of the handler, whose traceback holds the tensors of the failed pass
        undo()
        release()
        rows = rows // 2


def measured_in_rows(model: object, rows: int, work: Callable[[int], Result]) -> Result:
    """`with_fewer_rows` for passes that measure a model; what did not fit is not tried on it for the next `FEWER_PASSES`."""
    fewer, passes = _ROWS.pop(model, (rows, 0))
    largest = min(rows, fewer)
    if passes > 1:
        _ROWS[model] = fewer, passes - 1

    def tried(size: int) -> Result:
        result = work(size)
        if size < largest:
            _ROWS[model] = size, FEWER_PASSES
        return result

    return with_fewer_rows(largest, tried)


def leave_group() -> None:
    """Where memory is too little in a process that computes together with others: end it, since the others wait for it in the middle of a pass."""
    group = sys.modules.get("froc.models.process_group")
    if group is not None and group.joined():
        os._exit(SHORT)


def release() -> None:
    """Give unused memory back to the devices."""
    gc.collect()
    torch = sys.modules.get("torch")
    for name in ("cuda", "xpu", "mps"):
        device = getattr(torch, name, None)
        if device is not None and device.is_available():
            device.empty_cache()


def advice(what: str) -> str:
    """What a user can do where memory is too little for `what`, and the trial is not the cause."""
    return (
        f"not enough memory for {what}; free some (another program may hold it; take fewer --workers) and run the same command again, "
        "no finished trial is lost. A new run needs less with --train lora:rank=8 or --dtype bfloat16"
    )
