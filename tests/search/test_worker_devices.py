"""How many workers a machine or a cluster gets, and on what device each computes."""

from dataclasses import replace

import pytest

from froc.search import machine as machines
from froc.search.executors import ray
from froc.search.machine import Machine, ray_workers, worker_devices

RAY = Machine(executor="ray://head:10001")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A cluster of 4 GPUs and 32 processors; the addresses that were asked."""
    asked: list[str | None] = []

    def resources(address: str | None) -> tuple[int, int]:
        asked.append(address)
        return 4, 32

    monkeypatch.setattr(ray, "resources", resources)
    return asked


@pytest.mark.parametrize(
    ("workers", "gpus", "expected"),
    [
        (None, None, (4, 1.0)), (None, 0.5, (8, 0.5)), (None, 2.0, (2, 2.0)), (None, 8.0, (1, 8.0)), (None, 0.0, (32, 0.0)),
        (3, None, (3, 1.0)), (3, 0.25, (3, 0.25)), (3, 0.0, (3, 0.0)),
    ],
)  # fmt: skip
def test_ray_workers_take_the_gpus_of_the_cluster_unless_told(
    cluster: list[str | None], workers: int | None, gpus: float | None, expected: tuple[int, float]
) -> None:
    machine = replace(RAY, workers=workers, worker_gpus=gpus)
    assert ray_workers(machine) == expected
    assert worker_devices(machine) == ["ray"] * expected[0]
    # who says both need not wait for the cluster
    assert set(cluster) == (set() if workers is not None and gpus is not None else {"ray://head:10001"})


def test_without_gpus_there_is_a_ray_worker_for_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "resources", lambda _: (0, 6))
    assert ray_workers(RAY) == (6, 0.0)


def test_the_clusters_address_is_the_executors_or_the_environments(
    cluster: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    ray_workers(replace(RAY, executor="ray"))
    monkeypatch.delenv("RAY_ADDRESS")
    ray_workers(replace(RAY, executor="ray"))
    assert cluster == ["10.0.0.1:6379", None]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (Machine(), ["cuda:0", "cuda:1"]), (Machine(workers=3), ["cuda:0", "cuda:1", "cuda:0"]), (Machine(workers=1), []),
        (Machine(executor="processes", workers=1), ["cuda:0"]), (Machine(executor="inline"), []),
    ],
)  # fmt: skip
def test_processes_take_the_gpus_in_turn(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, expected: list[str]
) -> None:
    monkeypatch.setattr(machines, "_gpus", lambda _: ["cuda:0", "cuda:1"])
    assert worker_devices(machine) == expected


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (Machine(), []), (Machine(workers=3), ["cpu"] * 3), (Machine(executor="processes"), ["cpu"] * 5),
        (Machine(executor="processes", workers=2), ["cpu"] * 2),
    ],
)  # fmt: skip
def test_without_gpus_processes_compute_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, expected: list[str]
) -> None:
    monkeypatch.setattr(machines, "_gpus", lambda _: [])
    monkeypatch.setattr("froc.search.executors.cores", lambda: 5)
    assert worker_devices(machine) == expected
