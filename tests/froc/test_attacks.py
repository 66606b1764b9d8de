"""Attacks: the contract, and quantisation's promise that small changes vanish."""

import torch

from froc.attacks import Attack
from froc.data import Row
from froc.plugins import find, make, names


def test_contract() -> None:
    for name in names(Attack):
        attack = make(Attack, name)
        assert find(Attack, name).allows
        weights = {"w": torch.randn(8, 40, generator=torch.Generator().manual_seed(0)), "norm": torch.ones(8)}
        kept = {key: value.clone() for key, value in weights.items()}
        attacked = attack.weights(weights)
        assert {key: (value.shape, value.dtype) for key, value in attacked.items()} == {
            key: (value.shape, value.dtype) for key, value in weights.items()
        }
        assert all(torch.equal(weights[key], kept[key]) for key in weights)
        assert attack.rows([Row("q", "a")]) is not None


def test_quantisation_has_few_levels_and_forgets_small_changes() -> None:
    attack = make(Attack, "quantization", {"bits": 4, "group": 32})
    base = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    rounded = attack.weights({"w": base})["w"]
    assert all(len(group.unique()) <= 15 for group in rounded.reshape(-1, 32))
    assert torch.allclose(attack.weights({"w": rounded})["w"], rounded, atol=1e-6)
    # a change below half a level of every group, away from each group's largest weight, is rounded away
    scale = base.reshape(6, 2, 32).abs().amax(-1, keepdim=True) / 7
    off_grid = (base.reshape(6, 2, 32) / scale).round() * scale
    moved = off_grid.clone()
    small = off_grid.abs() < off_grid.abs().amax(-1, keepdim=True)
    moved[small] += (0.4 * scale).expand_as(off_grid)[small]
    assert not torch.equal(moved, off_grid)
    assert torch.allclose(attack.weights({"w": moved.reshape(6, 64)})["w"], off_grid.reshape(6, 64), atol=1e-6)
