"""What training needs at least: the bytes of the tensors that are there after a step, and what is said where they cannot fit."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from froc.data.splits import Sealed, SearchView
from froc.errors import InputError
from froc.models import memory_needs
from froc.models.base import Base, load
from froc.models.compute import Engine
from froc.models.memory_needs import MemoryNeeds, alternatives, needs, refuse_too_large
from froc.plugins import make
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.run import Run

SCOPES = ("full", "layers:last=1", "lora:rank=4")


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scope", SCOPES)
def test_the_parts_are_the_tensors_of_a_step(
    folder: Path, parts: tuple[SearchView, Sealed], scope: str, dtype: str
) -> None:
    base = load(str(folder), device="cpu", dtype=dtype, train=scope)
    statistics = BaseStatistics(base, TrainingRows.of(parts[0], base, 0))
    run = Run(make(Method, "grad_diff", {"lr": 1e-4, "epochs": 1}), statistics, batch=16, seed=1, engine=Engine())
    seen: dict[str, int] = {}

    def look() -> None:
        parameters = run.parameters.values()
        state = run.optimiser._adamw.state
        seen["moments"] = _bytes(state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq"))
        seen["trained"] = _bytes(parameters)

    train_pack(base, [run], Engine(), after_step=look)
    needed = needs(base)
    assert needed.weights == _bytes(base.model.parameters())
    assert needed.moments == seen["moments"] > 0
    assert needed.gradients == seen["trained"]
    copy = 0 if scope.startswith("lora") else _bytes(base.trainable.base_values().values())
    assert needed.base_copy == copy
    assert needed.total == sum(v for name, v in needed.document.items() if name != "total") == needed.document["total"]


def test_every_adapter_of_a_pack_counts(folder: Path) -> None:
    single = needs(load(str(folder), device="cpu", train="lora:rank=4"))
    triple = needs(load(str(folder), device="cpu", train="lora:rank=4", n_adapters=3))
    assert (triple.gradients, triple.moments) == (3 * single.gradients, 3 * single.moments)
    assert triple.weights - single.weights == 2 * single.gradients


def test_the_alternatives_are_what_loading_with_them_needs(folder: Path) -> None:
    """Of the same base, whatever trains in it."""
    proposed = alternatives(load(str(folder), device="cpu"), rank=4, last=1)
    assert proposed == {
        option: needs(load(str(folder), device="cpu", train=option)) for option in ("lora:rank=4", "layers:last=1")
    }
    assert alternatives(load(str(folder), device="cpu", train="lora:rank=2"), rank=4, last=1) == proposed


def test_the_base_copy_goes_to_the_host_where_all_that_trains_does_not_fit_with_it() -> None:
    """By hand: of weights, copy, gradients and moments, 32 bytes each in float32, 160 in all, a device may hold nine tenths."""
    needed = MemoryNeeds(32, 32, 32, 64)
    assert memory_needs.copy_on_host(needed, 4, "adamw", 177)
    assert not memory_needs.copy_on_host(needed, 4, "adamw", 178)
    assert not memory_needs.copy_on_host(needed, 4, "adamw8bit", 127)
    assert memory_needs.copy_on_host(MemoryNeeds(32, 32, 1, 2), 4, "adamw", 177)
    assert not memory_needs.copy_on_host(needed, 4, "adamw", None)
    assert not memory_needs.copy_on_host(MemoryNeeds(32, 0, 1, 2), 4, "adamw", 1)


def test_what_no_method_could_train_is_refused_with_what_would_fit(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method may train a few layers only, so gradients and moments of all parameters are no reason to refuse."""
    whole = needs(base)
    least = whole.weights
    for memory in (least, None):
        monkeypatch.setattr(memory_needs, "device_memory", lambda _, memory=memory: memory)
        refuse_too_large(base)
    monkeypatch.setattr(memory_needs, "device_memory", lambda _: least - 1)
    fits, too_large = MemoryNeeds(least - 1, 0, 0, 0), MemoryNeeds(least, 0, 0, 0)
    monkeypatch.setattr(memory_needs, "alternatives", lambda _: {"lora:rank=16": fits, "layers:last=4": too_large})
    with pytest.raises(
        InputError, match=r"the weights need .* GB, and cpu has .* GB; --train lora:rank=16 needs at least \S+$"
    ):
        refuse_too_large(base)
    monkeypatch.setattr(memory_needs, "alternatives", lambda _: {"lora:rank=16": too_large})
    with pytest.raises(InputError, match="take a smaller model"):
        refuse_too_large(base)


def test_an_8b_model_in_float32_is_said_in_gigabytes() -> None:
    size = 32 * 10**9
    assert MemoryNeeds(size, size, size, 2 * size).sentence() == (
        "160 GB (weights 32, base copy 32, gradients 32, moments 64)"
    )


def test_the_memory_of_this_machine_is_what_the_system_says() -> None:
    total = memory_needs.device_memory(torch.device("cpu"))
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_needs.device_memory(torch.device("meta")) is None
