"""Copies of what trained, loads and mixes of them, and where copies lie."""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from froc.models import device_room
from froc.models.base import read_weights, write_weights
from froc.models.stored_weights import StoredWeights
from froc.models.trainable import Full
from tests.training.small import llama

MATRIX = "model.layers.1.mlp.up_proj.weight"
OTHER = "model.layers.0.mlp.up_proj.weight"


def _moved(scope: Full, *names: str) -> dict[str, Tensor]:
    """Random values for these parameters; what they are now."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name in names:
            scope.parameters()[name].copy_(torch.randn(scope.parameters()[name].shape, generator=draw))
    return scope.snapshot()


@pytest.mark.parametrize("mix", [0.5, 1.0, 1.3])
def test_a_stop_holds_what_trained_and_is_mixed_in_place_to_the_same_bits(mix: float) -> None:
    scope = Full(llama(40))
    learnt, start = _moved(scope, MATRIX), scope.base_values()
    stop = scope.copy([MATRIX])
    places = {name: parameter.data_ptr() for name, parameter in scope.parameters().items()}
    assert list(stop) == [MATRIX]
    _moved(scope, OTHER, MATRIX)
    scope.load(stop, mix)
    for name, parameter in scope.parameters().items():
        expected = learnt[name] if mix == 1.0 else torch.lerp(start[name], learnt[name], mix)
        assert torch.equal(parameter, expected)
        assert parameter.data_ptr() == places[name]


def test_what_a_stop_does_not_name_stays_where_it_is_told_to() -> None:
    scope = Full(llama(40))
    stop = scope.copy([MATRIX])
    learnt = _moved(scope, MATRIX, OTHER)
    scope.load(stop, others_stay=True)
    assert torch.equal(scope.parameters()[OTHER], learnt[OTHER])
    assert torch.equal(scope.parameters()[MATRIX], scope.base_values()[MATRIX])


def test_only_what_differs_from_the_base_in_a_bit_is_kept(tmp_path: Path) -> None:
    scope = Full(llama(40))
    assert scope.changed() == {}
    with torch.no_grad():
        scope.parameters()[MATRIX][0, 0] = 0.0
        scope.base_values()[MATRIX][0, 0] = -0.0
    learnt = _moved(scope, OTHER)
    assert set(scope.changed()) == {MATRIX, OTHER}
    write_weights(scope.changed(), tmp_path / "kept.safetensors")
    scope.reset(0)
    scope.load(read_weights(tmp_path / "kept.safetensors"))
    assert all(torch.equal(p, learnt[name]) for name, p in scope.parameters().items())
    write_weights({}, tmp_path / "none.safetensors")
    scope.load(read_weights(tmp_path / "none.safetensors"))
    assert scope.changed() == {}


def test_copies_need_what_the_peak_so_far_leaves_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 1,000 bytes, of which another program holds 100 and this one 500; its peak was 700. A margin of 50."""
    use: Any = {"mem_get_info": (400, 1000), "memory_reserved": 500, "max_memory_allocated": 700}
    for name, value in use.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(device_room, "_PEAKS", {})
    device = torch.device("cuda", 0)
    assert device_room.room(device) == 400 + 500 - 700 - 50
    device_room.reset_peak(device)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 450)
    assert device_room.room(device) == 400 + 500 - 700 - 50
    assert device_room.room(torch.device("cpu")) == math.inf


def test_a_copy_is_no_alias() -> None:
    value = torch.ones(3)
    for copies in (device_room.copied({"a": value}), device_room.on_host({"a": value})):
        value.add_(1.0)
        assert not torch.equal(copies["a"], value)
    assert device_room.copied({}) == {}


def test_stored_weights_read_each_tensor_once(tmp_path: Path) -> None:
    write_weights({"a": torch.ones(2), "b": torch.zeros(3)}, tmp_path / "kept.safetensors")
    stored = StoredWeights(tmp_path / "kept.safetensors")
    assert (list(stored), len(stored)) == (["a", "b"], 2)
    with mock.patch.object(stored, "_file", wraps=stored._file) as file:
        weights = {name: stored[name] for name in ("a", "b", "c") if name in stored}
    assert [value.tolist() for value in weights.values()] == [[1.0, 1.0], [0.0, 0.0, 0.0]]
    assert file.get_tensor.call_count == 2
