"""The learning rate of every optimiser step: up for a tenth of the steps, then down in a straight line to zero."""

from typing import Any

import pytest
import torch

from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.schedule import schedule

BY_HAND = {
    # one step: the whole rate
    1: [1.0],
    # a tenth of 4 steps is no step: one all the same, then 3/3, 2/3, 1/3
    4: [1.0, 1.0, 2 / 3, 1 / 3],
    # one step up, nine steps down
    10: [1.0, 1.0, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9],
    # 1.6 steps up are two: 1/2, 2/2
    16: [0.5, 1.0, *(k / 14 for k in range(14, 0, -1))],
    # three up, 27 down
    30: [1 / 3, 2 / 3, 1.0, *(k / 27 for k in range(27, 0, -1))],
}
"""Steps -> the share of the learning rate that each of them takes."""


@pytest.mark.parametrize("steps", BY_HAND)
def test_shares_of_the_learning_rate_by_hand(steps: int) -> None:
    assert [schedule(step, steps) for step in range(steps)] == pytest.approx(BY_HAND[steps], rel=1e-12)
    # nothing is left after the last step, and never less than nothing
    assert schedule(steps, steps) == schedule(steps + 1, steps) == 0.0


class Recorded(torch.optim.AdamW):
    """The optimiser, with what it was made with and what it had at each step."""

    made: list[dict[str, Any]]
    rates: list[float]
    norms: list[float]

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.made.append(options)

    def step(self, closure: Any = None) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(float(torch.sqrt(sum((g.double() ** 2).sum() for g in gradients))))
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    for name in ("made", "rates", "norms"):
        monkeypatch.setattr(Recorded, name, [], raising=False)
    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    return Recorded


def trained(bench: TrialRunner, method: str, **params: Any) -> int:
    """Train once; the optimiser steps of a pass over the forget rows."""
    bench.retrain(TrialSpec(method, {"lr": 2e-3, **params}, 3))
    rows = len(bench.reference.pools.rows["forget"])
    return -(-rows // min(bench.batch, rows))


def test_a_run_takes_its_steps_at_these_rates(bench: TrialRunner, recorded: type[Recorded]) -> None:
    """Each step's rate is the method's times the share above, over all steps of the run, weight decay 0.01."""
    passes = trained(bench, "grad_ascent", epochs=5)
    steps = len(recorded.rates)
    assert steps >= 5 * passes >= 10
    warm = max(1, round(steps / 10))
    shares = [(step + 1) / warm if step < warm else (steps - step) / (steps - warm) for step in range(steps)]
    assert recorded.rates == pytest.approx([2e-3 * share for share in shares], rel=1e-9)
    assert [options["weight_decay"] for options in recorded.made] == [0.01]


def test_gradients_longer_than_one_are_cut_to_one(bench: TrialRunner, recorded: type[Recorded]) -> None:
    trained(bench, "grad_ascent", epochs=5)
    # ascent from a model that knows the rows: its gradients grow beyond any bound
    assert max(recorded.norms) == pytest.approx(1.0, rel=1e-4)
