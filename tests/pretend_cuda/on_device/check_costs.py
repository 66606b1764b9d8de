"""Memory and waits do not grow: costs.toml keeps what each method, attack, look and step takes (`costs.py` writes it again)."""

import tomllib
from collections.abc import Mapping

import pytest

from froc.measuring.attack import Attack
from froc.measuring.metric import Metric
from froc.plugins import names
from tests.pretend_cuda.on_device import costs
from tests.pretend_cuda.on_device.costs import FOLDERS, LOOKS, METHODS, STEPPED, TABLE, Bench

KEPT: Mapping[str, Mapping[str, float]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
SLACK, GAIN = 1.02, 0.75
"""Shares of the kept number: above the first it has grown, below the second the table is to be written again."""
AGAIN = "python -m tests.pretend_cuda tests.pretend_cuda.on_device.costs"


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


def _held(section: str, name: str, number: float) -> None:
    kept = KEPT[section][name]
    assert number <= kept * SLACK, f"{section} {name}: {number}, and {kept} in costs.toml"
    assert number >= kept * GAIN, f"{section} {name}: {number}, less than {kept}; write costs.toml again: {AGAIN}"


def test_the_table_has_everything() -> None:
    assert set(KEPT["methods"]) == set(METHODS)
    assert set(KEPT["attacks"]) == set(names(Attack))
    assert set(KEPT["looks"]) == set(names(Metric)) - FOLDERS


@pytest.mark.parametrize("name", METHODS)
def test_memory_of_a_method(bench: Bench, name: str) -> None:
    _held("methods", name, costs.method_memory(bench, name))


@pytest.mark.parametrize("name", names(Attack))
def test_memory_of_an_attack(bench: Bench, name: str) -> None:
    """And what the table of memory counts beforehand, to a tenth."""
    per_parameter = costs.attack_memory(bench, name)
    _held("attacks", name, per_parameter)
    size = sum(p.numel() for p in bench.wide.model.parameters())
    assert costs.counted(bench, *costs.attacked(name)).total / size == pytest.approx(per_parameter, rel=0.1)


def test_memory_of_an_attack_that_trains_on_the_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted where the device has no room for gradients and moments."""
    with monkeypatch.context() as patch:
        patch.setattr("froc.attacks._training.room", lambda _: 0.0)
        per_parameter = costs.attack_memory(bench, "relearning")
    view, measured_as = costs.attacked("relearning")
    size = sum(p.numel() for p in bench.wide.model.parameters())
    assert costs.counted(bench, view, measured_as, free=0.0).total / size == pytest.approx(per_parameter, rel=0.1)
    # moments, and most of the gradients, are not on the device
    assert per_parameter < KEPT["attacks"]["relearning"] - 8


@pytest.mark.parametrize("name", sorted(set(names(Metric)) - FOLDERS))
def test_memory_of_a_look(bench: Bench, name: str) -> None:
    """And what the table of memory counts beforehand beside weights and base copy, to a tenth."""
    kilobytes = costs.look_memory(bench, name)
    _held("looks", name, kilobytes)
    view, measured_as = costs.looked_at(bench, name)
    needed = costs.counted(bench, view, measured_as)
    assert needed.activations / 1000 / len(view.queries["risk"]) == pytest.approx(kilobytes, rel=0.1)


@pytest.mark.parametrize("name", STEPPED)
def test_waits_of_a_step(bench: Bench, name: str) -> None:
    _none_more(f"step {name}", costs.step_waits(bench, name))


@pytest.mark.parametrize("name", LOOKS)
def test_waits_of_a_look(bench: Bench, name: str) -> None:
    _none_more(f"look {name}", costs.look_waits(bench, name))


def _none_more(section: str, waits: Mapping[str, float]) -> None:
    kept = KEPT[section]
    more = {place: (number, kept.get(place, 0)) for place, number in waits.items() if number > kept.get(place, 0)}
    # two lines of one function may be two functions of tomorrow's
    assert not more or sum(waits.values()) <= sum(kept.values()), f"{section}: function -> (waits, kept): {more}"
    assert sum(waits.values()) >= GAIN * sum(kept.values()), f"{section}: fewer waits; write costs.toml again: {AGAIN}"
