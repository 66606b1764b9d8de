"""repselect: what is collapsed, what the adapters elicit, and how far the edit goes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from froc import hashing
from froc.errors import InputError
from froc.methods._matrices import feedforward
from froc.methods.repselect import RANK, ROWS, Elicited, RepSelect, collapsed
from froc.models.forward import Forward
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseStatistics, MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method


def _made(values: list[float]) -> Tensor:
    """A (7, 5) matrix with these singular values."""
    draw = torch.Generator().manual_seed(0)
    outputs, inputs = (
        torch.linalg.qr(torch.randn(n, 5, generator=draw, dtype=torch.float64)).Q[:, : len(values)] for n in (7, 5)
    )
    made: Tensor = outputs @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ inputs.T
    return made


@pytest.mark.parametrize(("form", "largest"), [("hard", 0.0), ("soft", 8 / 4**2), ("quadratic", 8 / 16**2)])
def test_the_largest_components_are_collapsed_on_both_sides_and_the_others_left(form: str, largest: float) -> None:
    """Of singular values 8, 2, 0.01, 0.005 two are collapsed: 8 is four times 2, and divided by that on either side; 2 stays (`hard`: 0)."""
    values = torch.linalg.svdvals(collapsed(_made([8.0, 2.0, 0.01, 0.005]), 2, form))[:4]
    expected = [largest, 0.0 if form == "hard" else 2.0, 0.01, 0.005]
    assert values.tolist() == pytest.approx(sorted(expected, reverse=True), rel=1e-4, abs=1e-9)


def test_equal_components_are_left_alone_and_what_is_drawn_depends_on_the_seed_only() -> None:
    assert collapsed(_made([3.0, 3.0, 3.0]), 3, "soft").norm() == pytest.approx(27**0.5)
    state = torch.get_rng_state()
    ends = [collapsed(_made([3.0, 2.9, 2.8, 2.7, 2.6]), 2, "hard", seed) for seed in (1, 1, 2)]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_is_that_of_weights_with_adapters_that_had_learnt_the_rows_and_the_base_comes_back(
    tiny: BaseStatistics,
) -> None:
    """Against the same by autograd through W + B A, on GPT-2's transposed matrices; at rate 0 the base model's own gradient."""
    tiny.base.restore()
    pattern, rate = feedforward("both", (0, 1)), 0.5
    model: Any = tiny.base.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = Elicited(pattern, rate).compute(tiny)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    names = sorted(result)
    assert len(names) == 4
    sizes = {name: result[name].shape for name in names}
    assert {tuple(size) for size in sizes.values()} == {(24, 16), (16, 24)}
    losses = []
    for rate_ in (0.0, rate):
        gradient = Elicited(pattern, rate_).compute(tiny)
        losses.append({name: gradient[name] for name in names})
    base = tiny.mean_gradient("forget", {name: dict(model.named_parameters())[name] for name in names})
    assert all(torch.allclose(losses[0][name], base[name].T) for name in names)
    # as many steps as batches: six rows are one
    assert len(tiny.pools.rows["forget"]) <= ROWS
    adapters = _by_autograd(tiny, names, rate)
    for name in names:
        assert torch.allclose(result[name], adapters[name], atol=1e-9)
    assert any(not torch.allclose(losses[1][name], losses[0][name], rtol=1e-3) for name in names)


def _by_autograd(tiny: BaseStatistics, names: list[str], rate: float) -> dict[str, Tensor]:
    """One step of B and A from the same draw, then the gradient in W; B alone moves, since A's gradient is B' g = 0."""
    model: Any = tiny.base.model
    parameters = dict(model.named_parameters())
    draw = torch.Generator().manual_seed(hashing.derive_seed("elicitation", tiny.pools.seed))
    into, base = {}, {}
    for name in [name for name in parameters if name in names]:
        base[name] = parameters[name].detach().clone()
        width = base[name].shape[0]
        into[name] = (2 * torch.rand(RANK, width, generator=draw, dtype=torch.float64) - 1) * width**-0.5
    (_, batch) = next(tiny.batches("forget", ROWS))
    out = {name: torch.zeros(base[name].shape[1], RANK, dtype=torch.float64, requires_grad=True) for name in base}
    effective = {name: base[name] + (out[name] @ into[name]).T for name in base}
    loss = torch.func.functional_call(
        model, effective, kwargs={"input_ids": batch.ids, "attention_mask": batch.attention}
    ).logits
    nll = torch.zeros((), dtype=torch.float64)
    for row, (start, length) in enumerate(zip(batch.start, batch.length, strict=True)):
        log = loss[row, start - 1 : length - 1].log_softmax(-1)
        nll = nll - log.gather(-1, batch.ids[row, start:length, None]).mean() / len(batch.start)
    slopes = dict(zip(out, torch.autograd.grad(nll, list(out.values())), strict=True))
    with torch.no_grad():
        for name in base:
            parameters[name].copy_(base[name] - rate * (slopes[name] @ into[name]).T)
    result = tiny.mean_gradient("forget", {name: parameters[name] for name in base})
    with torch.no_grad():
        for name in base:
            parameters[name].copy_(base[name])
    return {name: gradient.T for name, gradient in result.items()}


def test_the_edit_ascends_by_its_size_and_no_other_matrix_moves(bench: TrialRunner) -> None:
    bench.base.restore()
    start = bench.base.trainable.snapshot()
    batch = next(bench.reference.batches("forget", 32))[1]

    def loss() -> float:
        with torch.no_grad():
            return float(Forward.of(bench.base.model, batch).mean_nll.mean())

    before = loss()
    ends = []
    for size in (0.02, 0.04):
        unlearn(bench.base, make(Method, "repselect", {"size": size}), bench.reference, batch=16, seed=1)
        end = bench.base.trainable.snapshot()
        ends.append({name: end[name] - start[name] for name in end})
        assert loss() > before
        bench.base.restore()
    moved = [name for name, change in ends[0].items() if bool(change.any())]
    assert moved
    assert all("mlp" in name for name in moved)
    assert all(torch.allclose(2 * ends[0][name], ends[1][name], atol=1e-6) for name in moved)
    length, whole = (sum(float(w[name].square().sum()) for name in moved) ** 0.5 for w in (ends[1], start))
    assert length == pytest.approx(0.04 * whole, rel=1e-3)


def test_it_refuses_adapters() -> None:
    with pytest.raises(InputError, match="--train full"):
        RepSelect().phases(MethodContext(4, 8, 0, adapters=True))
