"""froc's 8-bit AdamW beside bitsandbytes', torchao's and plain AdamW: how near a training of the embedded model ends to one in float32 throughout.

    python benchmarks/eight_bits.py        # bitsandbytes' and torchao's rows need these packages

apart: distance of the end from the float32 one, as a share of how far that went. along: how far it went in that one's direction (1 is
as far). moved: share of weights that differ from the start in any bit. Deterministic.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from several_devices import SMALL
from torch import Tensor

from froc.data.splits import SearchView, split
from froc.data.tasks import embedded_text
from froc.models.base import Base, load
from froc.models.compute import Engine
from froc.plugins import make
from froc.training import optimiser
from froc.training.adamw import WEIGHT_DECAY
from froc.training.adamw import adamw as ours
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method

CASES = (("float32", 2e-3), ("bfloat16", 2e-3), ("bfloat16", 2e-5))
"""Types of the parameters, and learning rates."""


def theirs(parameters: Any, lr: float, *_: Any) -> torch.optim.Optimizer:
    """bitsandbytes', with 8-bit moments for parameters of any size."""
    optimizers: Any = import_module("bitsandbytes.optim")
    made: torch.optim.Optimizer = optimizers.AdamW8bit(
        list(parameters), lr=lr, weight_decay=WEIGHT_DECAY, min_8bit_size=1
    )
    return made


def of_torchao(parameters: Any, lr: float, *_: Any) -> torch.optim.Optimizer:
    """torchao's, which rounds bfloat16 weights at random, too; it keeps moments of fewer than 4,096 values in the parameters' type."""
    library: Any = import_module("torchao.optim")
    made: torch.optim.Optimizer = library.AdamW8bit(
        list(parameters), lr=lr, weight_decay=WEIGHT_DECAY, bf16_stochastic_round=True
    )
    return made


def change(
    base: Base, view: SearchView, lr: float, engine: Engine, factory: Callable[..., Any]
) -> Mapping[str, Tensor]:
    """How far five epochs of NPO moved each weight, in float32."""
    vars(optimiser)["adamw"] = factory
    start = {name: value.float() for name, value in base.trainable.base_values().items()}
    reference = BaseStatistics(base, TrainingRows.of(view, base, 0))
    unlearn(base, make(Method, "npo", {"lr": lr, "epochs": 5}), reference, batch=16, seed=0, engine=engine)
    return {name: value.float() - start[name] for name, value in base.trainable.snapshot().items()}


def flat(changes: Mapping[str, Tensor]) -> Tensor:
    """All changes side by side."""
    return torch.cat([value.flatten() for value in changes.values()])


def main() -> None:
    """Print a row per case and optimiser."""
    view, _ = split(embedded_text.task(), 0.2)
    for dtype, lr in CASES:
        exact = flat(change(load(str(SMALL), device="cpu"), view, lr, Engine(), ours))
        base = load(str(SMALL), device="cpu", dtype=dtype)
        ways: dict[str, tuple[Engine, Callable[..., Any]]] = {
            "AdamW": (Engine(), ours),
            "adamw8bit": (Engine(optimizer="adamw8bit"), ours),
        }
        if find_spec("bitsandbytes"):
            ways["bitsandbytes"] = (Engine(), theirs)
        if find_spec("torchao"):
            ways["torchao"] = (Engine(), of_torchao)
        for name, (engine, factory) in ways.items():
            moved = flat(change(base, view, lr, engine, factory))
            apart = float((moved - exact).norm() / exact.norm())
            along = float(moved @ exact / exact.square().sum())
            print(
                f"{dtype}, lr {lr:g}, {name}: apart {apart:.3f}, along {along:.3f}, moved {float((moved != 0).float().mean()):.3f}"
            )


if __name__ == "__main__":
    main()
