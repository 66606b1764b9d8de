"""Methods that first find where or in what a model holds an answer: features, layers, heads."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from froc import digest, tracing
from froc.batches import Encoded, collate
from froc.engine import Engine
from froc.errors import InputError
from froc.forward import Forward, Pass, blocks
from froc.methods import Facts, Method
from froc.methods.cure import CURE, ByFunction, Circuit, Outside, Rule
from froc.methods.kuda import KUDA, Deviate, NullSpace, RetainInputs, Spectrum, located
from froc.methods.srmu import SRMU, Magnitudes, SteerFeatures
from froc.models import Base
from froc.plugins import make
from froc.reference import Pools, Reference
from froc.running import Run, facts
from froc.scope import Full, Lora
from froc.step import Taken, Weights
from froc.tracing import Component, Piece, Trace, Traced, components
from froc.train import unlearn
from search.trial import Bench

V = 60


def _forward(bench: Bench, role: str, layer: int) -> Forward:
    rows = bench.reference.pools.rows[role]
    with torch.no_grad():
        return Forward.of(bench.base.model, collate(rows, range(len(rows)), "cpu"), (layer,))


def _tokens(bench: Bench, role: str, layer: int) -> Tensor:
    """(tokens, D) hidden states of all rows."""
    found = _forward(bench, role, layer)
    real = torch.arange(found.hidden(layer).shape[1]) < found.length[:, None]
    return found.hidden(layer)[real]


def _changed(base: Base) -> set[str]:
    return {name for name, p in base.scope.own().items() if not torch.equal(base.scope.start[name], p)}


def _nll(bench: Bench, role: str) -> float:
    return float(_forward(bench, role, 0).mean_nll.mean())


def _reference(model: PreTrainedModel, forget: int = 5, retain: int = 6) -> Reference:
    """Rows of unequal lengths for a model that was never trained."""
    draw = np.random.default_rng(2)

    def rows(count: int) -> list[Encoded]:
        made = []
        for i in range(count):
            prompt, answer = 2 + i % 3, 1 + (2 * i) % 4
            made.append(Encoded((*draw.integers(1, V, prompt + answer).tolist(), 0), prompt, answer))
        return made

    base = Base("tiny", model, None, Full(model), "")  # type: ignore[arg-type]  # no text is tokenised here
    return Reference(base, Pools({"forget": rows(forget), "retain": rows(retain)}))


def _llama(groups: int = 2, **more: Any) -> PreTrainedModel:
    """Two blocks of four heads, in pairs that have their keys and values in common; in float64."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=groups, initializer_range=0.3, bos_token_id=None, eos_token_id=0, **more,
    )  # fmt: skip
    made: Any = LlamaForCausalLM(config)
    return made.double().eval()


# srmu


def test_importance_by_hand() -> None:
    """v_f = (3, 1, 0), v_r = (1, 1, 2): ln 4, ln 2, 0; 3 - 0.5, 1 - 0.5, 0; 3, 1, 0, over the largest."""
    forget, retain = torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 2.0])
    expected = {"ratio": [1.0, 0.5, 0.0], "difference": [1.0, 0.5 / 2.5, 0.0], "product": [1.0, 1 / 3, 0.0]}
    for kind, values in expected.items():
        found = SRMU(importance=kind, subtract=0.5).important(forget, retain)
        assert found.tolist() == pytest.approx(values, abs=1e-5)
    assert not SRMU(importance="difference", subtract=0.9).important(forget * 0, retain).any()


def test_magnitudes_are_means_over_real_tokens(bench: Bench) -> None:
    bench.base.restore()
    found = bench.reference.ask(Magnitudes(1))
    by_hand = torch.stack([_tokens(bench, role, 1).abs().double().mean(0) for role in ("forget", "retain")])
    assert torch.allclose(found, by_hand, rtol=1e-5)
    assert not torch.allclose(found[0], found[1], rtol=1e-2)


