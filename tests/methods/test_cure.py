"""Parts of a model that follow the side they work for."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc.methods.cure import CURE, ByFunction, Circuit, Outside, Rule
from froc.models.trainable import Lora
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseStatistics
from froc.training.causal_tracing import Component, Piece, Trace, Traced, components
from froc.training.components import UpdateInputs
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.terms import Weights
from tests.training.small import llama, reference


def _llama(groups: int = 2, **more: Any) -> Any:
    """Two blocks of four heads, in pairs that have their keys and values in common; in float64."""
    return llama(60, heads=4, groups=groups, **more).double()


def _traced(parts: tuple[Component, ...], *effects: float) -> Traced:
    return Traced(parts, torch.tensor(effects, dtype=torch.float64), 1.0)


def _three(*pieces: tuple[Piece, ...]) -> tuple[Component, ...]:
    return tuple(Component("head", 0, "a", pieces_of_part) for pieces_of_part in pieces)


def test_parts_follow_the_side_that_they_work_for() -> None:
    """Effects as 4:1, 1:4 and 1:1; signs and the scale of a side's effects do not matter; the least part is outside."""
    parts = _three((Piece("a."),), (Piece("b."),), (Piece("c."),), (Piece("d."),))
    forget, retain = _traced(parts, 8.0, -2.0, 9.0, 1.0), _traced(parts, -0.2, 0.8, 0.9, 0.1)
    result = CURE(circuit=0.75, specific=0.7).build_circuit(forget, retain)
    assert [piece.prefix for piece, _ in result.pieces] == ["a.", "b.", "c."]
    assert result.rules == (Rule.FORGET, Rule.RETAIN, Rule.SHARED, Rule.FROZEN)
    assert CURE(circuit=0.75, specific=0.85).build_circuit(forget, retain).rules[:3] == (Rule.SHARED,) * 3
    frozen = CURE(circuit=0.75, specific=0.7, retaining="freeze").build_circuit(forget, retain)
    assert frozen.rules == (Rule.FORGET, Rule.FROZEN, Rule.SHARED, Rule.FROZEN)
    assert CURE(circuit=0.01).build_circuit(forget, retain).rules == (Rule.SHARED, Rule.FROZEN)


@pytest.mark.parametrize(
    ("share", "rule"), [(0.76, Rule.FORGET), (0.75, Rule.SHARED), (0.25, Rule.SHARED), (0.24, Rule.RETAIN)]
)
def test_a_share_at_the_limit_is_shared(share: float, rule: Rule) -> None:
    assert CURE(specific=0.75)._rule(share) == rule


def test_what_heads_have_in_common_moves_with_all_of_them() -> None:
    q, k = [Piece(f"q{head}") for head in range(4)], [Piece("k0"), Piece("k1")]
    parts = _three((q[0], k[0]), (q[1], k[0]), (q[2], k[1]), (q[3], k[1]))

    def rule(rules: dict[int, Rule], name: str) -> Rule:
        made = Circuit.of(parts, rules)
        return made.rules[int(made.place(name, torch.zeros(1)))]

    alike, mixed = dict.fromkeys(range(4), Rule.FORGET), {0: Rule.FORGET, 1: Rule.RETAIN, 2: Rule.FORGET}
    assert [rule(alike, name) for name in ("q0", "k0", "k1")] == [Rule.FORGET] * 3
    assert [rule(mixed, name) for name in ("q0", "q1", "k0")] == [Rule.FORGET, Rule.RETAIN, Rule.SHARED]
    assert [rule(mixed, name) for name in ("q2", "k1", "q3", "else")] == [Rule.FORGET, *[Rule.FROZEN] * 3]


