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