def test_the_target_is_as_long_as_said_and_has_both_signs() -> None:
    sizes = (1.0, 0.5, 0.0, 2.0, 0.1, 0.7, 0.3, 0.2)
    made = [SteerFeatures("forget", c=3.0, seed=seed, importance=sizes) for seed in range(16)]
    for term in made:
        state: dict[str, Any] = {}
        target = term.target(torch.zeros(1, 1, 8), {"hidden_norm": torch.tensor(2.0)}, state)
        assert float(target.norm()) == pytest.approx(3.0 * 2.0)
        assert (target.abs() / target.abs().max()).tolist() == pytest.approx([one / 2 for one in sizes])
        assert torch.equal(term.target(torch.zeros(1, 1, 8), {}, state), target)
    signs = torch.stack([term.signs(8) for term in made])
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    # of 128 fair signs; five standard deviations are 0.44
    assert abs(float(signs.mean())) < 0.44
    assert torch.equal(signs[0], made[0].signs(8))


@pytest.mark.parametrize("kind", ["ratio", "difference", "product"])
def test_hidden_states_move_where_the_map_says(bench: Bench, kind: str) -> None:
    """Without much holding, the displacement of a coordinate is in the order of its importance, and the loss falls."""
    method = SRMU(lr=5e-3, epochs=8, c=50.0, retain_weight=0.01, depth=0.0, importance=kind)
    bench.base.restore()
    before = _tokens(bench, "forget", 0)
    important = method.important(*bench.reference.ask(Magnitudes(0)))
    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    moved = (_tokens(bench, "forget", 0) - before).abs().mean(0)
    assert spearmanr(moved, important).statistic > 0.8
    target = _target(method, bench.reference, important)
    after = _tokens(bench, "forget", 0)
    assert float((after - target).square().sum(1).mean()) < float((before - target).square().sum(1).mean()) / 2
    assert _changed(bench.base)
    assert all(name.startswith("model.layers.0.") for name in _changed(bench.base))


def test_only_the_layers_own_weights_may_move() -> None:
    phase = SRMU(depth=0.4).phases(Facts(6, 8, 0))[0]
    assert phase.parts["steer"].term.hidden_at == (2,)
    assert phase.moves("model.layers.2.self_attn.q_proj.weight")
    assert phase.moves("transformer.h.2.mlp.c_fc.bias")
    assert not phase.moves("model.layers.1.mlp.experts.2.w1.weight")
    assert not phase.moves("model.embed_tokens.weight")


def _target(method: SRMU, reference: Reference, important: Tensor) -> Tensor:
    """c * norm * V I / |I| of seed 1."""
    term = SteerFeatures("forget", 0, seed=1, importance=tuple(important.tolist()))
    length = method.c * float(reference.norm["forget", 0][0])
    return length * term.signs(len(important)) * (important / math.sqrt(float((important**2).sum())))


# tracing


def _by_hand(made: Reference, place: Callable[[torch.nn.Module], torch.nn.Module], columns: slice | None) -> float:
    """What one part restores, with hooks and likelihoods of the test's own, row by row; the noise as documented."""
    model: Any = made.base.model
    embed = model.get_input_embeddings()
    batch = next(iter(made.batches("forget")))
    questions = [embed.weight[batch.ids[i, : batch.start[i]]] for i in range(len(batch.ids))]
    level = 3 * torch.cat(questions).std(correction=0)
    draw = torch.Generator().manual_seed(digest.seed("corruption", "forget", 0))
    noise = level * torch.randn(*batch.ids.shape, embed.weight.shape[1], generator=draw).double()
    gained = []
    for i in range(len(batch.ids)):
        start, stop, length = int(batch.start[i]), int(batch.stop[i]), int(batch.length[i])
        clean = embed(batch.ids[i : i + 1, :length])
        dirty = clean.clone()
        dirty[:, :start] += noise[i, :start]
        module, kept = place(model), {}

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
    made = _reference(_llama())
    found = made.ask(Trace("forget", heads=True))
    assert [one.kind for one in found.parts] == ["head", "head", "head", "head", "feed_forward"] * 2
    for index, place, columns in (
        (2, lambda m: m.model.layers[0].self_attn.o_proj, slice(8, 12)),
        (5, lambda m: m.model.layers[1].self_attn.o_proj, slice(0, 4)),
        (4, lambda m: m.model.layers[0].mlp, None),
        (9, lambda m: m.model.layers[1].mlp, None),
    ):
        # the norms are computed in float32 whatever the model's dtype is
        assert float(found.effects[index]) == pytest.approx(_by_hand(made, place, columns), rel=1e-4)
    assert found.effects.abs().min() > 1e-6


