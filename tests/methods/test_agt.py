"""agt: when its gate opens, what its attack may do, and what it takes from a conflicting gradient."""

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from froc.errors import InputError
from froc.methods.agt import AdaptiveOrthogonality, Gated
from froc.methods.npo import NPO
from froc.models.forward import Pass
from froc.models.hooks import blocks
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.training.small import nll


def _direction(gamma: float, forget: list[float], retain: list[float], state: dict[str, Any]) -> list[float]:
    gradients: dict[Any, Any] = {"forget": {"w": torch.tensor(forget)}, "retain": {"w": torch.tensor(retain)}}
    probe: Any = None
    made = AdaptiveOrthogonality(gamma, 0.2).direction_with_probes(gradients, probe, {}, state)
    return [float(value) for value in made["w"]]


def test_the_more_two_gradients_conflict_the_more_is_taken_and_nothing_where_they_agree() -> None:
    """g_r = (0, 2). Opposed: all of g_f goes. At 120 degrees, g_f = (sqrt 3, -1): cos -1/2, so (3/4)^gamma of its part -1."""
    root = math.sqrt(3)
    state = {"progress": 0.0}
    assert _direction(1.0, [0.0, -4.0], [0.0, 2.0], state) == pytest.approx([0.0, 2.0])
    for gamma in (1.0, 2.0):
        assert _direction(gamma, [root, -1.0], [0.0, 2.0], state) == pytest.approx([root, -1 + 0.75**gamma + 2])
    assert _direction(1.0, [root, 1.0], [0.0, 2.0], state) == pytest.approx([root, 3.0])
    assert _direction(1.0, [1.0, 0.0], [0.0, 0.0], state) == pytest.approx([1.0, 0.0])


def test_the_norm_of_the_warm_up_is_its_last_steps() -> None:
    """Warm-up of 0.2: the norms 5 and 3 fall within it, 1 after it."""
    state: dict[str, Any] = {}
    for progress, size, warm in ((0.0, 5.0, 5.0), (0.1, 3.0, 3.0), (0.2, 1.0, 3.0)):
        state["progress"] = progress
        _direction(1.0, [size, 0.0], [0.0, 0.0], state)
        assert state["gate"] == pytest.approx({"norm": size, "warm": warm})


def test_the_gate_opens_after_the_warm_up_while_gradients_are_small(bench: TrialRunner) -> None:
    batch = next(bench.reference.batches("forget", 8))[1]
    adversary = Gated(2, 1, 0.1, warmup=0.2, threshold=0.5)
    gates = [({}, False), ({"progress": 0.1, "gate": {"norm": 0.0, "warm": 1.0}}, False),
             ({"progress": 0.2, "gate": {"norm": 0.5, "warm": 1.0}}, False), ({"progress": 0.2, "gate": {"norm": 0.4, "warm": 1.0}}, True)]  # fmt: skip
    for state, opened in gates:
        context = adversary.against(bench.base.model, batch, state)[1]
        assert (context is not nullcontext) == opened


def test_the_attack_makes_answers_likelier_within_its_box(bench: TrialRunner) -> None:
    """On a model that has forgotten half: states move by at most epsilon times their root mean square, at every coordinate."""
    method = make(Method, "npo", {"lr": 1e-3, "epochs": 1})
    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    batch = next(bench.reference.batches("forget", 16))[1]
    state = {"progress": 0.5, "gate": {"norm": 0.0, "warm": 1.0}}
    with torch.no_grad():
        plain = Pass(bench.base.model, batch, hidden_at=(0,))
    _, context = Gated(4, 1, 0.2, 0.2, 1.0).against(bench.base.model, batch, state)
    seen: list[Any] = []
    with context(), torch.no_grad():
        hook = blocks(bench.base.model)[0].register_forward_hook(lambda *args: seen.append(args[2]))
        attacked = Pass(bench.base.model, batch)
        hook.remove()
    assert float(attacked.nll.sum()) < 0.9 * float(plain.nll.sum())
    after = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    real = batch.attention.bool()
    most = 0.2 * float(plain.hidden[0][real].square().mean().sqrt())
    moved = (after - plain.hidden[0]).abs()[real]
    assert most * 0.5 < float(moved.max()) <= most * 1.001
    bench.base.restore()


def test_it_changes_two_slots_and_refuses_what_has_them_already() -> None:
    (plain,) = NPO().phases(MethodContext(17, 8, 9))
    params = {"ao_gamma": 2.0, "rho": 0.5, "warmup": 0.3, "attack_depth": 0.3, "epsilon": 0.2, "attack_steps": 3}
    (phase,) = make(Method, "agt(npo)", params).phases(MethodContext(17, 8, 9))
    assert (phase.parts, phase.filters) == (plain.parts, ())
    assert phase.combiner == AdaptiveOrthogonality(2.0, 0.3)
    assert phase.adversary == Gated(3, 5, 0.2, 0.3, 0.5)
    for name, message in (("agt(lat(npo))", "one adversary"), ("agt(pdu)", "combines"), ("agt(idk)", "other answers"), ("agt(grad_ascent)", "retain rows")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            make(Method, name)


def test_it_forgets_and_holds(bench: TrialRunner) -> None:
    """From a base model whose mean NLL is below 0.01 on both sides; nats per token."""
    method = make(Method, "agt(npo)", {"lr": 2e-3, "epochs": 3, "retain_weight": 3.0, "epsilon": 0.2})
    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    assert nll(bench.reference, "forget") > 1
    assert nll(bench.reference, "retain") < 0.6
    bench.base.restore()
