"""smooth(...), gru(...) and hamu(...) by hand: where gradients are taken, and what becomes of them."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from froc.errors import InputError
from froc.methods.blur import ForgetFirst
from froc.methods.gru import Rectified
from froc.methods.hamu import Guaranteed
from froc.methods.npo import NPO
from froc.methods.smooth import Nearby
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.training.small import nll


class Bowl:
    """Forget loss x^2 + 2 y^2 and retain loss 3 x, at parameters x = 3 and y = 1; asked again it notes where and what for."""

    def __init__(self) -> None:
        self.own = {name: Parameter(torch.tensor([value])) for name, value in (("x", 3.0), ("y", 1.0))}
        self.seen: list[tuple[Any, dict[str, float]]] = []

    def gradients(self) -> dict[Any, dict[str, Tensor]]:
        x, y = (p.detach() for p in self.own.values())
        return {"forget": {"x": 2 * x, "y": 4 * y}, "retain": {"x": torch.tensor([3.0])}}

    def __call__(self, objective: Any = None, *, exact: bool = False) -> Mapping[Any, Any]:
        self.seen.append((objective, {name: p.item() for name, p in self.own.items()}))
        return {objective: self.gradients()[objective]}

    def direction(self, combiner: Any, state: dict[str, Any]) -> dict[str, float]:
        with torch.no_grad():
            made = combiner.direction_with_probes(self.gradients(), self, self.own, state)
        return {name: float(value) for name, value in made.items()}


def test_sharpness_takes_the_forget_gradient_uphill_by_rho_and_the_retain_gradient_at_home() -> None:
    """g_f = (6, 4), of length sqrt 52: beside is (3 + 6 r, 1 + 4 r) with r = rho / sqrt 52."""
    bowl, rho = Bowl(), 0.5
    r = rho / math.sqrt(52)
    result = bowl.direction(Nearby(True, rho), {})
    ((objective, place),) = bowl.seen
    assert objective == "forget"
    assert place == pytest.approx({"x": 3 + 6 * r, "y": 1 + 4 * r})
    assert result == pytest.approx({"x": 2 * (3 + 6 * r) + 3, "y": 4 * (1 + 4 * r)})
    assert {name: p.item() for name, p in bowl.own.items()} == {"x": 3.0, "y": 1.0}
    assert bowl.direction(Nearby(True, 0.0), {}) == pytest.approx({"x": 9.0, "y": 4.0})


def test_random_smoothing_draws_anew_in_each_step_by_the_seed_with_its_standard_deviation() -> None:
    bowl, state = Bowl(), dict[str, Any]()
    for _ in range(200):
        bowl.direction(Nearby(False, 0.1, 4), state)
    places = torch.tensor([[place["x"] - 3, place["y"] - 1] for _, place in bowl.seen])
    assert places.std(0).tolist() == pytest.approx([0.1, 0.1], rel=0.2)
    assert places.mean(0).abs().max() < 0.03
    assert abs(float(torch.corrcoef(places.T)[0, 1])) < 0.2
    again, resumed = Bowl(), {"draws": 199}
    again.direction(Nearby(False, 0.1, 4), resumed)
    assert again.seen[0] == bowl.seen[-1]
    other = Bowl()
    other.direction(Nearby(False, 0.1, 5), {"draws": 199})
    assert other.seen[0] != bowl.seen[-1]


def test_a_wrapper_puts_its_combiner_in_and_nothing_else() -> None:
    context = MethodContext(17, 8, 9)
    (plain,) = NPO().phases(context)
    for name, params, combiner in (
        ("smooth(npo)", {"rho": 0.2, "sigma": 0.001}, Nearby(True, 0.2, 9)),
        ("smooth(npo)", {"rho": 0.2, "sigma": 0.001, "smoothing": "random"}, Nearby(False, 0.001, 9)),
        ("gru(npo)", {"gamma": 0.6}, Rectified(0.6)),
        ("hamu(npo)", {"ratio": 0.3}, Guaranteed("forget", 0.3)),
        ("hamu(npo)", {"ratio": 0.3, "guarantee": "utility"}, Guaranteed("retain", 0.3)),
    ):
        (phase,) = make(Method, name, params).phases(context)
        assert phase.combiner == combiner
        assert (phase.parts, phase.filters, phase.adversary) == (plain.parts, (), None)
    assert make(Method, "smooth(npo)").cost() == 1.5
    assert make(Method, "gru(npo)").cost() == make(Method, "hamu(npo)").cost() == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [("smooth(pdu)", "combines its two sides itself"), ("gru(blur(npo))", "combines its two sides itself"),
     ("hamu(gru(npo))", "combines its two sides itself"), ("hamu(grad_ascent)", "needs a method that trains on retain rows"),
     ("gru(grad_ascent)", "needs a method that trains on retain rows"),
     # tar combines in its second phase alone
     *((f"{name}(tar)", "combines its two sides itself") for name in ("agt", "blur", "cure", "gru", "hamu", "smooth"))],
)  # fmt: skip
def test_what_cannot_be_wrapped_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(Method, name)


def test_smooth_refuses_half_precision() -> None:
    with pytest.raises(InputError, match="float32"):
        make(Method, "smooth(npo)").phases(MethodContext(4, 8, 0, half=True))


def _gru(gamma: float, state: dict[str, Any], forget: list[float], retain: list[float]) -> list[float]:
    gradients: dict[Any, Any] = {"forget": {"w": torch.tensor(forget)}, "retain": {"w": torch.tensor(retain)}}
    made = Rectified(gamma).direction_with_probes(gradients, Bowl(), {}, state)
    return [float(value) for value in made["w"]]


def test_only_a_conflicting_forget_gradient_is_projected_and_the_retain_gradient_is_kept() -> None:
    """g_f = (1, -2), g_r = (0, 3): what is left of g_f is (1, 0). `blur` takes from g_r instead: (2.2, -1.4)."""
    assert _gru(0.9, {}, [1.0, -2.0], [0.0, 3.0]) == pytest.approx([1.0, 3.0])
    assert _gru(0.9, {}, [1.0, 2.0], [0.0, 3.0]) == pytest.approx([1.0, 5.0])
    gradients: dict[Any, Any] = {"forget": {"w": torch.tensor([1.0, -2.0])}, "retain": {"w": torch.tensor([0.0, 3.0])}}
    assert ForgetFirst(1.0).direction(gradients, {})["w"].tolist() == pytest.approx([2.2, -1.4])
    assert _gru(0.9, {}, [1.0, -2.0], [0.0, 0.0]) == pytest.approx([1.0, -2.0])


def test_the_projection_is_along_the_moving_average_of_retain_gradients() -> None:
    """gamma 0.6: m = 0.6 (0, 3), then 0.6 (1, 0) + 0.4 (0, 1.8) = (0.6, 0.72); <g_f, m> = -0.6 with g_f = (-1, 0)."""
    state: dict[str, Any] = {}
    _gru(0.6, state, [0.0, 1.0], [0.0, 3.0])
    result = _gru(0.6, state, [-1.0, 0.0], [1.0, 0.0])
    share = -0.6 / (0.36 + 0.72**2)
    assert result == pytest.approx([-1.0 - share * 0.6 + 1.0, -share * 0.72])
    rectified = [result[0] - 1.0, result[1]]
    assert rectified[0] * 0.6 + rectified[1] * 0.72 == pytest.approx(0.0, abs=1e-6)


def test_parameters_that_only_one_side_moves_have_their_share() -> None:
    """A parameter without a forget gradient gets its part of the projection; <g_f, m> is over the other alone."""
    gradients: dict[Any, Any] = {
        "forget": {"a": torch.tensor([-1.0])},
        "retain": {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])},
    }
    made = Rectified(1.0).direction_with_probes(gradients, Bowl(), {}, {})
    assert {name: float(value) for name, value in made.items()} == pytest.approx({"a": 0.2, "b": 2.4})


def _hamu(ratio: float, forget: list[float], retain: list[float], first: Any = "forget") -> list[float]:
    gradients: dict[Any, Any] = {"forget": {"w": torch.tensor(forget)}, "retain": {"w": torch.tensor(retain)}}
    made = Guaranteed(first, ratio).direction(gradients, {})["w"]
    return [float(value) for value in made]


@pytest.mark.parametrize("first", ["forget", "retain"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8])
def test_the_guaranteed_side_falls_by_what_is_asked_and_the_other_as_much_as_can_be(first: Any, ratio: float) -> None:
    """g = (2, 0), h = 5 (cos a, sin a): <g', u> is the ratio of |u| = 5 where h by itself has less, and u = h where it has more.

    Among all u of that length whose part along g is at least that, none has more of h: seen on a circle."""
    for angle in (0.3, 1.2, 1.6, 2.5, 3.0):
        g, h = [2.0, 0.0], [5.0 * math.cos(angle), 5.0 * math.sin(angle)]
        u = torch.tensor(_hamu(ratio, g, h, first) if first == "forget" else _hamu(ratio, h, g, first))
        if math.cos(angle) >= ratio:
            assert u.tolist() == pytest.approx(h)
            continue
        assert float(u.norm()) == pytest.approx(5.0, rel=1e-5)
        assert float(u[0]) == pytest.approx(5.0 * ratio, abs=1e-5)
        turns = torch.linspace(0, 2 * math.pi, 3601)
        circle = 5.0 * torch.stack([turns.cos(), turns.sin()], 1)
        allowed = circle[circle[:, 0] >= 5.0 * ratio - 1e-6]
        assert float(u @ torch.tensor(h)) >= float((allowed @ torch.tensor(h)).max()) - 1e-3


def test_opposed_gradients_and_missing_ones_give_finite_steps() -> None:
    """Opposed, only the guaranteed part is left; without a gradient of its own side nothing can be guaranteed."""
    assert _hamu(0.5, [1.0, 0.0], [-4.0, 0.0]) == pytest.approx([2.0, 0.0])
    assert all(math.isfinite(value) for value in _hamu(0.5, [0.0, 0.0], [1.0, 0.0]))
    assert _hamu(0.5, [1.0, 0.0], [0.0, 0.0]) == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("hamu(grad_diff)", {"ratio": 0.7}),
        ("smooth(npo)", {"rho": 0.05}),
        ("smooth(npo)", {"smoothing": "random", "sigma": 1e-3}),
        ("gru(npo)", {}),
    ],
)
def test_they_forget_and_hold(bench: TrialRunner, name: str, params: dict[str, Any]) -> None:
    """From a base model whose mean NLL is below 0.01 on both sides; nats per token."""
    method = make(Method, name, {"lr": 2e-3, "epochs": 3} | ({} if "hamu" in name else {"retain_weight": 3.0}) | params)

    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    assert nll(bench.reference, "forget") > 1
    assert nll(bench.reference, "retain") < 0.6
    bench.base.restore()
