"""An optimiser's step by hand: AdamW's first step, and what filters make of it."""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import Parameter

from froc.models.compute import Engine
from froc.training.components import Combiner, UpdateFilter, UpdateInputs
from froc.training.optimiser import PhaseOptimiser
from froc.training.phase import Phase
from froc.training.terms import NLL, Objective, WeightedTerm, Weights

PARTS = {"forget": WeightedTerm(NLL("forget")), "retain": WeightedTerm(NLL("retain"))}


@dataclass(frozen=True)
class Halved(UpdateFilter):
    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        return {name: value / 2 for name, value in update.items()}


@dataclass(frozen=True)
class Raised(UpdateFilter):
    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        return {name: value + 1 for name, value in update.items()}


@dataclass(frozen=True)
class Frozen(UpdateFilter):
    """Runs last, sets every update to zero, and keeps its inputs."""

    needs_gradients: ClassVar[bool] = True
    needs_second_moments: ClassVar[bool] = True
    runs_last: ClassVar[bool] = True

    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        inputs.state["inputs"] = inputs
        return {name: torch.zeros_like(value) for name, value in update.items()}


def started(
    gradient: list[float], autocast: torch.dtype | None = None, **more: Any
) -> tuple[PhaseOptimiser, Parameter]:
    """Before the first of four steps, at a learning rate of a tenth, from (1, -2)."""
    parameter = Parameter(torch.tensor([1.0, -2.0]))
    made = PhaseOptimiser(torch.device("cpu"), Engine(autocast=autocast))
    made.start(Phase(PARTS, **more), {"w": parameter}, 0.1, 4)
    parameter.grad = torch.tensor(gradient)
    return made, parameter


def stepped(gradient: list[float], state: dict[str, Any], finite: bool = True, **more: Any) -> tuple[list[float], str]:
    """The parameter after a step, and the reason why training cannot continue."""
    made, parameter = started(gradient, **more)
    if made._phase.keeps_gradients:
        made.store_gradients("forget")
    made.prepare_gradients(lambda *_: None, state)
    error = made.apply_step(finite, state)
    assert parameter.grad is None
    return parameter.tolist(), error


# 0.001 of each weight decays, and each moves by a tenth against its gradient's sign
FIRST = [0.899, -1.898]


@pytest.mark.parametrize(
    ("filters", "end"),
    [
        ((), FIRST),
        ((Halved(),), [0.9495, -1.949]),
        ((Halved(), Halved()), [0.97475, -1.9745]),
        ((Halved(), Raised()), [1.9495, -0.949]),
        ((Raised(), Halved()), [1.4495, -1.449]),
        ((Frozen(), Raised()), [1.0, -2.0]),
    ],
)
def test_the_realised_change_is_filtered_in_order_and_freezes_come_last(filters: Any, end: list[float]) -> None:
    after, error = stepped([0.3, -0.4], {}, filters=filters)
    assert after == pytest.approx(end, abs=1e-6)
    assert error == ""


def test_a_filter_reads_the_objectives_gradients_and_the_second_moments() -> None:
    """Gradients are cut to a length of 1 for the step alone; moments are a thousandth of the squares of what is left."""
    state: dict[str, Any] = {}
    stepped([3.0, -4.0], state, filters=(Frozen(),))
    assert state["inputs"].gradients["forget"]["w"].tolist() == [3.0, -4.0]
    assert state["inputs"].second_moments["w"].tolist() == pytest.approx([0.36e-3, 0.64e-3], rel=1e-4)


def test_a_step_that_is_not_finite_is_not_taken_and_ends_training() -> None:
    state: dict[str, Any] = {}
    after, parameter = started([float("nan"), 0.0], filters=(Frozen(),))
    norm = after.prepare_gradients(lambda *_: None, state)
    assert not torch.isfinite(norm)
    assert after.apply_step(False, state) == "the training loss or its gradient is not finite"
    assert parameter.tolist() == [1.0, -2.0]
    assert "inputs" not in state


@pytest.mark.parametrize(("gradient", "norm"), [([0.3, -0.4], 0.5), ([3.0, -4.0], 5.0)])
def test_gradients_longer_than_1_are_cut_to_it(gradient: list[float], norm: float) -> None:
    made, parameter = started(gradient)
    assert float(made.prepare_gradients(lambda *_: None, {})) == pytest.approx(norm)
    assert parameter.grad is not None
    assert float(parameter.grad.norm()) == pytest.approx(min(norm, 1.0), rel=1e-5)


class RecordingCombiner(Combiner):
    """Keeps the losses that it receives after a step."""

    needs_losses = True

    def after_step(self, losses: Any, state: Any) -> None:
        state.setdefault("losses", []).append({key: float(value) for key, value in losses.items()})


