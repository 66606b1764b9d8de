"""Methods that move next-token distributions by pairs or teachers that are made from the base model's: DiPO and E2URec."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, softmax

from froc.batches import collate
from froc.forward import Forward
from froc.likelihood import buckets
from froc.methods import Method
from froc.methods.dipo import DistributionPreference
from froc.plugins import make
from froc.train import unlearn
from search.trial import Bench

V = 120
LR = {"lr": 2e-3, "epochs": 3}
WHOLE = torch.empty(0, dtype=torch.int64)
"""Buckets that are the tokens."""


class Given:
    """A forward pass of rows of 2, 3 and 1 answer tokens whose logits are given."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.detach().requires_grad_()
        self.row = torch.tensor([0, 0, 1, 1, 1, 2])

    def sum(self, tokens: Tensor) -> Tensor:
        return torch.zeros(3, dtype=tokens.dtype).index_add(0, self.row, tokens)


def _drawn(seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(6, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """(N,) KL(p || q) of (N, V) log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def _nll(bench: Bench, role: str) -> float:
    rows = bench.reference.pools.rows[role]
    with torch.no_grad():
        return float(Forward.of(bench.base.model, collate(rows, range(len(rows)), "cpu")).mean_nll.mean())


# DiPO


@pytest.mark.parametrize(("strength", "top"), [(1.0, 10), (2.5, 1), (0.5, 119), (1.0, 500)])
def test_dipo_is_the_preference_between_sequence_divergences(strength: float, top: int) -> None:
    """Four KL divergences, each summed over a row; fgt and mem made here token by token; no shift of logits changes it."""
    base, now = _drawn(1), _drawn(2)
    p = log_softmax(base, -1)
    logits = {"fgt": base.clone(), "mem": base.clone()}
    for n in range(len(base)):
        order = base[n].argsort(descending=True)
        likeliest = order[: min(top, V - 1)]
        above = base[n, likeliest] - base[n, order[len(likeliest)]]
        logits["fgt"][n, likeliest] -= strength * above
        logits["mem"][n, likeliest] += strength * above
    fgt, mem = (log_softmax(some, -1) for some in logits.values())
    theta = log_softmax(now, -1)
    margin = (_kl(fgt, p) - _kl(fgt, theta)) - (_kl(mem, p) - _kl(mem, theta))
    one = Given(now)
    expected = -2 / 0.05 * logsigmoid(0.05 * one.sum(margin))
    term = DistributionPreference("forget", 0.05, strength, top)
    for shift in (0.0, 700.0):
        found = term.losses(Given(now + shift), {"spread": p, "buckets": WHOLE}, {})  # type: ignore[arg-type]
        assert torch.allclose(found, expected, rtol=1e-10)
    found = term.losses(Given(base), {"spread": p, "buckets": WHOLE}, {})  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([2 * math.log(2) / 0.05] * 3)


def test_dipo_at_the_base_takes_from_the_likeliest_and_gives_to_the_others() -> None:
    """Its gradient in the logits there: sum_v (mem - fgt)(v) (e_v - p) is mem - fgt, for both are distributions."""
    base = _drawn(3)
    p = log_softmax(base, -1)
    term = DistributionPreference("forget", 0.3, 1.0, 4)
    now = Given(base)
    loss = term.losses(now, {"spread": p, "buckets": WHOLE}, {})  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(loss.sum(), [now.logits])
    first = base.argmax(-1, keepdim=True)
    assert bool((slope.gather(-1, first) > 0).all())
    fourth = base.topk(5).values[:, -1:]
    # with strength 1 the four likeliest stand as high as the fifth, and as far again above it
    fgt, mem = softmax(base.clamp_max(fourth), -1), softmax(base + (base - fourth).clamp_min(0), -1)
    assert torch.allclose(slope, mem - fgt, atol=1e-12)


@pytest.mark.parametrize("top", [3, 30])
def test_dipo_of_the_likeliest_tokens_is_that_of_all_where_the_others_have_no_share(top: int) -> None:
    base = _drawn(4)
    base[:, 40:] = -60.0
    now = _drawn(5) * 0.1 + base
    p = log_softmax(base, -1)
    ids = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(k)) for k in range(6)])
    term = DistributionPreference("forget", 0.2, 0.5, top)
    whole = term.losses(Given(now), {"spread": p, "buckets": WHOLE}, {})  # type: ignore[arg-type]
    few = term.losses(Given(now), {"spread": buckets(base, ids), "buckets": ids}, {})  # type: ignore[arg-type]
    assert torch.allclose(whole, few, rtol=1e-8)


def test_dipo_takes_the_rest_of_the_vocabulary_for_no_token() -> None:
    """Others that weigh more together than any token: the bucket is neither taken away nor measured from."""
    base = _drawn(6, 0.1)
    ids = base.topk(20).indices
    kept = buckets(base, ids)
    assert bool((kept[:, -1:] > kept[:, :-1]).all())
    term = DistributionPreference("forget", 0.2, 1.0, 5)
    (fgt, mem), p = term.pair(kept, True), kept.exp()
    sixth = kept[:, :-1].topk(6).values[:, -1]
    for made in (fgt, mem):
        # what was not touched keeps its ratio to the sixth token
        assert torch.allclose(made[:, -1] / made[:, 5], p[:, -1] / sixth.exp())
        assert torch.allclose(made.sum(-1), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(fgt[:, :5], fgt[:, 5:6].expand(-1, 5))


def test_dipo_forgets_and_holds(bench: Bench) -> None:
    bench.base.restore()
    before = _nll(bench, "forget"), _nll(bench, "retain")
    unlearn(bench.base, make(Method, "dipo", LR | {"retain_weight": 5.0}), bench.reference, batch=16, seed=1)
    after = _nll(bench, "forget"), _nll(bench, "retain")
    bench.base.restore()
    assert max(before) < 0.01
    assert after[0] > 1
    assert after[1] < 0.3