def test_gradients_by_module_by_hand() -> None:
    """Rows 0..1 of w follow g_f, 2..3 g_r, 4..5 are shared with columns 0..1 of o, and 6 belongs to nobody."""
    parts = _three(
        (Piece("w", 0, 0, 2),), (Piece("w", 0, 2, 4),), (Piece("w", 0, 4, 6), Piece("o", 1, 0, 2)), (Piece("m."),)
    )  # fmt: skip
    circuit = Circuit.of(parts, {0: Rule.FORGET, 1: Rule.RETAIN, 2: Rule.SHARED, 3: Rule.SHARED})
    draw = torch.Generator().manual_seed(1)
    shapes = {"w": (7, 3), "o": (4, 5), "m.up": (2, 2), "m.bias": (2,), "norm": (3,)}
    forget, retain = ({n: torch.randn(s, generator=draw) for n, s in shapes.items()} for _ in range(2))
    # the one shared module is made to be in conflict, the other not
    retain["w"][4:6], retain["o"][:, :2] = -forget["w"][4:6] + 0.1, -forget["o"][:, :2] - 0.2
    retain["m.up"], retain["m.bias"] = forget["m.up"] + 0.1, forget["m.bias"] - 0.2

    made = ByFunction(circuit).direction({"forget": forget, "retain": retain}, {})
    assert torch.equal(made["w"][:2], forget["w"][:2])
    assert torch.equal(made["w"][2:4], retain["w"][2:4])
    assert not made["w"][6].any()
    assert not made["o"][:, 2:].any()
    assert not made["norm"].any()
    f, r = (torch.cat([side["w"][4:6].flatten(), side["o"][:, :2].flatten()]) for side in (forget, retain))
    assert float(f @ r) < 0
    expected = f - (f @ r) / (r @ r) * r + r
    assert torch.allclose(torch.cat([made["w"][4:6].flatten(), made["o"][:, :2].flatten()]), expected, atol=1e-5)
    assert float((expected - r) @ r) == pytest.approx(0.0, abs=1e-4)
    for name in ("m.up", "m.bias"):
        assert torch.allclose(made[name], forget[name] + retain[name])

    moved = Outside(circuit)({n: torch.ones(s) for n, s in shapes.items()}, UpdateInputs({}, {}, {}))
    assert moved["w"].sum(1).tolist() == [3.0] * 6 + [0.0]
    assert moved["o"].sum(0).tolist() == [4.0, 4.0, 0.0, 0.0, 0.0]
    assert bool(moved["m.bias"].all())
    assert not moved["norm"].any()


def _inside(made: BaseStatistics, method: Method, model: PreTrainedModel, share: float) -> dict[str, Tensor]:
    """name -> bool, which elements may move: worked out from the effects, head by head."""
    own, others = (made.ask(Trace(role, heads=True)).effects.abs() for role in ("forget", "retain"))
    strength = torch.maximum(own / own.sum(), others / others.sum())
    chosen = set(strength.argsort(descending=True)[: round(share * len(strength))].tolist())
    parts = components(model, heads=True)
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for index in chosen:
        layer, kind = parts[index].layer, parts[index].kind
        prefix = f"model.layers.{layer}."
        if kind == "feed_forward":
            for name in (n for n in masks if n.startswith(f"{prefix}mlp.")):
                masks[name][:] = True
            continue
        head = [k for k, part in enumerate(parts) if part.kind == "head" and part.layer == layer].index(index)
        masks[f"{prefix}self_attn.q_proj.weight"][4 * head : 4 * head + 4] = True
        masks[f"{prefix}self_attn.o_proj.weight"][:, 4 * head : 4 * head + 4] = True
        first = min(k for k, part in enumerate(parts) if part.kind == "head" and part.layer == layer)
        group = head // 2
        if {first + 2 * group, first + 2 * group + 1} <= chosen:
            for name in ("k_proj", "v_proj"):
                masks[f"{prefix}self_attn.{name}.weight"][4 * group : 4 * group + 4] = True
    return masks


