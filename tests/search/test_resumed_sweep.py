"""A sweep that goes on with the stops of an earlier process."""

from typing import Any

from froc.data.task import FORGETTING, UTILITY
from froc.search.trial.sweep import Effort, Sweep, SweepPoint

BUDGET = {FORGETTING: 0.1, UTILITY: 0.1}


class RecordingBase:
    """A base model without weights. calls: the adapters activated and the weights loaded, in order."""

    def __init__(self) -> None:
        self.trainable = self
        self.calls: list[tuple[Any, ...]] = []

    def activate(self, adapters: list[int]) -> None:
        self.calls.append(("activated", adapters))

    def load(self, weights: Any, mix: float, adapter: int) -> None:
        self.calls.append((weights, mix, adapter))


class FixedSweep(Sweep):
    """Forgetting and utility meet at a mix of 1/2, whatever is loaded."""

    def _look(self, step: int, share: float) -> SweepPoint:
        self._put(step, share)
        return SweepPoint(step, share, {}, {}, {FORGETTING: max(0.0, 1.0 - share), UTILITY: share})


def test_stops_of_an_earlier_process_are_evaluated_in_order_and_the_last_one_stays_loaded() -> None:
    base: Any = RecordingBase()
    sweep = FixedSweep(base, (), BUDGET, Effort(looks=2, kept=3), adapter_index=5)
    late: Any = "late"
    early: Any = "early"
    sweep.again({9: late, 4: early})
    assert base.calls == [
        ("activated", [5]),
        (early, 1.0, 5), (early, 0.5, 5), (early, 1.0, 5),
        (late, 1.0, 5), (late, 0.5, 5), (late, 1.0, 5),
    ]  # fmt: skip
    assert sweep.kept == {4: early, 9: late}
    assert [(point.step, point.mix) for point in sweep._points] == [(4, 1.0), (4, 0.5), (9, 1.0), (9, 0.5)]