def test_a_combiner_receives_the_sum_of_a_steps_losses_after_each_step() -> None:
    made, parameter = started([0.3, -0.4], combiner=RecordingCombiner())
    state: dict[str, Any] = {}
    for first in (0.25, 1.0):
        parameter.grad = torch.tensor([0.3, -0.4])
        made.add_losses({"forget": torch.tensor(first), "retain": torch.tensor(2.0)})
        made.add_losses({"forget": torch.tensor(0.5)})
        made.prepare_gradients(lambda *_: None, state)
        made.apply_step(True, state)
    assert state["losses"] == [{"forget": 0.75, "retain": 2.0}, {"forget": 1.5, "retain": 2.0}]


class SeparateGradients(Combiner):
    needs_gradients = True


def test_gradients_of_both_objectives_are_kept_apart_and_summed() -> None:
    made, parameter = started([0.125, 0.0], combiner=SeparateGradients())
    made.store_gradients("forget")
    assert parameter.grad is None
    later: dict[Objective, list[float]] = {"forget": [0.125, 0.0], "retain": [0.0, -0.5]}
    for objective, gradient in later.items():
        parameter.grad = torch.tensor(gradient)
        made.store_gradients(objective)
    assert {key: grads["w"].tolist() for key, grads in made._gradients.items()} == {
        "forget": [0.25, 0.0],
        "retain": [0.0, -0.5],
    }
    made.prepare_gradients(lambda *_: None, {})
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [0.25, -0.5]


def test_gradients_stay_where_they_are_if_nobody_reads_them_apart() -> None:
    made, parameter = started([0.125, 0.0])
    made.store_gradients("forget")
    assert parameter.grad is not None
    assert made._gradients == {}


def one_step(made: PhaseOptimiser, parameter: Parameter, gradient: list[float]) -> list[float]:
    parameter.grad = torch.tensor(gradient)
    made.prepare_gradients(lambda *_: None, {})
    assert made.apply_step(True, {}) == ""
    return parameter.tolist()


def test_a_step_after_a_restored_state_is_the_one_that_would_have_come() -> None:
    """With the moments and the place in the schedule of the steps before."""
    first, before = started([0.3, -0.4])
    for _ in range(2):
        one_step(first, before, [0.3, -0.4])
    second, after = started([0.0, 0.0])
    # a state is not copied, and the first goes on
    second.restore(copy.deepcopy(first.checkpoint(training=True)))
    after.data = before.detach().clone()
    wanted = one_step(first, before, [-0.1, 0.2])
    assert one_step(second, after, [-0.1, 0.2]) == wanted
    fresh, anew = started([0.0, 0.0])
    anew.data = torch.tensor([1.0, -2.0])
    assert one_step(fresh, anew, [-0.1, 0.2]) != wanted


def test_the_state_of_an_edit_has_no_optimiser() -> None:
    made, _ = started([0.3, -0.4])
    saved = made.checkpoint(training=False)
    assert saved["optimiser"] is None
    assert saved["schedule"] is None
    made.restore(saved)


def test_the_loss_is_scaled_in_float16_alone() -> None:
    loss = torch.tensor(0.5)
    assert float(started([0.0, 0.0])[0].scaled(loss)) == 0.5
    assert float(started([0.0, 0.0], torch.bfloat16)[0].scaled(loss)) == 0.5
    assert float(started([0.0, 0.0], torch.float16)[0].scaled(loss)) == 2048.0


def test_twenty_steps_in_a_row_are_skipped_while_a_loss_scale_is_found() -> None:
    """A finite one begins the count anew; each skipped one halves the scale."""
    made, parameter = started([0.0, 0.0], torch.float16)

    def step(value: float) -> str:
        made.scaled(torch.tensor(value))
        parameter.grad = torch.tensor([value, 0.0])
        finite = bool(torch.isfinite(made.prepare_gradients(lambda *_: None, {})))
        return made.apply_step(finite, {})

    assert [step(float("inf")) for _ in range(20)] == [""] * 20
    assert parameter.tolist() == [1.0, -2.0]
    assert made._scaler.get_scale() == 2.0**12 / 2.0**20
    assert step(0.0) == ""
    assert [step(float("inf")) for _ in range(20)] == [""] * 20
    assert made.checkpoint(training=True)["skipped"] == 20
    restored, _ = started([0.0, 0.0], torch.float16)
    restored.restore(made.checkpoint(training=True))
    assert restored._scaler.get_scale() == made._scaler.get_scale()
    assert restored.checkpoint(training=True)["skipped"] == 20
    assert step(float("inf")) == "the training loss or its gradient is not finite"