@pytest.mark.parametrize("name", ["cure(grad_diff)", "gu(cure(grad_diff))", "cure(gu(grad_diff))"])
def test_what_lies_outside_the_circuit_stays_to_the_last_bit(name: str) -> None:
    """Grouped-query attention, decay, momentum, another filter: elements outside are what they were, those inside move."""
    model: Any = _llama().float()
    made = reference(model)
    share = 0.6
    method = make(Method, name, {"lr": 1e-3, "epochs": 4, "circuit": share, "specific": 0.55})
    mask = _inside(made, method, model, share)
    inside = torch.cat([inside_circuit.flatten() for inside_circuit in mask.values()])
    assert 0.1 < float(inside.float().mean()) < 0.9
    # some head is in the circuit whose keys are not, and some keys are
    queries, keys = (
        torch.stack([inside_circuit for n, inside_circuit in mask.items() if f"{kind}_proj" in n])
        for kind in ("q", "k")
    )
    assert queries.float().mean() > keys.float().mean() > 0
    unlearn(made.base, method, made, batch=3, seed=0)
    start, end = (
        torch.cat([w[n].detach().flatten() for n in mask])
        for w in (made.base.trainable.base_values(), made.base.trainable.parameters())
    )
    assert torch.equal(start[~inside], end[~inside])
    assert float((start != end)[inside].float().mean()) > 0.99


def test_shared_parts_do_not_work_against_retain_rows(bench: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each step of a run, in each shared module, up to rounding: <g_f', g_r> >= 0, where <g_f, g_r> often was not."""
    seen: list[tuple[dict[Any, Weights], Weights, Circuit]] = []
    plain = ByFunction.direction

    def noted(self: ByFunction, gradients: Any, state: Any) -> Weights:
        made = plain(self, gradients, state)
        seen.append((gradients, made, self.circuit))
        return made

    monkeypatch.setattr(ByFunction, "direction", noted)
    method = make(Method, "cure(grad_diff)", {"lr": 1e-3, "epochs": 2, "circuit": 0.8, "specific": 0.9})
    unlearn(bench.base, method, bench.reference, batch=16, seed=0)
    conflicts = 0
    for gradients, made, circuit in seen:
        shared = [rule == Rule.SHARED for rule in circuit.rules]
        assert sum(shared) > 2
        for module in (number for number, is_shared in enumerate(shared) if is_shared):
            pieces = [
                (piece, n)
                for piece, number in circuit.pieces
                if number == module
                for n in made
                if n.startswith(piece.prefix)
            ]

            def part(of: Weights, pieces: list[tuple[Piece, str]] = pieces) -> Tensor:
                return torch.cat([
                    (of[n] if p.axis is None else of[n].narrow(p.axis, p.start, p.stop - p.start)).double().flatten()
                    for p, n in pieces
                ])  # fmt: skip

            forget, retain, combined = part(gradients["forget"]), part(gradients["retain"]), part(made)
            conflicts += bool(forget @ retain < 0)
            assert float((combined - retain) @ retain) >= -1e-5 * float(forget.norm() * retain.norm())
    assert conflicts > len(seen)


def test_adapters_have_whole_attentions() -> None:
    """Only the adapters of parts in the circuit move."""
    model: Any = _llama().float()
    made = reference(model, scope=Lora(model, rank=2))
    base = made.base
    unlearn(base, make(Method, "cure(grad_diff)", {"lr": 1e-2, "epochs": 3, "circuit": 0.5}), made, batch=3, seed=0)
    traced = made.ask(Trace("forget", heads=True))
    assert [part.kind for part in traced.parts] == ["attention", "feed_forward"] * 2
    moved = {
        name.rpartition(".lora_B")[0]
        for name, p in base.trainable.parameters().items()
        if name.endswith("lora_B") and p.any()
    }
    circuit = CURE(circuit=0.5).build_circuit(traced, made.ask(Trace("retain", heads=True)))
    allowed = {n for n in model.state_dict() if any(n.startswith(piece.prefix) for piece, _ in circuit.pieces)}
    assert moved
    assert moved == {name.rpartition(".lora_B")[0] for name in allowed if ".lora_B" in name}
