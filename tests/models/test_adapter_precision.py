"""Adapters over a bfloat16 base are float32: a step of a usual length moves all of their entries."""

from pathlib import Path

import pytest
import torch

from froc.data.splits import Sealed, SearchView
from froc.models.base import load
from froc.plugins import make
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method


@pytest.mark.parametrize("n_adapters", [1, 2])
def test_adapters_are_float32_over_any_base(folder: Path, n_adapters: int) -> None:
    base = load(str(folder), device="cpu", dtype="bfloat16", train="lora:rank=4", n_adapters=n_adapters)
    frozen = {p.dtype for name, p in base.model.named_parameters() if "lora_" not in name}
    assert frozen == {torch.bfloat16}
    for adapter_index in range(n_adapters):
        assert {p.dtype for p in base.trainable.parameters(adapter_index).values()} == {torch.float32}


def test_small_steps_move_every_entry(folder: Path, parts: tuple[SearchView, Sealed]) -> None:
    base = load(str(folder), device="cpu", dtype="bfloat16", train="lora:rank=4")
    base.restore(1)
    before = base.trainable.snapshot()
    statistics = BaseStatistics(base, TrainingRows.of(parts[0], base, 0))
    unlearn(base, make(Method, "npo", {"lr": 1e-5, "epochs": 1}), statistics, batch=16, seed=1)
    after = base.trainable.snapshot()
    moved = [float((after[name] != before[name]).float().mean()) for name in before if name.endswith("lora_A")]
    # A moves from the second step on, since B is zero in the first
    assert min(moved) > 0.99
    merged = base.trainable.merged_state_dict()
    assert merged is not None
    assert {value.dtype for value in merged.values()} == {torch.bfloat16}
