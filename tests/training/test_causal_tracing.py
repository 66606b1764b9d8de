"""Causal tracing: what each part of a model restores, and which parameters are whose."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from froc import hashing
from froc.models.compute import Engine
from froc.models.hooks import blocks
from froc.search.trial.runner import TrialRunner
from froc.training import causal_tracing
from froc.training.base_statistics import BaseStatistics, method_context
from froc.training.causal_tracing import Trace, components
from tests.training.small import BUILDERS, llama, reference


def _llama(groups: int = 2, **more: Any) -> Any:
    """Two blocks of four heads, in pairs that have their keys and values in common; in float64."""
    return llama(60, heads=4, groups=groups, **more).double()


def _by_hand(made: BaseStatistics, place: Callable[[torch.nn.Module], torch.nn.Module], columns: slice | None) -> float:
    """What one part restores, with hooks and likelihoods of the test's own, row by row; the noise as documented."""
    model: Any = made.base.model
    embed = model.get_input_embeddings()
    _, batch = next(made.batches("forget"))
    questions = [embed.weight[batch.ids[i, : batch.start[i]]] for i in range(len(batch.ids))]
    level = 3 * torch.cat(questions).std(correction=0)
    draw = torch.Generator().manual_seed(hashing.derive_seed("corruption", "forget", 0))
    noise = level * torch.randn(*batch.ids.shape, embed.weight.shape[1], generator=draw).double()
    gained = []
    for i in range(len(batch.ids)):
        start, stop, length = int(batch.start[i]), int(batch.stop[i]), int(batch.length[i])
        clean = embed(batch.ids[i : i + 1, :length])
        dirty = clean.clone()
        dirty[:, :start] += noise[i, :start]
        module, kept = place(model), dict[str, Tensor]()

        def likely(inputs: Tensor, i: int = i, start: int = start, stop: int = stop) -> float:
            logits = model(inputs_embeds=inputs).logits[0, start - 1 : stop - 1].log_softmax(-1)
            return float(logits.gather(-1, batch.ids[i, start:stop, None]).mean())

        def put(old: Tensor, kept: dict[str, Tensor] = kept) -> Tensor:
            if "state" not in kept:
                kept["state"] = old.clone()
            new = old.clone()
            where = columns or slice(None)
            new[..., where] = kept["state"][..., where]
            return new

        if columns is None:
            handle = module.register_forward_hook(lambda _m, _a, out, put=put: put(out))
        else:
            handle = module.register_forward_pre_hook(lambda _m, args, put=put: (put(args[0]),))
        likely(clean)
        restored = likely(dirty)
        handle.remove()
        gained.append(restored - likely(dirty))
    return sum(gained) / len(gained)


@torch.no_grad()
def test_effects_are_those_of_patching_by_hand() -> None:
    made = reference(_llama())
    result = made.ask(Trace("forget", heads=True))
    assert [part.kind for part in result.parts] == ["head", "head", "head", "head", "feed_forward"] * 2
    for index, place, columns in (
        (2, lambda m: m.model.layers[0].self_attn.o_proj, slice(8, 12)),
        (5, lambda m: m.model.layers[1].self_attn.o_proj, slice(0, 4)),
        (4, lambda m: m.model.layers[0].mlp, None),
        (9, lambda m: m.model.layers[1].mlp, None),
    ):
        # the norms are computed in float32 whatever the model's dtype is
        assert float(result.effects[index]) == pytest.approx(_by_hand(made, place, columns), rel=1e-4)
    assert result.effects.abs().min() > 1e-6


def test_attentions_are_whole_unless_heads_are_asked_for_and_may_be_left_out() -> None:
    made = reference(_llama())
    for trace, kinds in (
        (Trace("forget"), ["attention", "feed_forward"]),
        (Trace("forget", attention=False), ["feed_forward"]),
    ):
        assert [part.kind for part in made.ask(trace).parts] == kinds * 2


def test_attribution_is_patching_to_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """At little noise they are the same; the untrained model is at no optimum, where the first order would vanish."""
    made = reference(_llama())
    monkeypatch.setattr(causal_tracing, "NOISE", 1e-3)
    exact, attributed = (made.ask(Trace("forget", heads=True, steps=steps)) for steps in (0, 1))
    assert torch.allclose(exact.effects, attributed.effects, rtol=0.05, atol=1e-3 * float(exact.effects.abs().max()))
    assert exact.total == pytest.approx(attributed.total)