def test_attribution_is_patching_to_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """At little noise they are the same; the untrained model is at no optimum, where the first order would vanish."""
    made = _reference(_llama())
    monkeypatch.setattr(tracing, "NOISE", 1e-3)
    exact, attributed = (made.ask(Trace("forget", heads=True, steps=steps)) for steps in (0, 1))
    assert torch.allclose(exact.effects, attributed.effects, rtol=0.05, atol=1e-3 * float(exact.effects.abs().max()))
    assert exact.total == pytest.approx(attributed.total)


@pytest.mark.parametrize("role", ["forget", "retain"])
def test_attribution_orders_a_trained_models_parts_as_patching_does(bench: Bench, role: str) -> None:
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
    made = _reference(model)
    for steps in (0, 2):
        effects = made.ask(Trace("forget", heads=True, steps=steps)).effects
        dead = torch.zeros(10, dtype=torch.bool)
        dead[[1, 9]] = True
        assert not effects[dead].any()
        assert bool((effects[~dead].abs() > 1e-9).all())


def test_blocks_that_are_recomputed_are_traced_alike() -> None:
    plain = _reference(_llama()).ask(Trace("retain", heads=True, steps=2))
    model = _llama()
    Engine.of(model, checkpointing=True)
    wrapped = [vars(block)["forward"] for block in blocks(model)]
    assert torch.allclose(_reference(model).ask(Trace("retain", heads=True, steps=2)).effects, plain.effects)
    assert [vars(block)["forward"] for block in blocks(model)] == wrapped


def _small(kind: str) -> PreTrainedModel:
    common: dict[str, Any] = {"vocab_size": V, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    wide = common | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
    made: dict[str, Callable[[], Any]] = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_inner=24, n_layer=2, n_head=2, **common)),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=24, **wide)),
        "opt": lambda: OPTForCausalLM(OPTConfig(word_embed_proj_dim=16, ffn_dim=24, **wide)),
    }
    torch.manual_seed(4)
    model: PreTrainedModel = made[kind]().eval()
    return model


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
    model = _small(kind)
    found = _reference(model).ask(Trace("forget", heads=True))
    assert [one.kind for one in found.parts] == parts * 2
    assert bool((found.effects != 0).all())
    names = [name for name, _ in model.named_parameters()]
    for part in found.parts:
        assert all(any(name.startswith(piece.prefix) for name in names) for piece in part.pieces)
    owned = [n for n in names if any(n.startswith(p.prefix) for one in found.parts for p in one.pieces)]
    inside = [n for n in names if any(word in n for word in ("attn", "attention", "mlp", "fc1", "fc2"))]
    shared = {n for n in inside if "norm" in n or n.endswith("out_proj.bias")}
    assert set(owned) == set(inside) - shared


def test_heads_take_their_projections_apart() -> None:
    """Each row of q and column of o belongs to one head; rows of k and v to the two heads of a group."""
    for groups, owners in ((4, 1), (2, 2), (1, 4)):
        model = _llama(groups, attention_bias=True)
        times = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for one in components(model, heads=True):
            for piece in one.pieces:
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
    effects = _reference(model).ask(Trace("forget", heads=True)).effects
    assert (effects[:4] == 0).tolist() == [True, True, False, False]


