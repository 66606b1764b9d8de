"""circuit_breakers: what is rerouted, what is held, by which factors, and which blocks train."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from froc.methods.circuit_breakers import CircuitBreakers, Keep, Ramp, Reroute
from froc.methods.kuda import Deviate
from froc.methods.rmu import Hold
from froc.models.compute import Engine
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.loop import train_pack, unlearn
from froc.training.method import Method
from froc.training.run import Run
from froc.training.terms import WeightedTerm
from tests.training.small import nll


def _losses(term: Any, now: Tensor, base: Tensor, **state: Any) -> Tensor:
    """Of rows with one state each."""
    forward = SimpleNamespace(hidden=lambda _: now[:, None], mean_over_states=lambda values: values[:, 0])
    result: Tensor = term.losses(cast(Any, forward), {"hidden": base[:, None]}, state)
    return result


def test_states_are_turned_until_they_are_orthogonal_and_no_further() -> None:
    """Same, half-turned, orthogonal, opposite, up to the tilt of 1 %; `kuda` goes on turning what is already orthogonal."""
    base = torch.tensor([[2.0, 0.0]] * 4)
    now = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-0.05, 3.0], [-1.0, 0.0]], requires_grad=True)
    result = _losses(Reroute("forget"), now, base)
    assert result.tolist() == pytest.approx([1.0, 0.5**0.5, 0.0, 0.0], abs=0.01)
    (slope,) = torch.autograd.grad(result.sum(), [now])
    assert (slope.norm(dim=1) > 0).tolist() == [True, True, False, False]
    (slope,) = torch.autograd.grad(_losses(Deviate("forget"), now, base).sum(), [now])
    assert slope[2].norm() > 0


def test_a_shift_costs_its_length_and_not_its_square() -> None:
    base = torch.zeros(3, 2)
    now = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]], requires_grad=True)
    result = _losses(Keep("retain"), now, base)
    assert result.tolist() == pytest.approx([5.0, 10.0, 0.0])
    (slope,) = torch.autograd.grad(result.sum(), [now])
    assert slope.tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    assert _losses(Hold("retain"), now, base, norm=torch.tensor(1.0)).tolist() == pytest.approx([25.0, 100.0, 0.0])


def test_a_shift_of_rounding_has_hardly_a_gradient_and_one_of_a_thousandth_has_all_of_it() -> None:
    base = torch.tensor([[100.0, 0.0]] * 2, dtype=torch.float64)
    now = (base + torch.tensor([[0.0, 1e-5], [0.0, 1.0]])).requires_grad_()
    (slope,) = torch.autograd.grad(_losses(Keep("retain"), now, base).sum(), [now])
    assert slope[:, 1].tolist() == pytest.approx([1e-3, 1.0], rel=1e-3)


def test_its_card() -> None:
    """32 blocks: 10 and 20 as in the paper; forget states of these, retain states of these and the last; 21 blocks train."""
    (phase,) = CircuitBreakers(retain_weight=6.0).phases(MethodContext(32, 8, 9))
    forget = [WeightedTerm(Reroute("forget", layer, 9), 0.5) for layer in (10, 20)]
    assert list(phase.parts.values()) == [*forget, *(WeightedTerm(Keep("retain", k), 2.0) for k in (10, 20, 31))]
    trained = {
        k for k in range(32) for name in ("self_attn.q_proj", "mlp.experts.31.up_proj")
        if re.search(phase.trains, f"model.layers.{k}.{name}.weight")
    }  # fmt: skip
    assert trained == set(range(21))
    assert not re.search(phase.trains, "model.embed_tokens.weight")
    (small,) = CircuitBreakers().phases(MethodContext(1, 8, 9))
    assert list(small.parts) == ["reroute 0", "keep 0"]


def test_the_factors_go_from_forgetting_to_both_alike_over_the_phase(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight steps: 1 and 0 first, and half of 1/8 less and more with each."""
    seen: list[Any] = []
    plain = Ramp.weights

    def watched(self: Ramp, state: Any) -> Any:
        result = plain(self, state)
        seen.append((float(result["forget"]), float(result["retain"])))
        return result

    monkeypatch.setattr(Ramp, "weights", watched)
    rows = len(bench.reference.pools.rows["forget"])
    method = make(Method, "circuit_breakers", {"lr": 1e-3, "epochs": 1})
    run = Run(method, bench.reference, batch=-(-rows // 8), seed=1, engine=Engine())
    train_pack(bench.base, [run], Engine())
    steps = run.steps
    assert list(dict.fromkeys(seen)) == [(1 - k / steps / 2, k / steps / 2) for k in range(steps)]
    bench.base.restore()


def test_it_forgets_and_holds(bench: TrialRunner) -> None:
    """From a base model whose mean NLL is below 0.01 on both sides; nats per token."""
    method = make(Method, "circuit_breakers", {"lr": 2e-3, "epochs": 4})
    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    assert nll(bench.reference, "forget") > 0.3
    assert nll(bench.reference, "retain") < 0.3
    bench.base.restore()