@pytest.mark.parametrize("role", ["forget", "retain"])
def test_attribution_orders_a_trained_models_parts_as_patching_does(bench: TrialRunner, role: str) -> None:
    bench.base.restore()
    exact, attributed = (bench.reference.ask(Trace(role, heads=True, steps=steps)) for steps in (0, 4))
    assert spearmanr(exact.effects.abs(), attributed.effects.abs()).statistic > 0.8
    assert np.corrcoef(exact.effects, attributed.effects)[0, 1] > 0.8
    assert exact.total > 1.0
    # a part is not credited with more than there is to be restored, up to what it overshoots
    assert float(exact.effects.max()) < 1.2 * exact.total


@torch.no_grad()
def test_a_part_that_does_nothing_has_no_effect() -> None:
    model: Any = _llama()
    model.model.layers[0].self_attn.o_proj.weight[:, 4:8] = 0.0
    model.model.layers[1].mlp.down_proj.weight.zero_()
    made = reference(model)
    for steps in (0, 2):
        effects = made.ask(Trace("forget", heads=True, steps=steps)).effects
        dead = torch.zeros(10, dtype=torch.bool)
        dead[[1, 9]] = True
        assert not effects[dead].any()
        assert bool((effects[~dead].abs() > 1e-9).all())


def test_blocks_that_are_recomputed_are_traced_alike() -> None:
    plain = reference(_llama()).ask(Trace("retain", heads=True, steps=2))
    model = _llama()
    Engine.of(model, checkpointing=True)
    wrapped = [vars(block)["forward"] for block in blocks(model)]
    assert torch.allclose(reference(model).ask(Trace("retain", heads=True, steps=2)).effects, plain.effects)
    assert [vars(block)["forward"] for block in blocks(model)] == wrapped


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("gpt2", ["attention", "feed_forward"]),
        ("neox", ["attention", "feed_forward"]),
        ("opt", ["head", "head", "feed_forward"]),
    ],
)
def test_parts_of_other_architectures(kind: str, parts: list[str]) -> None:
    """Fused projections make one part of an attention; a feed-forward need not be a module of its own."""
    model = BUILDERS[kind](60)
    result = reference(model).ask(Trace("forget", heads=True))
    assert [part.kind for part in result.parts] == parts * 2
    assert bool((result.effects != 0).all())
    names = [name for name, _ in model.named_parameters()]
    for part in result.parts:
        assert all(any(name.startswith(piece.prefix) for name in names) for piece in part.pieces)
    owned = [n for n in names if any(n.startswith(p.prefix) for part in result.parts for p in part.pieces)]
    inside = [n for n in names if any(word in n for word in ("attn", "attention", "mlp", "fc1", "fc2"))]
    shared = {n for n in inside if "norm" in n or n.endswith("out_proj.bias")}
    assert set(owned) == set(inside) - shared


def test_heads_take_their_projections_apart() -> None:
    """Each row of q and column of o belongs to one head; rows of k and v to the two heads of a group."""
    for groups, owners in ((4, 1), (2, 2), (1, 4)):
        model = _llama(groups, attention_bias=True)
        times = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for component in components(model, heads=True):
            for piece in component.pieces:
                for name in (n for n in times if n.startswith(piece.prefix)):
                    where = slice(None) if piece.axis is None else slice(piece.start, piece.stop)
                    times[name][(slice(None), where) if piece.axis == 1 else where] += 1
        counts = {name: count.unique().tolist() for name, count in times.items()}
        attention = "model.layers.0.self_attn"
        assert counts[f"{attention}.q_proj.weight"] == counts[f"{attention}.o_proj.weight"] == [1]
        assert counts[f"{attention}.q_proj.bias"] == [1]
        assert counts[f"{attention}.k_proj.weight"] == counts[f"{attention}.v_proj.bias"] == [owners]
        assert counts[f"{attention}.o_proj.bias"] == counts["model.norm.weight"] == [0]


@torch.no_grad()
def test_heads_of_a_group_have_its_values_in_common() -> None:
    """Without the values that are said to be the second head's, the heads of its group do nothing, and no others."""
    model: Any = _llama(2)
    values = next(p for p in components(model, heads=True)[1].pieces if "v_proj" in p.prefix)
    model.get_parameter(values.prefix)[values.start : values.stop] = 0.0
    effects = reference(model).ask(Trace("forget", heads=True)).effects
    assert (effects[:4] == 0).tolist() == [True, True, False, False]


def test_many_parts_are_attributed_and_few_are_patched(bench: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.base.restore()
    for few, steps in ((10, 0), (9, 4)):
        monkeypatch.setattr(causal_tracing, "FEW", few)
        result = BaseStatistics(bench.base, bench.reference.pools).ask(Trace("forget", heads=True))
        assert torch.equal(result.effects, bench.reference.ask(Trace("forget", heads=True, steps=steps)).effects)
    known = method_context(bench.reference, 0)
    assert known.ask(Trace("forget", heads=True)) is known.ask(Trace("forget", heads=True))