# kuda


def _known(effects: list[float]) -> Facts:
    parts = Trace("forget").typical(Facts(len(effects), 8, 0)).parts
    traced = Traced(parts, torch.tensor(effects, dtype=torch.float64), 1.0)
    return Facts(len(effects), 8, 0, found=lambda _survey: traced)


def test_the_window_is_where_the_mean_effect_is_largest() -> None:
    known = _known([1.0, 5.0, 0.0, 4.0, 4.0])
    assert located(known, 1) == (1,)
    assert located(known, 2) == (3, 4)
    # means 2, 3 and 8 / 3
    assert located(known, 3) == (1, 2, 3)
    assert located(known, 9) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_change_keeps_what_retain_inputs_do_not_touch(axis: int) -> None:
    """Five inputs in eight dimensions: strictly projected they are mapped as before, and what is orthogonal to them
    changes as it would have; at a threshold of 1 nothing is taken away."""
    draw = torch.Generator().manual_seed(0)
    seen = torch.randn(5, 8, generator=draw)
    values, vectors = torch.linalg.eigh(seen.double().T @ seen.double() / 5)
    spectra = {"w": Spectrum(axis, values.float(), vectors.float())}
    change = torch.randn((6, 8) if axis else (8, 6), generator=draw)
    taken = Taken({}, {}, {})

    def mapped(by: Tensor, inputs: Tensor) -> Tensor:
        return inputs @ (by.T if axis else by)

    strict = NullSpace(spectra, 1e-6)({"w": change}, taken)["w"]
    assert strict.shape == change.shape
    assert float(mapped(strict, seen).abs().max()) < 1e-5 * float(mapped(change, seen).abs().max())
    unseen = torch.randn(8, generator=draw)
    unseen = unseen - torch.linalg.pinv(seen) @ (seen @ unseen)
    assert torch.allclose(mapped(strict, unseen), mapped(change, unseen), atol=1e-5)
    assert torch.equal(NullSpace(spectra, 1.0)({"w": change}, taken)["w"], change)
    assert not NullSpace({"w": Spectrum(axis, torch.arange(1.0, 9.0), torch.eye(8))}, 0.1)({"w": change}, taken)[
        "w"
    ].any()


def _note(seen: list[Tensor], _module: Any, args: tuple[Tensor, ...]) -> None:
    seen.append(args[0].detach().reshape(-1, args[0].shape[-1]))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_spectra_are_of_what_each_matrix_reads(kind: str) -> None:
    """U diag(s) U' is E[a a'] over real tokens; a gate and its values read the same, the last matrix what is inside."""
    model: Any = _llama().float() if kind == "llama" else _small(kind)
    made = _reference(model)
    found = made.ask(RetainInputs(1))
    block: Any = blocks(model)[1]
    feed = block if kind == "opt" else block.mlp
    inside = {
        "llama": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        "gpt2": ("mlp.c_fc", "mlp.c_proj"),
        "opt": ("fc1", "fc2"),
    }[kind]
    assert {name.partition(".1.")[2] for name in found} == {f"{name}.weight" for name in inside}
    inputs: dict[str, list[Tensor]] = {name: [] for name in inside}
    for row in made.pools.rows["retain"]:
        with ExitStack() as hooks:
            for name in inside:
                module = feed.get_submodule(name.removeprefix("mlp."))
                hooks.callback(module.register_forward_pre_hook(partial(_note, inputs[name])).remove)
            model(input_ids=torch.tensor([row.ids]))
    for full, spectrum in found.items():
        rows = torch.cat(inputs[full.partition(".1.")[2].removesuffix(".weight")])
        expected = rows.T @ rows / len(rows)
        again = spectrum.vectors * spectrum.values @ spectrum.vectors.T
        assert torch.allclose(again, expected, atol=1e-5 * float(expected.abs().max()))
        assert bool((spectrum.values.diff() >= 0).all())
        assert dict(model.named_parameters())[full].shape[spectrum.axis] == len(spectrum.values)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_strictly_projected_training_leaves_retain_rows_as_they_were(kind: str) -> None:
    """Two retain rows do not fill the inputs' space: forget rows' states turn, theirs and their likelihood stay."""
    model: Any = _llama().float() if kind == "llama" else _small(kind)
    made = _reference(model, retain=2)

    def states(role: str) -> Tensor:
        batch = next(iter(made.batches(role)))
        with torch.no_grad():
            return Pass(model, batch, hidden_at=(0, 1)).hidden[1][batch.attention.bool()]

    before = {role: states(role) for role in ("forget", "retain")}
    unlearn(made.base, KUDA(lr=3e-3, epochs=20, window=2, threshold=1e-8), made, batch=5, seed=0)
    assert float((states("retain") - before["retain"]).abs().max()) < 1e-4 * float(before["retain"].abs().max())
    assert float(cosine_similarity(states("forget"), before["forget"], dim=-1).mean()) < 0.98


