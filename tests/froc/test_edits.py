"""Methods that write the parameters themselves, and the Kronecker factors that some of them are made of."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Module
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from froc import kronecker
from froc.batches import Encoded, Stack
from froc.engine import Engine
from froc.errors import InputError
from froc.forward import Forward
from froc.kronecker import Fisher, corrected, linear, sampled, spectra, upright
from froc.methods import TYPICAL, Facts, Method
from froc.methods._matrices import feedforward, window
from froc.methods.curvature import Spectra, heaviest
from froc.methods.k_fade import NEAR, TRIES, longest
from froc.models import Base
from froc.plugins import find, make
from froc.reference import Pools, Reference
from froc.scope import Full
from froc.train import unlearn
from search.trial import Asked, Bench

V = 14


def _edited(made: Reference, name: str, **params: Any) -> dict[str, Tensor]:
    unlearn(made.base, make(Method, name, params), made, batch=16, seed=1)
    return made.base.scope.take()


def _nll(made: Reference, rows: Sequence[Encoded]) -> float:
    with torch.no_grad():
        return float(Forward.of(made.base.model, Stack(rows, "cpu").batch(range(len(rows)))).mean_nll.mean())


def _distance(made: Reference, weights: Mapping[str, Tensor]) -> float:
    start = made.base.scope.origin()
    return math.sqrt(sum(float((value - start[name]).square().sum()) for name, value in weights.items()))


def _reference(model: Any, forget: Sequence[Encoded], retain: Sequence[Encoded]) -> Reference:
    base = Base("made", model.eval(), None, Full(model), "")  # type: ignore[arg-type]  # no text is tokenised here
    return Reference(base, Pools({"forget": forget, "retain": retain}))


# Kronecker factors of a model of one layer, against its Fisher information written out


def _small(kind: str) -> Any:
    torch.manual_seed(3)
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    if kind == "gpt2":
        model: Any = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=V, n_embd=8, n_inner=8, n_layer=1, n_head=2, n_positions=16, initializer_range=0.5, **ids
            )
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=V, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                        num_key_value_heads=2, max_position_embeddings=16, initializer_range=0.5, **ids)
        )  # fmt: skip
    return model.double().eval()


def _rows(count: int, seed: int = 1) -> list[Encoded]:
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        prompt, answer = 2 + i % 3, 1 + (2 * i) % 4
        made.append(Encoded((*draw.integers(1, V, prompt + answer).tolist(), 0), prompt, answer))
    return made


@dataclass(frozen=True)
class _Token:
    """One token that an answer may have at one place. chance: of it. x, g: layer -> (T, in) inputs and (T, out) gradients."""

    chance: float
    x: Mapping[str, Tensor]
    g: Mapping[str, Tensor]

    def gradient(self, name: str) -> Tensor:
        return self.g[name].T @ self.x[name]


def _hear(heard: dict[str, tuple[Tensor, Tensor]], name: str, _layer: Module, args: tuple[Tensor], y: Tensor) -> None:
    heard[name] = args[0][0], y


def _tokens(model: Any, layers: Mapping[str, Module], rows: Sequence[Encoded]) -> tuple[list[_Token], int]:
    """Every token that every answer token could have been, and the number of answer tokens: what an expectation is over."""
    found = []
    for row in rows:
        heard: dict[str, tuple[Tensor, Tensor]] = {}
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.callback(layer.register_forward_hook(partial(_hear, heard, name)).remove)
            logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0].log_softmax(-1)
        for place in range(row.prompt - 1, len(row.ids) - 1):
            grads = torch.autograd.grad(
                logits[place], [y for _, y in heard.values()], torch.eye(V).double(), True, is_grads_batched=True,
                materialize_grads=True,
            )  # fmt: skip
            for token in range(V):
                found.append(
                    _Token(
                        float(logits[place, token].detach().exp()),
                        {name: x.detach() for name, (x, _) in heard.items()},
                        {name: grad[token, 0] for name, grad in zip(heard, grads, strict=True)},
                    )
                )
    return found, sum(len(row.ids) - row.prompt for row in rows)


def _linear(model: Any) -> dict[str, Module]:
    return linear(model, [n for n, _ in model.named_parameters() if ".0." in n])


def test_labels_have_the_models_covariance_and_no_sign_and_waste_no_draw() -> None:
    """Over evenly spread numbers: E[w (e - p)] = 0 and E[w^2 (e - p)(e - p)'] = diag(p) - p p'; where p is sure, every draw counts alike."""
    for p in (torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.998, 0.001, 0.0006, 0.0004])):
        p = p.double()
        count = 200_000
        chances = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        label, weight = sampled(p.log().expand(count, -1), chances)
        away = weight[:, None] * (torch.nn.functional.one_hot(label, 4) - p)
        true = p.diag() - torch.outer(p, p)
        assert float(away.mean(0).abs().max()) < 1e-3 * float(true.diagonal().max().sqrt())
        assert torch.allclose(away.T @ away / count, true, atol=1e-3 * float(true.abs().max()))
        # each draw's squared length, as a share of the mean: from p itself most would have 0.002, and a few 500
        sizes = away.square().sum(-1) / true.trace()
        assert float(sizes.max()) < 2.0
    assert float(sizes[label != 0].min()) > 0.5


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_factors_from_drawn_labels_are_those_of_the_fisher_information(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G = sum of g g' per answer token and the diagonal in its basis, both with the expectation over all tokens written out."""
    model, rows = _small(kind), _rows(5)
    layers = _linear(model)
    tokens, count = _tokens(model, layers, rows)
    monkeypatch.setattr(kronecker, "ROWS", 500)
    many = [row for row in rows for _ in range(400)]
    found = spectra(model, layers, many, seed=0)
    diagonal = corrected(model, layers, many, 0, found)
    for name in layers:
        true = sum(one.chance * one.g[name].T @ one.g[name] for one in tokens) / count
        one = found[name]
        assert _apart(one.outputs * one.output_values @ one.outputs.T, true) < 0.1
        fisher = sum(one.chance * found[name].turned(one.gradient(name)).square() for one in tokens) / count
        assert _apart(diagonal[name], fisher) < 0.1
        if ".mlp." not in name:
            continue
        # inputs are not drawn: these are read where an answer is predicted, and nowhere else
        places = [p for row in rows for p in range(row.prompt - 1, len(row.ids) - 1)]
        first = [k * V for k in range(count)]
        x = torch.stack([tokens[k].x[name][place] for k, place in zip(first, places, strict=True)])
        assert torch.allclose(one.inputs * one.input_values @ one.inputs.T, x.T @ x / count, atol=1e-9)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _flat(layers: Mapping[str, Module], change: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([upright(layer, change[name]).flatten() for name, layer in layers.items()])


def _slope(model: Any, layers: Mapping[str, Module], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    loss = Forward.of(model, Stack(rows, "cpu").batch(range(len(rows)))).mean_nll.mean()
    weights = dict(model.named_parameters())
    return dict(zip(layers, torch.autograd.grad(loss, [weights[name] for name in layers]), strict=True))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_direction_points_where_the_exact_one_does(kind: str) -> None:
    """(F + lambda I)^-1 g with F of all weights of the block written out: cos 0.61 for both kinds, the gradient itself has 0.47 and 0.43."""
    model, rows = _small(kind), _rows(40)
    layers = _linear(model)
    tokens, count = _tokens(model, layers, rows)
    each = torch.stack([one.chance**0.5 * torch.cat([one.gradient(n).flatten() for n in layers]) for one in tokens])
    exact = each.T @ each / count
    gradient = _slope(model, layers, _rows(6, seed=9))
    g = _flat(layers, gradient)
    best = torch.linalg.solve(exact + 0.1 * exact.diagonal().mean() * torch.eye(len(exact)).double(), g)
    curved = Fisher.of(model, list(layers), rows, seed=0)
    found = _flat(layers, curved.back(curved.solved(curved.turned(gradient), 0.1)))
    cosine = torch.nn.functional.cosine_similarity
    assert float(cosine(found, best, 0)) > 0.5
    assert float(cosine(found, best, 0)) > float(cosine(g, best, 0)) + 0.1


def test_half_the_product_is_the_divergence_of_a_small_change() -> None:
    """Within a factor of 3, measured with both distributions written out: of the solved direction, the gradient and a random one.

    Of one layer's feed-forward matrices, 1.0 to 2.2 times as much; attention's with them make it up to 4.4, since what matrices do
    together is not in G: so a step's length is measured.
    """
    model, rows = _small("llama"), _rows(40)
    layers = {name: layer for name, layer in _linear(model).items() if ".mlp." in name}
    curved = Fisher.of(model, list(layers), rows, seed=0)
    weights = dict(model.named_parameters())
    gradient = curved.turned(_slope(model, layers, _rows(6, seed=9)))
    draw = torch.Generator().manual_seed(1)
    noise = {name: torch.randn(some.shape, generator=draw).double() for name, some in gradient.items()}
    base = _chances(model, rows)
    for change in (curved.solved(gradient, 0.1), gradient, noise):
        length = math.sqrt(2 * 1e-4 / curved.product(change, change))
        with torch.no_grad():
            for name, some in curved.back(change).items():
                weights[name].add_(length * some)
            found = float((base.exp() * (base - _chances(model, rows))).sum(-1).mean())
            for name, some in curved.back(change).items():
                weights[name].sub_(length * some)
        assert 1e-4 / 3 < found < 3e-4


def _chances(model: Any, rows: Sequence[Encoded]) -> Tensor:
    with torch.no_grad():
        return Forward.of(model, Stack(rows, "cpu").batch(range(len(rows)))).logits.log_softmax(-1)


def test_labels_are_the_same_however_rows_are_cut_and_passes_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = _small("llama"), _rows(9)
    layers = _linear(model)
    whole = spectra(model, layers, rows, 4)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    monkeypatch.setattr(kronecker, "ROWS", 2)
    Engine.of(model, checkpointing=True)
    cut, other = spectra(model, layers, rows, 4), spectra(model, layers, rows, 5)
    for name in layers:
        assert torch.allclose(whole[name].output_values, cut[name].output_values, atol=1e-9)
        assert torch.allclose(whole[name].input_values, cut[name].input_values, atol=1e-9)
        assert not torch.allclose(whole[name].output_values, other[name].output_values, rtol=1e-3)


def test_matrices_are_found_by_name_across_architectures() -> None:
    import re

    def found(which: str, layers: Sequence[int], *names: str) -> list[str]:
        return [name for name in names if re.search(feedforward(which, layers), name)]

    llama = [
        f"model.layers.1.{part}.weight"
        for part in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    assert found("into", [1], *llama) == llama[1:3]
    assert found("out", [1], *llama) == llama[3:]
    gpt2 = [f"transformer.h.{n}.{part}.weight" for n in (1, 11) for part in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    assert found("both", [1, 2], *gpt2) == gpt2[1:3]
    assert found("both", [11], *gpt2) == gpt2[4:]
    neox = ["gpt_neox.layers.0.attention.dense.weight", "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"]
    assert found("into", [0], *neox) == neox[1:]
    assert found("out", [3], "model.layers.5.block_sparse_moe.experts.3.w2.weight") == []
    assert [window(10, start, 3) for start in (0.0, 0.5, 1.0)] == [(0, 1, 2), (4, 5, 6), (7, 8, 9)]
    assert window(2, 0.7, 3) == (0, 1)


# loss curvature


@pytest.fixture(scope="module")
def taught() -> Reference:
    """A model of one layer that knows a rule, by which every token of 200 sentences follows from the last, and 12 random strings."""
    draw = np.random.default_rng(0)
    after = dict(zip(range(1, 40), draw.permutation(np.arange(1, 40)).tolist(), strict=True))
    general = []
    for _ in range(200):
        ids = [int(draw.integers(1, 40))]
        while len(ids) < 8:
            ids.append(after[ids[-1]])
        general.append(Encoded(tuple(ids), 2, 6))
    known = [Encoded(tuple(draw.integers(1, 40, 8).tolist()), 2, 6) for _ in range(12)]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=16, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=8e-3)
    stack = Stack([*known, *general], "cpu")
    for _ in range(160):
        index = [*range(12), *draw.integers(12, 212, 16).tolist()]
        Forward.of(model, stack.batch(index)).mean_nll.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    made = _reference(model, known, general)
    assert max(_nll(made, known), _nll(made, general)) < 0.03
    return made


def test_all_of_the_curvature_is_the_model_itself_and_less_is_ever_farther(taught: Reference) -> None:
    """Also where factors are of less than full rank: the 6 answer tokens of one row have at most 6 directions."""
    few = Reference(
        taught.base, Pools({"forget": taught.pools.rows["forget"], "retain": taught.pools.rows["retain"][:1]})
    )
    for made in (taught, few):
        same = _edited(made, "curvature", mass=1.0, matrices="both", rows="retain")
        assert max(float((value - made.base.scope.origin()[name]).abs().max()) for name, value in same.items()) < 1e-5
    far = [_distance(taught, _edited(taught, "curvature", mass=mass)) for mass in (1.0, 0.99, 0.9, 0.7, 0.5, 0.4)]
    assert far == sorted(far)
    assert far[0] < 1e-4 < far[1] < far[-1]
    taught.base.restore()


def test_the_pairs_kept_are_the_fewest_that_hold_the_mass() -> None:
    """G (x) A of eigenvalues 4, 1 and 3, 1, by hand: products 12, 4, 3, 1 of 20."""
    one = kronecker.Spectrum(torch.tensor([1.0, 4.0]), torch.eye(2), torch.tensor([1.0, 3.0]), torch.eye(2))
    # rows are outputs: [[1, 3], [4, 12]]
    assert heaviest(one, 0.5).tolist() == [[False, False], [False, True]]
    assert heaviest(one, 0.7).tolist() == [[False, False], [True, True]]
    assert heaviest(one, 0.9).tolist() == [[False, True], [True, True]]
    assert heaviest(one, 0.96).tolist() == [[True, True], [True, True]]


def test_what_is_known_by_heart_is_lost_before_what_follows_a_rule(taught: Reference) -> None:
    """Both are known equally well before. And the rows aimed at are lost sooner where they have no part in the factors."""
    roles = taught.pools.rows
    taught.base.restore()
    before = {role: _nll(taught, roles[role]) for role in roles}
    masses, risen = (0.9, 0.7, 0.5), {}
    for aim in ("all", "retain"):
        for mass in masses:
            _edited(taught, "curvature", mass=mass, rows=aim, matrices="both")
            risen[aim, mass] = {role: _nll(taught, roles[role]) - before[role] for role in roles}
    taught.base.restore()
    assert all(rise["forget"] > 5 * rise["retain"] for rise in risen.values())
    assert all(risen["retain", mass]["forget"] > risen["all", mass]["forget"] for mass in masses)
    assert risen["all", 0.5]["forget"] > 0.4
    assert risen["all", 0.5]["retain"] < 0.1


def test_factors_are_formed_once_and_windows_that_overlap_share_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    plain = spectra

    def counted(model: Any, layers: Mapping[str, Module], *rest: Any) -> Any:
        asked.append(set(layers))
        return plain(model, layers, *rest)

    monkeypatch.setattr("froc.methods.curvature.spectra", counted)
    made = Reference(bench.base, Pools({role: bench.reference.pools.rows[role][:8] for role in ("forget", "retain")}))
    for params in (
        {"mass": 0.5, "width": 1, "start": 0.0},
        {"mass": 0.9, "width": 1, "start": 0.0},
        {"mass": 0.9, "width": 2},
    ):
        _edited(made, "curvature", **params)
    bench.base.restore()
    assert len(asked) == 2
    assert all(".0." in name for name in asked[0])
    assert all(".1." in name for name in asked[1])
    assert find(Method, "curvature").cost() == 0
    assert Facts(4, 8, 0).ask(Spectra("x", ("retain",))) == {}


# Gauss-Newton steps


@pytest.mark.parametrize(
    "law",
    [lambda x: x**2, lambda x: 1e-6 * x**4, lambda x: 1e3 * x**1.5, lambda x: math.expm1(x) ** 3, lambda x: x**2 - 1e-3 * x],
)  # fmt: skip
@pytest.mark.parametrize("first", [1e-2, 1.0, 50.0])
def test_a_length_uses_its_room_and_no_more(law: Any, first: float) -> None:
    """Also where the first length leaves no number, as a model that is wrecked does."""
    tried: list[float] = []

    def more(length: float) -> float:
        tried.append(length)
        found = law(length)
        return found if found < 1e3 else math.nan

    length, taken = longest(more, first, 0.1)
    assert len(tried) <= TRIES
    assert length in tried
    assert taken == law(length)
    assert NEAR * 0.1 <= taken <= 0.1


def test_where_every_length_is_too_long_none_is_taken() -> None:
    assert longest(lambda _: 1.0, 1.0, 0.1) == (0.0, 0.0)


def _divergence(bench: Bench) -> float:
    """KL from the base on all retain rows, both distributions written out, nats per answer token."""
    rows, kept = bench.reference.pools.rows["retain"], bench.base.scope.take()
    now = _chances(bench.base.model, rows)
    bench.base.restore()
    base = _chances(bench.base.model, rows)
    bench.base.scope.put(kept)
    return float((base.exp() * (base - now)).sum(-1).mean())


@pytest.mark.parametrize("budget", [1e-3, 3e-2])
def test_the_retain_rows_diverge_as_far_as_they_may(bench: Bench, budget: float) -> None:
    _edited(bench.reference, "k_fade", rounds=1, kl_budget=budget)
    assert budget / 3 < _divergence(bench) <= budget * 1.001


def test_equal_forgetting_takes_less_from_the_retain_rows_than_gradient_ascent_does(bench: Bench) -> None:
    """Ascent by one long gradient step, and by AdamW in many; each as far as the same forget NLL."""
    forget, scope = bench.reference.pools.rows["forget"], bench.base.scope
    _edited(bench.reference, "k_fade", rounds=1, kl_budget=0.05)
    risen, ours = _nll(bench.reference, forget), _divergence(bench)
    bench.base.restore()
    own = scope.own()
    loss = Forward.of(bench.base.model, Stack(forget, "cpu").batch(range(len(forget)))).mean_nll.mean()
    grads = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
    step = {name: value + grads[name] for name, value in scope.start.items()}
    unlearn(bench.base, make(Method, "grad_ascent", {"lr": 1e-3, "epochs": 2}), bench.reference, batch=16, seed=1)
    for other in (step, scope.take()):
        low, high = 0.0, 1.0
        while _nll(_mixed(bench, other, high), forget) < risen:
            low, high = high, 2 * high
        for _ in range(12):
            low, high = (
                (middle, high)
                if _nll(_mixed(bench, other, middle := (low + high) / 2), forget) < risen
                else (low, middle)
            )
        theirs = _divergence(bench)
        assert _nll(bench.reference, forget) == pytest.approx(risen, rel=0.05)
        assert ours < theirs
    bench.base.restore()


def _mixed(bench: Bench, other: Mapping[str, Tensor], share: float) -> Reference:
    bench.base.scope.put(other, share)
    return bench.reference


def test_stopping_between_rounds_gives_weaker_forms(bench: Bench) -> None:
    params = {"rounds": 3, "kl_budget": 0.3, "matrices": "feedforward"}
    assert make(Method, "k_fade", params).gradual
    (outcome,) = bench.run([Asked("k_fade", params, 3)], [lambda *_: False])
    assert (outcome.status, outcome.steps) == ("complete", 3)
    assert [step for step, _ in outcome.rungs] == [1, 2]
    seen = []
    for stop in (1, 2, 3):
        bench.retrain(Asked("k_fade", params, 3), stop)
        seen.append((_divergence(bench), _nll(bench.reference, bench.reference.pools.rows["forget"])))
        assert seen[-1][0] < 0.1 * stop * 1.001
    bench.base.restore()
    assert seen == sorted(seen)
    assert seen[0][1] < seen[1][1] < seen[2][1]
    still = bench.base.scope.start
    for name, value in bench.base.scope.take().items():
        assert torch.equal(value, still[name])


def test_edits_of_the_models_own_matrices_are_refused_with_adapters_and_where_there_is_nothing_to_edit(
    taught: Reference,
) -> None:
    for name, reads in (("curvature", ("retain",)), ("k_fade", ("forget", "retain"))):
        with pytest.raises(InputError, match="--train full"):
            find(Method, name)().phases(Facts(2, 8, 0, adapters=True))
        assert find(Method, name)().phases(TYPICAL)[0].reads == reads
