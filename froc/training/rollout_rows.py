"""Rows that the model writes during training, stored beside the task's rows of the phase's other roles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from froc.models.batches import Counts, Stack
from froc.training.base_statistics import Role
from froc.training.components import StepContext
from froc.training.phase import Phase

ROLLOUT = "rollout"
"""Role of the rows that the model itself writes."""


@dataclass(frozen=True)
class RolloutRows:
    """One draw of a rollout.

    stack: its rows and the task's, on the device.
    offsets: role -> index of its first row in the stack.
    numbers: name -> (rows, ...) numbers of the written rows.
    """

    stack: Stack
    offsets: Mapping[Role, int]
    numbers: Mapping[str, Tensor]

    @classmethod
    def write(cls, phase: Phase, step_context: StepContext) -> "RolloutRows":
        """Let the model write the rows of the phase's next `every` steps."""
        assert phase.rollout is not None
        rows, numbers = phase.rollout.draw(step_context, phase.rollout.every * step_context.batch_size)
        reference = step_context.reference
        by_role = {role: rows if role == ROLLOUT else reference.pools.rows[role] for role in phase.roles}
        lengths = np.cumsum([0, *map(len, by_role.values())]).tolist()
        stack = Stack([row for rows in by_role.values() for row in rows], reference.base.device)
        return cls(stack, dict(zip(by_role, lengths, strict=False)), numbers)

    def lookup(self, index: Counts) -> dict[str, Tensor]:
        """name -> numbers of the written rows at (B,) indices."""
        place = torch.from_numpy(index)
        return {name: values[place.to(values.device)] for name, values in self.numbers.items()}


def in_order(steps: int, batch_size: int) -> Iterator[list[int]]:
    """Indices of the written rows, step by step, in the order in which they were written."""
    return iter(np.arange(steps * batch_size).reshape(steps, -1).tolist())