def test_unknown_inputs_are_refused() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    model: Any = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=2, bos_token_id=None, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    with pytest.raises(InputError, match="matrices"):
        _reference(model).ask(RetainInputs(0))
    with pytest.raises(InputError, match="--train full"):
        KUDA().phases(Facts(2, 8, 0, adapters=True))


def test_deviation_by_hand(bench: Bench) -> None:
    """Near 2 ln 2 / beta at the base, in every layer; (2 / beta) ln(1 + e^-beta) where states are orthogonal."""
    bench.base.restore()
    rows = bench.reference.pools.rows["forget"]
    for layer in (0, 1):
        term = Deviate("forget", layer, 2.0, seed=1)
        bench.reference.prepare("forget", term.needs, (0, 1), 16)
        found = _forward(bench, "forget", layer)
        numbers = bench.reference.of("forget", term.needs, term.hidden_at, np.arange(len(rows)))
        losses = term.losses(found, numbers, {})
        assert losses.tolist() == pytest.approx([2 * math.log(2) / 2.0] * len(rows), rel=1e-3)
    # by turns the states of two coordinates each are swapped with their signs, which makes a right angle
    turned = numbers["hidden"].reshape(*numbers["hidden"].shape[:-1], -1, 2).flip(-1) * torch.tensor([1.0, -1.0])
    orthogonal = term.losses(found, {"hidden": turned.flatten(-2)}, {})
    assert orthogonal.tolist() == pytest.approx([math.log1p(math.exp(-2.0))] * len(rows), rel=0.03)


def test_each_layer_of_the_window_deviates_from_its_own_states(bench: Bench) -> None:
    """At the base model a batch's loss is ln 2 at beta 2, up to the tilt; other layers' states lie far away."""
    run = Run(KUDA(window=2, beta=2.0), bench.reference, batch=16, seed=1, engine=Engine())
    picked = run.draw()
    with torch.no_grad():
        batch = bench.reference.stack.batch(picked["forget"] + bench.reference.first["forget"])
        losses = run.losses({"forget": Forward.of(bench.base.model, batch, (0, 1))}, picked)
    assert float(losses["forget"]) == pytest.approx(math.log(2), rel=1e-3)
    first, second = (_tokens(bench, "forget", layer) for layer in (0, 1))
    assert float(cosine_similarity(first, second, dim=-1).mean()) < 0.9


def _turned(bench: Bench, **params: Any) -> tuple[list[float], float, float]:
    """Mean cosine of the first layer's forget states to the base's after every fourth step; both losses at the end."""
    bench.base.restore()
    before = _tokens(bench, "forget", 0)
    seen: list[float] = []

    def look() -> bool:
        seen.append(float(cosine_similarity(_tokens(bench, "forget", 0), before, dim=-1).mean()))
        return False

    method = KUDA(lr=5e-3, epochs=6, window=1, **params)
    unlearn(bench.base, method, bench.reference, batch=16, seed=1, rungs=dict.fromkeys(range(4, 25, 4), look))
    return seen, _nll(bench, "forget"), _nll(bench, "retain")


