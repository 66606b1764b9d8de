"""Directions of methods around others against steps written anew from public code: flattened gradients of padded rows, float64.

Losses and gradients of the method inside are held in `test_code_checks`; here it is what a step makes of them, at two points.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from froc.plugins import make
from froc.training.base_statistics import BaseStatistics
from froc.training.method import Method
from tests.methods.part_losses import losses_of, move, shifted
from tests.methods.test_code_checks import DIRECTIONS, FORMULAS, INDEX, Rows, _mean_nll, _padded
from tests.methods.test_terms import FACTS

Gradient = Callable[[], Tensor]
"""The flattened gradient of a loss at the parameters of now."""


class Bed:
    """NPO on a tiny model: gradients of its two sides, by public code's layout and by the project's own passes."""

    def __init__(self, tiny: BaseStatistics) -> None:
        self.tiny, self.parameters = tiny, tiny.base.trainable.parameters()
        tiny.base.restore()
        with torch.no_grad():
            self._before = {role: _padded(tiny, role) for role in ("forget", "retain")}

    def public(self, side: str) -> Tensor:
        """(P,) flattened gradient of a batch's mean loss."""
        rows: Rows = {role: (_padded(self.tiny, role), self._before[role]) for role in ("forget", "retain")}
        losses = (
            FORMULAS["npo"](rows, make(Method, "npo"))["forget"] if side == "forget" else _mean_nll(rows["retain"][0])
        )
        return torch.cat([g.flatten() for g in self._slopes(losses[list(INDEX)].mean())])

    def own(self, side: str) -> dict[str, Tensor]:
        """name -> gradient."""
        with torch.enable_grad():
            loss = losses_of(self.tiny, "npo", INDEX)[f"0 {side}"].mean()
            return dict(zip(self.parameters, self._slopes(loss), strict=True))

    def __call__(self, objective: Any = None, *, exact: bool = False) -> Mapping[Any, Any]:
        return {objective: self.own(objective)}

    def step(self, name: str, params: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """(P,) flattened direction of the project's combiner."""
        (phase,) = make(Method, name, params).phases(FACTS)
        gradients: dict[Any, Any] = {side: self.own(side) for side in ("forget", "retain")}
        with torch.no_grad():
            made = phase.combiner.direction_with_probes(gradients, self, self.parameters, state)
        return torch.cat([made[parameter].flatten() for parameter in self.parameters])

    def add(self, change: Tensor) -> None:
        """Move the parameters by (P,) flattened values."""
        with torch.no_grad():
            for p, part in zip(self.parameters.values(), change.split([p.numel() for p in self.parameters.values()]), strict=True):  # fmt: skip
                p.add_(part.view_as(p))

    def _slopes(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)


def _sharpness(bed: Bed, params: dict[str, Any], memory: dict[str, Any]) -> Tensor:
    """Unlearn-Smooth's training step: one ascent of the forget loss by rho, its gradient there, the retain gradient at home."""
    first = bed.public("forget")
    moved = first * (params["rho"] / first.norm())
    bed.add(moved)
    there = bed.public("forget")
    bed.add(-moved)
    return there + bed.public("retain")


def _rectified(bed: Bed, params: dict[str, Any], memory: dict[str, Any]) -> Tensor:
    """GRU's `gru+ce`: a moving average that begins at 0, a projection where the product is negative, then the retain gradient."""
    unlearn, retain = bed.public("forget"), bed.public("retain")
    mean = params["gamma"] * retain + (1 - params["gamma"]) * memory.get("mean", 0.0)
    memory["mean"] = mean
    product = unlearn @ mean
    memory.setdefault("conflicts", []).append(bool(product < 0))
    rectified: Tensor = unlearn - product / (mean @ mean) * mean if product < 0 else unlearn
    return rectified + retain


def _guaranteed(bed: Bed, params: dict[str, Any], memory: dict[str, Any]) -> Tensor:
    """HAMU's update over all parameters, its radius lr |g_r|, its constraint a share of what that radius can reach; then -update / lr.

    The authors' forget gradient is that of the loss which is to rise.
    """
    rate, g_r, g_f = 1e-4, bed.public("retain"), -bed.public("forget")
    if params["guarantee"] == "utility":
        g_r, g_f = -g_f, -g_r
    radius = rate * g_r.norm()
    constraint = params["ratio"] * radius * g_f.norm()
    product = g_r @ g_f
    memory.setdefault("conflicts", []).append(bool(product > -constraint * g_r.norm() / radius))
    if product <= -constraint * g_r.norm() / radius:
        return g_r
    orthogonal = g_r - product / (g_f @ g_f) * g_f
    root = math.sqrt(float(radius**2 - constraint**2 / (g_f @ g_f)))
    update: Tensor = constraint / (g_f @ g_f) * g_f - root * orthogonal / orthogonal.norm()
    return -update / rate


STEPS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "smooth": ("smooth(npo)", {"rho": 0.3}, _sharpness),
    "gru": ("gru(npo)", {"gamma": 0.6}, _rectified),
    "hamu": ("hamu(npo)", {"ratio": 0.5, "guarantee": "quality"}, _guaranteed),
    "hamu-u": ("hamu(npo)", {"ratio": 0.5, "guarantee": "utility"}, _guaranteed),
}


@pytest.mark.parametrize("case", STEPS)
def test_directions_are_those_of_public_code(tiny: BaseStatistics, case: str) -> None:
    """At two points, the second with what the first left behind."""
    name, params, public = STEPS[case]
    bed, memory, state = Bed(tiny), dict[str, Any](), dict[str, Any]()
    for seed in (1, 2):
        move(tiny, shifted(tiny, 0.05, seed), 1.0)
        expected, result = public(bed, params, memory), bed.step(name, params, state)
        assert torch.allclose(result, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    assert case == "smooth" or any(memory["conflicts"])
    tiny.base.restore()


def test_each_method_whose_direction_is_said_to_be_checked_is() -> None:
    assert {name.partition("(")[0] for name, *_ in STEPS.values()} == DIRECTIONS
