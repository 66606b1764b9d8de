"""Inputs of the first block that training changes, per training row: the blocks before it are computed once per task.

Rows are computed in groups that depend on the task alone, so that a trial's bits depend on no other trial.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from froc.models.autocast import current
from froc.models.base import Base
from froc.models.batches import Counts, Encoded, Stack, by_length
from froc.models.block_entry import Entry, can_enter
from froc.models.forward import Pass
from froc.models.memory import measured_in_rows

GROUP = 32
"""Rows that are computed together."""
LARGEST = 2**30
"""Bytes of states beyond which none are kept."""
MAX_ROWS = 4
"""Largest number of rows of the task, per row that a training run passes through the model, at which keeping them pays."""


class EntryStates:
    """States of a base model's training rows, computed on first use."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._kept: dict[tuple[str, int, torch.dtype | None], list[Tensor | None]] = {}
        self._groups: dict[str, tuple[list[list[int]], dict[int, int]]] = {}

    def fit(self, rows: Mapping[str, Sequence[Encoded]], passed: int) -> bool:
        """Whether it pays and fits to keep the states of these rows. passed: rows that one training run passes through the model."""
        all_rows = [row for of_role in rows.values() for row in of_role]
        model = self._base.model
        bytes_per_token = int(model.config.get_text_config().hidden_size) * next(model.parameters()).dtype.itemsize
        fits = sum(len(row.ids) for row in all_rows) * bytes_per_token <= LARGEST
        return fits and len(all_rows) <= MAX_ROWS * passed and can_enter(model)

    def entry(self, block: int, rows: Mapping[str, Sequence[Encoded]], places: Sequence[tuple[str, int]]) -> Entry:
        """Where a pass over these (role, row) begins. rows: role -> all its rows."""
        states = [self._of(block, role, rows[role], place) for role, place in places]
        return Entry(block, torch.nn.utils.rnn.pad_sequence(states, batch_first=True))

    def _of(self, block: int, role: str, rows: Sequence[Encoded], place: int) -> Tensor:
        kept = self._kept.setdefault((role, block, current(self._base.device)), [None] * len(rows))
        if kept[place] is None:
            if role not in self._groups:
                groups = by_length(rows, GROUP)
                self._groups[role] = groups, {row: number for number, group in enumerate(groups) for row in group}
            groups, group_of = self._groups[role]
            for row, states in self._computed(block, [rows[k] for k in groups[group_of[place]]]).items():
                kept[groups[group_of[place]][row]] = states
        states_of_row = kept[place]
        assert states_of_row is not None
        return states_of_row

    @torch.no_grad()
    def _computed(self, block: int, rows: Sequence[Encoded]) -> dict[int, Tensor]:
        stack = Stack(rows, self._base.device)
        return measured_in_rows(self._base.model, GROUP, partial(self._in_rows, block, stack))

    def _in_rows(self, block: int, stack: Stack, size: int) -> dict[int, Tensor]:
        computed: dict[int, Tensor] = {}
        for index in np.array_split(np.arange(len(stack.length)), -(-len(stack.length) // size)):
            hidden = Pass(self._base.model, stack.batch(index), hidden_at=(block - 1,), logits=False).hidden[block - 1]
            computed |= {int(k): hidden[place, : stack.length[k]].clone() for place, k in enumerate(index)}
        return computed


def places_of(index: Counts, offsets: Mapping[str, int]) -> list[tuple[str, int]]:
    """Stack indices as (role, row of the role)."""
    roles = sorted(offsets, key=lambda role: offsets[role])
    starts = np.array([offsets[role] for role in roles])
    role_indices = np.searchsorted(starts, index, side="right") - 1
    return [(roles[k], int(row - starts[k])) for k, row in zip(role_indices.tolist(), index.tolist(), strict=True)]
