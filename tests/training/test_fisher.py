"""Kronecker factors of a model of one layer, against its Fisher information written out."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from froc.methods._matrices import feedforward, window
from froc.models.batches import Encoded, Stack
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.training import fisher as kronecker
from froc.training.fisher import Fisher, as_out_in, ekfac_diagonal, linear_layers, sample_labels, spectra
from tests.training.small import encoded, gpt2, llama

V = 14


def _model(kind: str) -> Any:
    """One layer, in float64: its Fisher information can be written out."""
    shape: dict[str, Any] = {"width": 8, "inner": 8, "layers": 1, "spread": 0.5}
    return (gpt2(V, **shape) if kind == "gpt2" else llama(V, **shape)).double()


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
    result = []
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
                result.append(
                    _Token(
                        float(logits[place, token].detach().exp()),
                        {name: x.detach() for name, (x, _) in heard.items()},
                        {name: grad[token, 0] for name, grad in zip(heard, grads, strict=True)},
                    )
                )
    return result, sum(len(row.ids) - row.prompt for row in rows)


def _linear(model: Any) -> dict[str, Module]:
    return linear_layers(model, [n for n, _ in model.named_parameters() if ".0." in n])


def test_labels_have_the_models_covariance_and_no_sign_and_waste_no_draw() -> None:
    """Over evenly spread numbers: E[w (e - p)] = 0 and E[w^2 (e - p)(e - p)'] = diag(p) - p p'; where p is sure, every draw counts alike."""
    for p in (torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.998, 0.001, 0.0006, 0.0004])):
        p = p.double()
        count = 200_000
        chances = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        label, weight = sample_labels(p.log().expand(count, -1), chances)
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
    model, rows = _model(kind), encoded(5, V)
    layers = _linear(model)
    tokens, count = _tokens(model, layers, rows)
    monkeypatch.setattr(kronecker, "ROWS", 500)
    many = [row for row in rows for _ in range(400)]
    result = spectra(model, layers, many, seed=0)
    diagonal = ekfac_diagonal(model, layers, many, 0, result)
    for name in layers:
        true = torch.stack([token.chance * token.g[name].T @ token.g[name] for token in tokens]).sum(0) / count
        factors = result[name]
        assert _apart(factors.outputs * factors.output_values @ factors.outputs.T, true) < 0.1
        fisher = (
            torch.stack(
                [token.chance * result[name].to_eigenbasis(token.gradient(name)).square() for token in tokens]
            ).sum(0)
            / count
        )
        assert _apart(diagonal[name], fisher) < 0.1
        if ".mlp." not in name:
            continue
        # inputs are not drawn: these are read where an answer is predicted, and nowhere else
        places = [p for row in rows for p in range(row.prompt - 1, len(row.ids) - 1)]
        first = [k * V for k in range(count)]
        x = torch.stack([tokens[k].x[name][place] for k, place in zip(first, places, strict=True)])
        assert torch.allclose(factors.inputs * factors.input_values @ factors.inputs.T, x.T @ x / count, atol=1e-9)


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / second.norm())


def _flat(layers: Mapping[str, Module], change: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([as_out_in(layer, change[name]).flatten() for name, layer in layers.items()])


def _slope(model: Any, layers: Mapping[str, Module], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    loss = Forward.of(model, Stack(rows, "cpu").batch(range(len(rows)))).mean_nll.mean()
    weights = dict(model.named_parameters())
    return dict(zip(layers, torch.autograd.grad(loss, [weights[name] for name in layers]), strict=True))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_direction_points_where_the_exact_one_does(kind: str) -> None:
    """(F + lambda I)^-1 g with F of all weights of the block written out: cos 0.61 for both kinds, the gradient itself has 0.47 and 0.43."""
    model, rows = _model(kind), encoded(40, V)
    layers = _linear(model)
    tokens, count = _tokens(model, layers, rows)
    each = torch.stack(
        [token.chance**0.5 * torch.cat([token.gradient(n).flatten() for n in layers]) for token in tokens]
    )
    exact = each.T @ each / count
    gradient = _slope(model, layers, encoded(6, V, seed=9))
    g = _flat(layers, gradient)
    best = torch.linalg.solve(exact + 0.1 * exact.diagonal().mean() * torch.eye(len(exact)).double(), g)
    curved = Fisher.of(model, list(layers), rows, seed=0)
    result = _flat(layers, curved.from_eigenbasis(curved.solve(curved.to_eigenbasis(gradient), 0.1)))
    cosine = torch.nn.functional.cosine_similarity
    assert float(cosine(result, best, 0)) > 0.5
    assert float(cosine(result, best, 0)) > float(cosine(g, best, 0)) + 0.1


def test_half_the_product_is_the_divergence_of_a_small_change() -> None:
    """Within a factor of 3, measured with both distributions written out: of the solved direction, the gradient and a random one.

    Of one layer's feed-forward matrices, 1.0 to 2.2 times as much; attention's with them make it up to 4.4, since what matrices do
    together is not in G: so a step's length is measured.
    """
    model, rows = _model("llama"), encoded(40, V)
    layers = {name: layer for name, layer in _linear(model).items() if ".mlp." in name}
    curved = Fisher.of(model, list(layers), rows, seed=0)
    weights = dict(model.named_parameters())
    gradient = curved.to_eigenbasis(_slope(model, layers, encoded(6, V, seed=9)))
    draw = torch.Generator().manual_seed(1)
    noise = {name: torch.randn(tensor.shape, generator=draw).double() for name, tensor in gradient.items()}
    base = _chances(model, rows)
    for change in (curved.solve(gradient, 0.1), gradient, noise):
        length = math.sqrt(
            2 * 1e-4 / sum(float((tensor * change[n].square()).sum()) for n, tensor in curved.diagonal.items())
        )
        with torch.no_grad():
            for name, tensor in curved.from_eigenbasis(change).items():
                weights[name].add_(length * tensor)
            result = float((base.exp() * (base - _chances(model, rows))).sum(-1).mean())
            for name, tensor in curved.from_eigenbasis(change).items():
                weights[name].sub_(length * tensor)
        assert 1e-4 / 3 < result < 3e-4


def _chances(model: Any, rows: Sequence[Encoded]) -> Tensor:
    with torch.no_grad():
        return Forward.of(model, Stack(rows, "cpu").batch(range(len(rows)))).logits.log_softmax(-1)


def test_labels_are_the_same_however_rows_are_cut_and_passes_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = _model("llama"), encoded(9, V)
    layers = _linear(model)
    whole = spectra(model, layers, rows, 4)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    monkeypatch.setattr(kronecker, "ROWS", 2)
    Engine.of(model, checkpointing=True)
    cut, with_another_seed = spectra(model, layers, rows, 4), spectra(model, layers, rows, 5)
    for name in layers:
        assert torch.allclose(whole[name].output_values, cut[name].output_values, atol=1e-9)
        assert torch.allclose(whole[name].input_values, cut[name].input_values, atol=1e-9)
        assert not torch.allclose(whole[name].output_values, with_another_seed[name].output_values, rtol=1e-3)


def test_factors_are_the_same_whatever_computes_attention() -> None:
    """A row's first query has no gradient: where attention is computed in one piece, rounding leaves it one."""
    rows = encoded(12, V, most=9)
    inputs = {}
    for attention in ("eager", "sdpa"):
        model = llama(V, attn_implementation=attention)
        name = "model.layers.0.self_attn.q_proj.weight"
        inputs[attention] = spectra(model, linear_layers(model, [name]), rows, seed=0)[name].input_values
    assert torch.allclose(inputs["eager"], inputs["sdpa"], rtol=1e-4)


def test_the_diagonal_is_the_same_however_many_rows_are_multiplied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = _model("llama"), encoded(9, V)
    layers = _linear(model)
    basis = spectra(model, layers, rows, 4)
    whole = ekfac_diagonal(model, layers, rows, 4, basis)
    elements = max(factors.inputs.numel() for factors in basis.values())
    for limit in (1, 4 * elements):
        monkeypatch.setattr(kronecker, "ELEMENTS", limit)
        cut = ekfac_diagonal(model, layers, rows, 4, basis)
        assert all(torch.allclose(whole[name], cut[name], rtol=1e-9) for name in layers)


def test_matrices_are_found_by_name_across_architectures() -> None:
    import re

    def matching(which: str, layers: Sequence[int], *names: str) -> list[str]:
        return [name for name in names if re.search(feedforward(which, layers), name)]

    llama = [
        f"model.layers.1.{part}.weight"
        for part in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    assert matching("into", [1], *llama) == llama[1:3]
    assert matching("out", [1], *llama) == llama[3:]
    gpt2 = [f"transformer.h.{n}.{part}.weight" for n in (1, 11) for part in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    assert matching("both", [1, 2], *gpt2) == gpt2[1:3]
    assert matching("both", [11], *gpt2) == gpt2[4:]
    neox = ["gpt_neox.layers.0.attention.dense.weight", "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"]
    assert matching("into", [0], *neox) == neox[1:]
    assert matching("out", [3], "model.layers.5.block_sparse_moe.experts.3.w2.weight") == []
    assert [window(10, start, 3) for start in (0.0, 0.5, 1.0)] == [(0, 1, 2), (4, 5, 6), (7, 8, 9)]
    assert window(2, 0.7, 3) == (0, 1)
