"""A method's steps on torch's meta device: the bytes that training would need, counted from its own code, before anything is trained.

Each phase is taken for two steps, since moments are there from the second on, over the longest rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from froc.models.allocations import counted, without_values
from froc.models.base import Base
from froc.models.compute import Engine
from froc.models.memory_needs import MemoryNeeds, moment_bytes
from froc.models.narrowing import narrow_alike
from froc.models.nf4 import held
from froc.models.trainable import Full, parse
from froc.training.base_statistics import BaseStatistics, Role, TrainingRows
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.rollout_rows import ROLLOUT
from froc.training.run import RowIndices, Run

STEPS = 2
"""Steps of each phase: moments are there from the second on."""


class ShortRun(Run):
    """A run of two steps per phase, over the longest rows that the phase may draw; on any device.

    trained, n_trained: largest number of bytes, and of numbers, of the parameters that a phase trains.
    """

    def __init__(
        self, method: Method, reference: BaseStatistics, *, batch: int, engine: Engine, adapter_index: int = 0
    ) -> None:
        super().__init__(method, reference, batch=batch, seed=0, adapter_index=adapter_index, engine=engine)
        self.trained = self.n_trained = 0
        self._remaining = [(phase, min(steps, STEPS)) for phase, steps in self._remaining]

    def draw(self) -> RowIndices:
        """The longest rows of each role; rows that the model writes are as they are."""
        self.trained = max(self.trained, _bytes(self.parameters.values()))
        self.n_trained = max(self.n_trained, sum(parameter.numel() for parameter in self.parameters.values()))
        drawn = super().draw()
        return {role: index if role == ROLLOUT else self._longest(role, len(index)) for role, index in drawn.items()}

    def _longest(self, role: Role, count: int) -> Any:
        places = np.asarray(self._rows_of_role(role))
        length = self.stack.length[places + self.offsets[role]]
        return places[np.resize(np.argsort(-length, kind="stable"), count)]


@dataclass
class _MetaEngine(Engine):
    """As many passes as on the device that is meant."""

    meant: str = "cuda"

    def overhead(self, device: torch.device) -> int:
        return super().overhead(torch.device(self.meant))


class Simulation:
    """A base model without values, on which methods take steps whose bytes are counted.

    base: the model that is meant; train, n_adapters: what trains in it; device: the type of device that is meant.
    """

    def __init__(
        self, base: Base, rows: TrainingRows, engine: Engine, *, train: str, n_adapters: int = 1, checkpointing: bool = False,
        device: str = "cuda", dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        model: Any = without_values(base.model)
        model = model if dtype is None else model.to(dtype)
        narrow_alike(model, base.model)
        self.base = replace(base, model=model, trainable=parse(train, model, n_adapters))
        Engine.of(model, autocast="off", checkpointing=checkpointing)
        self._rows, self._n_adapters = rows, n_adapters
        # float16's loss scale needs values, and no memory
        self._engine = _MetaEngine(engine.autocast and torch.bfloat16, engine.rows, engine.optimizer, device)
        self._reference: BaseStatistics | None = None

    def needs(self, method: Method, batch: int) -> MemoryNeeds:
        """What a method needs while it prepares and trains; what earlier methods asked of the base stays."""
        model, copies = self.base.model, self._copies()
        with counted([*model.parameters(), *model.buffers(), *copies]) as allocations:
            if self._reference is None:
                self._reference = BaseStatistics(self.base, self._rows)
            reference, engine = self._reference, self._engine
            runs = [
                ShortRun(method, reference, batch=batch, engine=engine, adapter_index=k)
                for k in range(self._n_adapters)
            ]
            train_pack(self.base, runs, engine)
        weights, copy, trained = _bytes(held(model)), _bytes(copies), sum(run.trained for run in runs)
        moments = moment_bytes(engine.optimizer, sum(run.n_trained for run in runs), trained)
        rest = allocations.peak - weights - copy - trained - moments
        return MemoryNeeds(weights, copy, trained, moments, max(0, rest))

    def _copies(self) -> list[Tensor]:
        return list(self.base.trainable.base_values().values()) if isinstance(self.base.trainable, Full) else []


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
