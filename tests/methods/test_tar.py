"""tar: where its gradients are taken, what the attack learns, and what the forget term is."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from froc.errors import InputError
from froc.methods.circuit_breakers import Keep
from froc.methods.rmu import Hold, Steer
from froc.methods.tar import TAR, Entropy, Tampering
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.terms import NLL, WeightedTerm
from tests.methods.test_terms import FixedForward
from tests.training.small import nll


def test_the_forget_term_is_entropy_and_the_answers_likelihood_under_attack() -> None:
    """p = (0.5, 0.25, 0.25): entropy 1.5 ln 2, bounded by ln 3, whatever the true token is."""
    now = FixedForward(torch.tensor([[0.5, 0.25, 0.25]] * 2).log(), [0, 1], [2])
    term = Entropy("forget")
    assert term.tokens(now, {}, {}).tolist() == pytest.approx([-1.5 * math.log(2)] * 2)
    attacked = term.tokens(now, {}, {"attacked": True})
    assert attacked.tolist() == pytest.approx([math.log(2), 2 * math.log(2)])
    uniform = FixedForward(torch.zeros(1, 3), [0], [1])
    result = term.tokens(uniform, {}, {"attacked": False})
    assert result.tolist() == pytest.approx([-math.log(3)])
    assert uniform.slope(result).abs().max() < 1e-12


class Slope:
    """NLL 3 x - 4 y; forget loss x^2 at x; retain gradient 5 in y."""

    def __init__(self) -> None:
        self.own = {name: Parameter(torch.tensor([value])) for name, value in (("x", 3.0), ("y", 1.0))}
        self.state: dict[str, Any] = {}
        self.seen: list[tuple[bool, float, float]] = []

    def __call__(self, objective: Any = None, *, exact: bool = False) -> Mapping[Any, Any]:
        attacked = self.state["attacked"]
        x = self.own["x"].detach()
        self.seen.append((attacked, self.own["x"].item(), self.own["y"].item()))
        made: dict[str, Tensor] = {"x": torch.tensor([3.0]), "y": torch.tensor([-4.0])} if attacked else {"x": 2 * x}
        return {objective: made}


def test_forget_gradients_are_those_after_each_step_of_the_attack_and_the_last_weighs_most() -> None:
    """Two steps of root mean square 0.5, so 0.5 sqrt 2 (0.6, -0.8) each; weights e^-2 and 1, times the scale 3; parameters and retain gradient are those at home."""
    slope = Slope()
    gradients: dict[Any, Any] = {"forget": {"x": torch.tensor([100.0])}, "retain": {"y": torch.tensor([5.0])}}
    with torch.no_grad():
        made = Tampering(2, 0.5, 3.0).direction_with_probes(gradients, slope, slope.own, slope.state)
    one, two = (k * 0.5 * math.sqrt(2) for k in (1, 2))
    places = [
        (3.0, 1.0),
        (3 - 0.6 * one, 1 + 0.8 * one),
        (3 - 0.6 * one, 1 + 0.8 * one),
        (3 - 0.6 * two, 1 + 0.8 * two),
    ]
    assert [attacked for attacked, *_ in slope.seen] == [True, False, True, False]
    assert [place for _, *place in slope.seen] == [pytest.approx(list(place)) for place in places]
    expected = {"x": 3.0 * (math.exp(-2.0) * 2 * places[1][0] + 2 * places[3][0]), "y": 5.0}
    assert {name: value.item() for name, value in made.items()} == pytest.approx(expected)
    assert {name: p.item() for name, p in slope.own.items()} == {"x": 3.0, "y": 1.0}
    assert not slope.state["attacked"]


def test_its_card() -> None:
    """17 blocks: the first stage steers at 0.65 of them, the second holds the middle and the last."""
    method = TAR(lr=1e-3, retain_weight=6.0, attack_steps=3, attack_rate=2.0, mapping=0.3)
    first, second = method.phases(MethodContext(17, 8, 9))
    likely = WeightedTerm(NLL("retain"), 6.0)
    mapped = [WeightedTerm(Steer("forget", 10, 1.0, 9)), WeightedTerm(Hold("retain", 10), 10.0), likely]
    assert list(first.parts.values()) == mapped
    keep = [WeightedTerm(Keep("retain", layer), 3.0) for layer in (8, 16)]
    assert list(second.parts.values()) == [WeightedTerm(Entropy("forget")), likely, *keep]
    assert (first.step_fraction, second.step_fraction) == (0.3, 0.7)
    assert second.combiner == Tampering(3, 2e-3, 4.0)
    assert second.cost(17) == 4.0
    assert not method.can_stop_early
    with pytest.raises(InputError, match="float32"):
        TAR().phases(MethodContext(4, 8, 0, half=True))


def test_it_forgets_and_holds(bench: TrialRunner) -> None:
    """From a base model whose mean NLL is below 0.01 on both sides; nats per token."""
    method = make(Method, "tar", {"lr": 2e-3, "epochs": 4, "attack_steps": 2})
    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    assert nll(bench.reference, "forget") > 0.5
    assert nll(bench.reference, "retain") < 0.3
    bench.base.restore()
