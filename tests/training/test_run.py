"""One configuration in training, step by step: what ends it, what it counts, and which rows it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from froc.models.batches import Encoded
from froc.models.compute import Engine
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, Rollout, StepContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.run import Run
from froc.training.terms import NLL, State, WeightedTerm
from tests.training.small import gpt2, reference

PARTS = {"forget": WeightedTerm(NLL("forget")), "retain": WeightedTerm(NLL("retain"))}


@dataclass(frozen=True)
class Declared(Method):
    """A method with the phases that it is given."""

    declared: tuple[Phase, ...] = ()

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        return self.declared


class Stopping(Combiner):
    """Ends training where the worst loss is within its budget, and keeps the losses and budgets that it receives."""

    def on_search_losses(self, losses: Mapping[str, Any], budgets: Mapping[str, float], state: State) -> bool:
        state.setdefault("received", []).append((dict(losses), dict(budgets)))
        return bool(max(losses.values()) <= max(budgets.values()))


def run(*phases: Phase, epochs: int = 4, **more: Any) -> Run:
    """Five forget rows in steps of two: four epochs are ten steps."""
    method = Declared(lr=1e-3, epochs=epochs, declared=phases)
    return Run(method, reference(gpt2(11)), batch=2, seed=1, engine=Engine(), **more)


@pytest.mark.parametrize(("loss", "ends"), [(0.1, True), (0.3, False)])
def test_search_losses_end_training_where_the_combiner_says_so(loss: float, ends: bool) -> None:
    made = run(Phase(PARTS, combiner=Stopping()))
    made.report_search_losses({"forgetting": loss}, {"forgetting": 0.2})
    assert made.finished is ends
    assert made.state["received"] == [({"forgetting": loss}, {"forgetting": 0.2})]
    # a training that has ended does not pass losses on
    made.report_search_losses({"forgetting": 0.3}, {"forgetting": 0.2})
    assert len(made.state["received"]) == (1 if ends else 2)
    assert made.finished is ends


def test_without_a_combiner_that_ends_it_training_goes_on() -> None:
    made = run(Phase(PARTS))
    made.report_search_losses({"forgetting": 0.0}, {"forgetting": 1.0})
    assert not made.finished


def test_a_checkpoint_counts_the_phases_steps() -> None:
    made = run(Phase(PARTS, step_fraction=0.2), Phase(PARTS))
    assert (made.steps, made.rows) == (12, 48)
    seen = []
    for _ in range(4):
        made.draw()
        made.apply_step(True)
        saved = made.checkpoint()
        seen.append((saved["done"], saved["phases"], saved["left"], saved["since"]))
    # the first phase has two steps; a phase counts from its own start
    assert seen == [(1, 2, 1, 1), (2, 1, 10, 0), (3, 1, 9, 1), (4, 1, 8, 2)]


def test_a_run_goes_on_with_the_rows_that_would_have_come_next() -> None:
    first, second = run(Phase(PARTS)), run(Phase(PARTS))
    for _ in range(3):
        first.draw()
        first.apply_step(True)
    second.restore(first.checkpoint())
    assert (second.done, second.finished) == (3, False)
    for _ in range(4):
        wanted, rows = first.draw(), second.draw()
        assert wanted.keys() == rows.keys() == {"forget", "retain"}
        assert all(wanted[role].tolist() == rows[role].tolist() for role in wanted)


@dataclass(frozen=True)
class Written(Rollout):
    """Forget rows, as if the model had written them; each with its number."""

    every: int = 3

    @property
    def passes(self) -> float:
        return 1.0

    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        step_context.state.setdefault("drawn", []).append((step_context.step, count))
        rows = step_context.reference.pools.rows["forget"]
        return [rows[i % len(rows)] for i in range(count)], {"number": torch.arange(count)}


def test_rows_are_written_every_so_many_steps_and_taken_in_order() -> None:
    made = run(Phase({"w": WeightedTerm(NLL("rollout")), "r": WeightedTerm(NLL("retain"))}, rollout=Written()))
    taken, complete = [], []
    for _ in range(7):
        complete.append(made.can_checkpoint)
        taken.append(made.draw()["rollout"].tolist())
        made.apply_step(True)
    assert made.state["drawn"] == [(0, 6), (3, 6), (6, 6)]
    assert taken == [[0, 1], [2, 3], [4, 5]] * 2 + [[0, 1]]
    # written rows are not saved, so a state is complete where they are used up
    assert complete == [True, False, False] * 2 + [True]


@pytest.mark.parametrize(("last", "stops"), [(3, True), (10, False)])
def test_a_callback_stops_training_unless_nothing_is_left(last: int, stops: bool) -> None:
    called: list[int] = []
    made = run(Phase(PARTS))

    def callback() -> bool:
        called.append(made.done)
        return made.done == last

    made.add_callbacks(dict.fromkeys((2, last), callback))
    while not made.finished:
        made.draw()
        made.apply_step(True)
    assert (made.done, made.stopped, called) == (last, stops, [2, last])


def test_after_a_callback_that_stops_no_further_one_is_called() -> None:
    made = run(Phase(PARTS), callbacks={1: lambda: True})
    made.add_callbacks({1: lambda: pytest.fail("called after the end")})
    made.draw()
    made.apply_step(True)
    assert (made.stopped, made.finished) == (True, True)


def test_fewer_forget_rows_are_proportionally_fewer_steps_over_these_alone() -> None:
    made = run(Phase(PARTS, only=(1, 3)))
    assert made.steps == 4
    drawn = [made.draw() for _ in range(4)]
    assert all(sorted(rows["forget"].tolist()) == [1, 3] for rows in drawn)
    assert {row for rows in drawn for row in rows["retain"].tolist()} == set(range(6))
