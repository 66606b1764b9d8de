"""AdamW in 8 bits: its rounding is unbiased, its steps are those of AdamW but for that, and its state is saved to the bit."""

import pytest
import torch
from torch.nn import Parameter

from froc.models.memory_needs import moment_bytes
from froc.training.adamw import WEIGHT_DECAY, adamw
from froc.training.adamw8bit import BLOCK, SIGNED, UNSIGNED, AdamW8bit, Draw, _decoded, _encode, rounded_into
from froc.training.checkpoint import join_tensors, split_tensors


def _mean_error(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    """The mean over draws less the exact value, in standard errors, over all values; about 1 without bias."""
    error = rounded.mean(0) - exact
    deviation = rounded.std(0) / len(rounded) ** 0.5
    kept = deviation > 0
    return float((error[kept] / deviation[kept]).square().mean().sqrt())


def test_rounding_to_bfloat16_is_unbiased_and_to_a_neighbour() -> None:
    exact = torch.randn(400, generator=torch.Generator().manual_seed(0))
    draw, draws = Draw(1), 2000
    rounded = torch.empty(draws, len(exact), dtype=torch.bfloat16)
    rounded_into(rounded, exact.repeat(draws, 1), draw)
    assert 0.9 < _mean_error(rounded.float(), exact) < 1.1
    assert ((rounded.float() - exact).abs() <= exact.abs() * 2**-7).all()
    assert float((rounded[0] == exact.bfloat16()).float().mean()) < 0.9
    already = exact.bfloat16()
    rounded_into(rounded[0], already.float(), draw)
    assert torch.equal(rounded[0], already)


@pytest.mark.parametrize(("largest", "power"), [(SIGNED, 2), (UNSIGNED, 4)])
def test_moments_are_rounded_without_bias(largest: int, power: int) -> None:
    exact = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) ** 3
    exact = exact if largest == SIGNED else exact.square()
    exact[7] = 0.0
    draw, draws = Draw(1), 2000
    codes = torch.empty(draws * BLOCK, dtype=torch.int8 if largest == SIGNED else torch.uint8)
    scale = torch.empty(draws)
    _encode(exact.repeat(draws), codes, scale, largest, power, draw)
    decoded = _decoded(codes, scale, largest, power).view(draws, BLOCK)
    assert (scale == exact.abs().max()).all()
    # the least second moments are kept above zero, whatever their mean
    clear = exact.abs() > 2 * exact.abs().max() / UNSIGNED**4
    assert 0.85 < _mean_error(decoded[:, clear], exact[clear]) < 1.15
    assert (decoded[:, 7] == 0).all()
    if largest == UNSIGNED:
        assert (decoded[:, exact > 0] > 0).all()


def _losses(name: str, dtype: torch.dtype, lr: float = 0.01, steps: int = 200) -> list[float]:
    """Of a regression, whose gradients shrink as it is learnt."""
    draw = torch.Generator().manual_seed(0)
    x, true = torch.randn(128, 40, generator=draw), torch.randn(40, 30, generator=draw)
    weight = Parameter(torch.zeros(40, 30, dtype=dtype))
    optimiser = adamw([weight], lr, name, seed=3)
    losses = []
    for _ in range(steps):
        loss = (x @ weight.float() - x @ true).square().mean()
        losses.append(float(loss.detach()))
        weight.grad = None
        loss.backward()
        optimiser.step()
    return losses


def test_training_in_8_bits_goes_as_in_float32() -> None:
    exact, coarse = _losses("adamw", torch.float32), _losses("adamw8bit", torch.float32)
    for step in (50, 100, 199):
        assert coarse[step] == pytest.approx(exact[step], rel=0.05)


def test_small_steps_in_bfloat16_add_up_where_rounding_to_the_nearest_loses_them() -> None:
    """Steps of 1e-4 on weights near 1, whose neighbours are 8e-3 apart."""
    weights = {}
    for name in ("adamw", "adamw8bit"):
        weight = Parameter(torch.ones(4096, dtype=torch.bfloat16))
        optimiser = adamw([weight], 1e-4, name, seed=3)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimiser.step()
        weights[name] = float(weight.detach().float().mean())
    assert weights["adamw"] == 1.0
    assert weights["adamw8bit"] == pytest.approx(1 - 100 * 1e-4 * (1 + WEIGHT_DECAY), rel=1e-3)


@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK + 5])
def test_a_first_step_is_adamws(size: int) -> None:
    """The first moments are exact but for rounding of the state, which the step does not read."""
    values, gradient = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    stepped = []
    for name in ("adamw", "adamw8bit"):
        weight = Parameter(values.clone())
        weight.grad = gradient.clone()
        adamw([weight], 1e-2, name, seed=0).step()
        stepped.append(weight.detach())
    assert torch.allclose(stepped[0], stepped[1], rtol=1e-6, atol=1e-7)


def test_steps_are_repeatable_and_a_saved_state_goes_on_to_the_same_bits() -> None:
    def stepped(optimiser: torch.optim.Optimizer, weight: Parameter, steps: range) -> None:
        for step in steps:
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)).to(weight)
            optimiser.step()

    weights = [Parameter(torch.ones(700, dtype=torch.bfloat16)) for _ in range(3)]
    whole, half = (AdamW8bit([weight], 1e-2, 0.0, seed=5) for weight in weights[:2])
    stepped(whole, weights[0], range(6))
    stepped(half, weights[1], range(3))
    document, tensors = split_tensors(half.state_dict())
    again = AdamW8bit([weights[2]], 1e-2, 0.0, seed=5)
    again.load_state_dict(join_tensors(document, tensors, torch.device("cpu")))
    with torch.no_grad():
        weights[2].copy_(weights[1])
    stepped(again, weights[2], range(3, 6))
    assert torch.equal(weights[0], weights[2])
    assert again.second_moment(weights[2]).shape == weights[2].shape
    other = Parameter(torch.ones(700, dtype=torch.bfloat16))
    stepped(AdamW8bit([other], 1e-2, 0.0, seed=6), other, range(6))
    assert not torch.equal(weights[0], other)


def test_a_state_takes_little_more_than_two_bytes_a_parameter() -> None:
    weight = Parameter(torch.zeros(100 * BLOCK))
    weight.grad = torch.ones_like(weight)
    optimiser = AdamW8bit([weight], 1e-2, 0.0, seed=0)
    optimiser.step()
    size = sum(value.nbytes for value in optimiser.state[weight].values())
    assert size == moment_bytes("adamw8bit", weight.numel(), 0) + 4


def test_draws_are_uniform_and_differ_by_call_and_seed() -> None:
    draw, count = Draw(1, 2), 2**16
    first, second = (draw.uniform(torch.empty(count)) for _ in range(2))
    assert torch.equal(first, Draw(1, 2).uniform(torch.empty(count)))
    for values in (first, second, Draw(1, 3).uniform(torch.empty(count))):
        share = torch.histc(values, 64, 0.0, 1.0) / count
        # a share of 1 / 64 varies by this much, of which 64 stay within four
        assert ((share - 1 / 64).abs() < 4 * (1 / 64 / count) ** 0.5).all()
        assert abs(float(torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1])) < 4 / count**0.5
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 4 / count**0.5
