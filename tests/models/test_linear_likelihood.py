"""Likelihoods made of the head's inputs, a chunk of positions at a time: values, gradients, and which models allow it."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from froc.measuring.model_observation import _tokens
from froc.models import likelihood
from froc.models.batches import Stack
from froc.models.forward import LINEAR_HEAD, Forward, Pass
from froc.models.narrowing import try_narrowing
from tests.training.small import encoded, llama, reference

SIZES: Any = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "inputs", "close"),
    [
        (torch.float64, torch.float64, 1e-12), (torch.float32, torch.float32, 1e-5), (torch.bfloat16, torch.float32, 3e-2),
        (torch.bfloat16, torch.bfloat16, 3e-2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("elements", [1, 300, 10**9])
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_a_linear_layer_and_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, inputs: torch.dtype, close: float, elements: int, biased: bool
) -> None:
    """However many positions are worked on at a time; products in half precision as autocast would make them."""
    monkeypatch.setattr(likelihood, "CHUNK", elements)
    draw = torch.Generator().manual_seed(0)
    states, weight = torch.randn(17, 8, generator=draw).to(inputs), torch.randn(40, 8, generator=draw).to(inputs)
    bias = torch.randn(40, generator=draw).to(inputs) if biased else None
    target, grad = torch.randint(0, 40, (17,), generator=draw), torch.rand(17, generator=draw)
    result = []
    for kind in (dtype, None):
        leaves: list[Any] = [
            None if t is None else t.to(inputs if kind else torch.float64, copy=True).requires_grad_()
            for t in (states, weight, bias)
        ]
        if kind:
            nll = likelihood.linear_nll(leaves[0], leaves[1], leaves[2], target, dtype)
            assert nll.dtype == torch.promote_types(dtype, torch.float32)
        else:
            logits = torch.nn.functional.linear(leaves[0], leaves[1], leaves[2])
            nll = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        (nll * grad).sum().backward()
        result.append([nll.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    for ours, exact in zip(*result, strict=True):
        assert torch.allclose(ours.double(), exact, rtol=close, atol=close * float(exact.abs().max()))


def test_only_what_is_wanted_is_differentiated() -> None:
    states, weight = torch.randn(3, 8, requires_grad=True), torch.randn(40, 8)
    likelihood.linear_nll(states, weight, None, torch.zeros(3, dtype=torch.int64)).sum().backward()
    assert states.grad is not None
    assert weight.grad is None


def test_a_logit_that_is_infinite_or_nan_is_not_taken_for_a_likelihood() -> None:
    states = torch.tensor([[torch.inf], [torch.nan], [1.0]])
    nll = likelihood.linear_nll(states, torch.tensor([[1.0], [2.0]]), None, torch.zeros(3, dtype=torch.int64))
    assert nll.isnan().tolist() == [True, True, False]


def _model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    makers: dict[str, Any] = {
        "capped": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES)),
        "scaled": lambda: CohereForCausalLM(CohereConfig(**SIZES)), "plain": lambda: llama(40),
    }  # fmt: skip
    model: PreTrainedModel = makers[kind]().eval()
    return model


@pytest.mark.parametrize(("kind", "linear"), [("plain", True), ("capped", False), ("scaled", False)])
def test_a_cap_or_a_factor_behind_the_head_is_found(kind: str, linear: bool) -> None:
    model = _model(kind)
    assert try_narrowing(model)
    assert (model in LINEAR_HEAD) == linear


@pytest.mark.parametrize("kind", ["plain", "capped"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_pass_gives_the_same_whether_its_logits_are_made_or_not(
    monkeypatch: pytest.MonkeyPatch, kind: str, autocast: bool
) -> None:
    """Likelihoods, logits and gradients; a term may read likelihoods first and logits after."""
    model = _model(kind)
    try_narrowing(model)
    batch = Stack(encoded(5, 40), torch.device("cpu")).batch(range(5))
    result = []
    for chunk in (2**24, 120):
        monkeypatch.setattr(likelihood, "CHUNK", chunk)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            forward = Pass(model, batch, hidden_at=[1])
        assert (forward._states is None) == (kind == "capped" or chunk == 2**24)
        assert forward.nll.dtype == torch.float32
        (forward.sum_nll @ torch.arange(5.0)).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert forward.logits is not None
        result.append((forward.nll.detach(), forward.logits.detach().float(), gradients))
    for whole, chunked in zip(*result, strict=True):
        assert torch.allclose(
            whole,
            chunked,
            rtol=2e-2 if autocast else 1e-5,
            atol=float(whole.abs().max()) * (1e-2 if autocast else 1e-5),
        )


def test_looks_and_the_bases_distributions_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    result = []
    for chunk in (2**24, 120):
        monkeypatch.setattr(likelihood, "CHUNK", chunk)
        model = llama(40)
        try_narrowing(model)
        made = reference(model)
        made.prepare("forget", ("sum_nll", "token_distribution"), (), 64)
        seen = _tokens(model, encoded(7, 40), 4, True, True)
        assert seen.token_moments is not None
        rows = Forward.of(model, made.stack.batch(range(5)))
        of_rows, _ = made.token_distribution["forget"].of(rows.row, rows.place)
        result.append((seen.hit, seen.logp, seen.token_moments, made.sum_nll["forget"].numpy(), of_rows.numpy()))
    for whole, chunked in zip(*result, strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)
