"""Random states of every kind of device, oneDNN on the CPU alone, and several GPUs per trial."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from froc.errors import InputError
from froc.models import onednn
from froc.models.device_map import shares
from froc.models.random_state import own_draws, rng_state
from froc.search.machine import Machine, own_device, worker_devices


def test_only_layers_on_the_cpu_go_through_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is neither CPU nor CUDA, as XPU and MPS are."""
    monkeypatch.setattr(onednn, "helps", lambda: True)
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    assert onednn.through_onednn(layers) == 1
    assert "forward" in vars(layers[0])
    assert "forward" not in vars(layers[1])


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_draws_of_a_device_of_any_kind_leave_its_generator_as_it_was(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [torch.tensor([1, 2], dtype=torch.uint8)]
    device = torch.device(kind)

    def get(*named: torch.device) -> torch.Tensor:
        # there is one mps device, and its functions take no name
        assert named == (() if kind == "mps" else (device,))
        return states[-1].clone()

    def put(state: torch.Tensor, *named: torch.device) -> None:
        assert named == (() if kind == "mps" else (device,))
        states.append(state)

    there: Any = SimpleNamespace(get_rng_state=get, set_rng_state=put)
    monkeypatch.setattr(torch, kind, there)
    monkeypatch.setattr(torch, "manual_seed", lambda _: states.append(torch.zeros(2, dtype=torch.uint8)))
    before = rng_state(torch.device("cpu"))["host"]
    with own_draws(device, 3):
        states.append(torch.full((2,), 7, dtype=torch.uint8))
    assert states[-1].tolist() == [1, 2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("inside", "outside", "count", "expected"),
    [
        ([2] * 8, 0, 4, [0, 0, 1, 1, 2, 2, 3, 3]), ([2] * 6, 6, 3, [1, 1, 1, 2, 2, 2]), ([3, 3], 1, 2, [0, 1]), ([1] * 3, 9, 3, [1, 1, 2]),
        ([1] * 3, 0, 1, [0, 0, 0]),
    ],
)  # fmt: skip
def test_each_device_holds_about_as_much(inside: list[int], outside: int, count: int, expected: list[int]) -> None:
    assert shares(inside, outside, count) == expected


@pytest.mark.parametrize(
    ("machine", "workers", "own"),
    [
        (Machine(gpus_per_trial=4), ["cuda:0+cuda:1+cuda:2+cuda:3", "cuda:4+cuda:5+cuda:6+cuda:7"], "cuda:0+cuda:1+cuda:2+cuda:3"),
        (Machine(gpus_per_trial=3), ["cuda:0+cuda:1+cuda:2", "cuda:3+cuda:4+cuda:5"], "cuda:0+cuda:1+cuda:2"),
        (Machine(gpus_per_trial=8), [], "cuda:0+cuda:1+cuda:2+cuda:3+cuda:4+cuda:5+cuda:6+cuda:7"),
        (Machine(gpus_per_trial=4, workers=1), [], "cuda:0+cuda:1+cuda:2+cuda:3"),
        (Machine(gpus_per_trial=4, device="cuda", executor="inline"), [], "cuda:0+cuda:1+cuda:2+cuda:3"),
    ],
)  # fmt: skip
def test_workers_divide_the_gpus_in_groups(
    machine: Machine, workers: list[str], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    machine.check()
    assert worker_devices(machine) == workers
    assert own_device(machine) == own


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine(gpus_per_trial=0), "too few"), (Machine(gpus_per_trial=2, device="cpu"), "leave --device cpu out"),
        (Machine(gpus_per_trial=2, executor="ray"), "leave --executor ray out"),
        (Machine(gpus_per_trial=2, compiled=True), "do not go together"),
        (Machine(gpus_per_trial=2), "--gpus-per-trial 2: torch .* sees 1 cuda devices here"),
    ],
)  # fmt: skip
def test_several_gpus_that_are_not_there_or_not_asked_alike_are_refused(
    machine: Machine, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=why):
        worker_devices(machine)