def test_states_turn_and_the_projection_protects_retain_rows(bench: Bench) -> None:
    """The bound on what changes for retain inputs holds for all of training; without projection they lose more, though
    the forget rows lose enough with it."""
    threshold = 0.05
    spectra = bench.reference.ask(RetainInputs(0))
    cosines, forget, retain = _turned(bench, threshold=threshold)
    assert len(cosines) == 6
    assert all(later < earlier for earlier, later in zip([1.0, *cosines], cosines, strict=False))
    assert _changed(bench.base) == set(spectra)
    for name, one in spectra.items():
        change = (bench.base.scope.own()[name] - bench.base.scope.start[name]).detach()
        moments = one.vectors * one.values @ one.vectors.T
        share = (change @ moments @ change.T).trace() / (change.square().sum() * one.values.sum())
        assert 0 < float(share.sqrt()) < threshold**0.5
    assert forget > 1.0
    freely, without, lost = _turned(bench, threshold=1.0)
    assert lost > 4 * retain
    assert without > forget
    assert freely[-1] < cosines[-1]


def test_what_an_open_projection_moves_breaks_the_bound(bench: Bench) -> None:
    """The bound is no matter of course: without projection the change is far outside of it."""
    _turned(bench, threshold=1.0)
    for name, one in bench.reference.ask(RetainInputs(0)).items():
        change = (bench.base.scope.own()[name] - bench.base.scope.start[name]).detach()
        moments = one.vectors * one.values @ one.vectors.T
        share = (change @ moments @ change.T).trace() / (change.square().sum() * one.values.sum())
        assert float(share) > 0.05


# cure


def _traced(parts: tuple[Component, ...], *effects: float) -> Traced:
    return Traced(parts, torch.tensor(effects, dtype=torch.float64), 1.0)


def _three(*pieces: tuple[Piece, ...]) -> tuple[Component, ...]:
    return tuple(Component("head", 0, "a", some) for some in pieces)


def test_parts_follow_the_side_that_they_work_for() -> None:
    """Effects as 4:1, 1:4 and 1:1; signs and the scale of a side's effects do not matter; the least part is outside."""
    parts = _three((Piece("a."),), (Piece("b."),), (Piece("c."),), (Piece("d."),))
    forget, retain = _traced(parts, 8.0, -2.0, 9.0, 1.0), _traced(parts, -0.2, 0.8, 0.9, 0.1)
    found = CURE(circuit=0.75, specific=0.7).found(forget, retain)
    assert [piece.prefix for piece, _ in found.pieces] == ["a.", "b.", "c."]
    assert found.rules == (Rule.FORGET, Rule.RETAIN, Rule.SHARED, Rule.FROZEN)
    assert CURE(circuit=0.75, specific=0.85).found(forget, retain).rules[:3] == (Rule.SHARED,) * 3
    frozen = CURE(circuit=0.75, specific=0.7, retaining="freeze").found(forget, retain)
    assert frozen.rules == (Rule.FORGET, Rule.FROZEN, Rule.SHARED, Rule.FROZEN)
    assert CURE(circuit=0.01).found(forget, retain).rules == (Rule.SHARED, Rule.FROZEN)


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

    moved = Outside(circuit)({n: torch.ones(s) for n, s in shapes.items()}, Taken({}, {}, {}))
    assert moved["w"].sum(1).tolist() == [3.0] * 6 + [0.0]
    assert moved["o"].sum(0).tolist() == [4.0, 4.0, 0.0, 0.0, 0.0]
    assert bool(moved["m.bias"].all())
    assert not moved["norm"].any()


