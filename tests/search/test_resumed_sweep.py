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

    def load(self, weights: Any, mix: float, adapter: int, *, others_stay: bool) -> None:
        self.calls.append((weights["w"], mix, adapter, others_stay))


class FixedSweep(Sweep):
    """Forgetting and utility meet at a mix of 1/2, whatever is loaded."""

    def _look(self, step: int, share: float) -> SweepPoint:
        self._put(step, share)
        return SweepPoint(step, share, {}, {}, {FORGETTING: max(0.0, 1.0 - share), UTILITY: share})


def test_stops_of_an_earlier_process_are_evaluated_in_order_and_the_last_one_stays_loaded() -> None:
    base: Any = RecordingBase()
    sweep = FixedSweep(base, (), BUDGET, Effort(looks=2, kept=3), adapter_index=5)
    late: Any = {"w": 9}
    early: Any = {"w": 4}
    sweep.again({9: late, 4: early})
    assert base.calls == [
        ("activated", [5]),
        (4, 1.0, 5, True), (4, 0.5, 5, True), (4, 1.0, 5, True),
        (9, 1.0, 5, True), (9, 0.5, 5, True), (9, 1.0, 5, True),
    ]  # fmt: skip
    assert sweep.kept == {4: early, 9: late}
    assert [(point.step, point.mix) for point in sweep._points] == [(4, 1.0), (4, 0.5), (9, 1.0), (9, 0.5)]


def test_an_earlier_stop_gets_the_base_values_of_what_trained_later_and_nothing_is_loaded_twice() -> None:
    base: Any = RecordingBase()
    sweep = FixedSweep(base, (), BUDGET, Effort(looks=1, kept=3))
    early: Any = {"w": 4}
    late: Any = {"w": 9, "v": 9}
    sweep.kept = {4: early, 9: late}
    for step, mix in ((4, 0.5), (4, 0.5), (9, 0.5), (9, 1.0)):
        sweep._put(step, mix)
    assert base.calls == [(4, 0.5, 0, False), (9, 0.5, 0, True), (9, 1.0, 0, True)]
