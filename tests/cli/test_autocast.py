"""What is said about a precision that is slower than float32."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from froc.cli.autocast import warn_of_slow_autocast
from froc.models import compute
from froc.models.compute import Engine


def _job(autocast: torch.dtype | None) -> Any:
    return SimpleNamespace(engine=Engine(autocast), base=SimpleNamespace(device=torch.device("cpu")))


@pytest.mark.parametrize(("ratio", "warned"), [(5.9, True), (1.11, True), (1.09, False), (0.5, False)])
def test_a_slower_precision_is_said_with_its_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ratio: float, warned: bool
) -> None:
    monkeypatch.setattr(compute, "slowdown", lambda precision, device: ratio)
    warn_of_slow_autocast(_job(torch.bfloat16))
    text = " ".join(capsys.readouterr().err.split())
    assert ("a matrix product in bfloat16 takes" in text) == warned
    assert (f"{ratio:.1f} times as long as in float32 on this cpu; leave --autocast out" in text) == warned


def test_without_autocast_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "slowdown", lambda *_: pytest.fail("timed"))
    warn_of_slow_autocast(_job(None))
    warn_of_slow_autocast(SimpleNamespace(engine=None))  # type: ignore[arg-type]  # no more is read


def test_the_slowdown_is_of_the_fastest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of four products each; the first, which may compile or allocate, does not count."""
    lengths = iter([9.0, 6.0, 4.0, 5.0, 0.1, 2.0, 2.5, 3.0])
    now, started = 0.0, False

    def clock() -> float:
        nonlocal now, started
        if started:
            now += next(lengths)
        started = not started
        return now

    monkeypatch.setattr(time, "perf_counter", clock)
    assert compute.slowdown(torch.bfloat16, torch.device("cpu"), size=2) == pytest.approx(4.0 / 2.0)
