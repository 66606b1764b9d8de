"""Length of training, order of rows, and learning-rate schedule."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from froc import hashing
from froc.training.base_statistics import Role
from froc.training.method import Method
from froc.training.terms import objective_of

WARMUP = 0.1


@dataclass(frozen=True)
class TrainingLength:
    """Length of training: `steps` optimiser steps of `batch` forget rows (and as many retain rows); edits do not count."""

    steps: int
    batch: int

    @classmethod
    def of(cls, method: Method, forget_rows: int, batch: int) -> "TrainingLength":
        """`epochs` passes over the forget rows."""
        size = min(batch, forget_rows)
        return cls(max(1, math.ceil(method.epochs * forget_rows / size)) if method.epochs else 0, size)


def draw_rows(rows: Sequence[int], size: int, role: Role, seed: int) -> Iterator[list[int]]:
    """Endless batches of row indices, every row once per pass; rows that stand for forget rows follow the same order."""
    stream = objective_of(role)
    generator = torch.Generator().manual_seed(hashing.derive_seed("rows", stream, seed))
    order: list[int] = []
    while True:
        while len(order) < size:
            order += [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
        yield order[:size]
        order = order[size:]


def schedule(step: int, steps: int) -> float:
    """Learning-rate factor in [0, 1] of a step, counted from 0: linear warm-up over a tenth of the steps, then linear decay to 0."""
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))