def _inside(made: Reference, method: Method, model: PreTrainedModel, share: float) -> dict[str, Tensor]:
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
    """Grouped queries, decay, momentum, another filter: elements outside are what they were, those inside move."""
    model: Any = _llama().float()
    made = _reference(model)
    share = 0.6
    method = make(Method, name, {"lr": 1e-3, "epochs": 4, "circuit": share, "specific": 0.55})
    mask = _inside(made, method, model, share)
    inside = torch.cat([some.flatten() for some in mask.values()])
    assert 0.1 < float(inside.float().mean()) < 0.9
    # some head is in the circuit whose keys are not, and some keys are
    queries, keys = (torch.stack([one for n, one in mask.items() if f"{kind}_proj" in n]) for kind in ("q", "k"))
    assert queries.float().mean() > keys.float().mean() > 0
    unlearn(made.base, method, made, batch=3, seed=0)
    start, end = (
        torch.cat([w[n].detach().flatten() for n in mask]) for w in (made.base.scope.origin(), made.base.scope.own())
    )
    assert torch.equal(start[~inside], end[~inside])
    assert float((start != end)[inside].float().mean()) > 0.99


def test_shared_parts_do_not_work_against_retain_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each step and shared module of a run, up to rounding: <g_f', g_r> >= 0, where <g_f, g_r> often was not."""
    seen: list[tuple[dict[Any, Weights], Weights, Circuit]] = []
    plain = ByFunction.direction

    def noted(self: ByFunction, sides: Any, state: Any) -> Weights:
        made = plain(self, sides, state)
        seen.append((sides, made, self.circuit))
        return made

    monkeypatch.setattr(ByFunction, "direction", noted)
    method = make(Method, "cure(grad_diff)", {"lr": 1e-3, "epochs": 2, "circuit": 0.8, "specific": 0.9})
    unlearn(bench.base, method, bench.reference, batch=16, seed=0)
    conflicts = 0
    for sides, made, circuit in seen:
        shared = [rule == Rule.SHARED for rule in circuit.rules]
        assert sum(shared) > 2
        for module in (number for number, one in enumerate(shared) if one):
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

            forget, retain, both = part(sides["forget"]), part(sides["retain"]), part(made)
            conflicts += bool(forget @ retain < 0)
            assert float((both - retain) @ retain) >= -1e-5 * float(forget.norm() * retain.norm())
    assert conflicts > len(seen)


def test_adapters_have_whole_attentions() -> None:
    """Only the adapters of parts in the circuit move."""
    model: Any = _llama().float()
    plain = _reference(model)
    base = Base("tiny", model, None, Lora(model, rank=2), "")  # type: ignore[arg-type]  # no text is tokenised here
    made = Reference(base, plain.pools)
    unlearn(base, make(Method, "cure(grad_diff)", {"lr": 1e-2, "epochs": 3, "circuit": 0.5}), made, batch=3, seed=0)
    traced = made.ask(Trace("forget", heads=True))
    assert [part.kind for part in traced.parts] == ["attention", "feed_forward"] * 2
    moved = {
        name.rpartition(".lora_B")[0] for name, p in base.scope.own().items() if name.endswith("lora_B") and p.any()
    }
    circuit = CURE(circuit=0.5).found(traced, made.ask(Trace("retain", heads=True)))
    allowed = {n for n in model.state_dict() if any(n.startswith(piece.prefix) for piece, _ in circuit.pieces)}
    assert moved
    assert moved == {name.rpartition(".lora_B")[0] for name in allowed if ".lora_B" in name}


def test_many_parts_are_attributed_and_few_are_patched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.base.restore()
    for few, steps in ((10, 0), (9, 4)):
        monkeypatch.setattr(tracing, "FEW", few)
        found = Reference(bench.base, bench.reference.pools).ask(Trace("forget", heads=True))
        assert torch.equal(found.effects, bench.reference.ask(Trace("forget", heads=True, steps=steps)).effects)
    known = facts(bench.reference, 0)
    assert known.ask(Trace("forget", heads=True)) is known.ask(Trace("forget", heads=True))
