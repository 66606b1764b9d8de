"""Training in step: when it is over."""

import time
from collections.abc import Callable

import pytest

from froc.models.compute import Engine
from froc.training.loop import train_pack
from froc.training.phase import Phase
from tests.training.test_run import PARTS, run


def clock(start: float, step: float) -> Callable[[], float]:
    """A clock that goes on by a step each time that it is read."""
    now = start - step

    def read() -> float:
        nonlocal now
        now += step
        return now

    return read


@pytest.mark.parametrize(("deadline", "steps"), [(2.0, 10), (1.99, 0)])
def test_the_deadline_itself_is_in_time(deadline: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still at 2."""
    made = run(Phase(PARTS))
    monkeypatch.setattr(time, "monotonic", clock(2.0, 0.0))
    if steps:
        train_pack(made.base, [made], Engine(), deadline)
    else:
        with pytest.raises(TimeoutError):
            train_pack(made.base, [made], Engine(), deadline)
    assert made.done == steps


def test_after_the_deadline_no_step_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(Phase(PARTS))
    monkeypatch.setattr(time, "monotonic", clock(0.0, 1.0))
    with pytest.raises(TimeoutError):
        train_pack(made.base, [made], Engine(), 2.5)
    assert made.done == 3


def test_what_does_not_train_gets_no_gradient_in_a_step() -> None:
    """And every parameter may have one again when training is over."""
    made = run(Phase(PARTS))
    wanted: list[set[str]] = []

    def look() -> None:
        wanted.append({name for name, p in made.base.model.named_parameters() if p.requires_grad})

    trained = dict(list(made.parameters.items())[:1])
    made.parameters.clear()
    made.parameters.update(trained)
    train_pack(made.base, [made], Engine(), after_step=look)
    assert wanted
    assert all(names == set(trained) for names in wanted)
    assert all(p.requires_grad for p in made.base.model.parameters())
