"""Bytes counted on the meta device: by hand, and what is read there."""

import torch

from froc.models.allocations import META, SMALL, counted
from froc.models.autocast import autocast

MATRIX = 100 * 100 * 4


def test_bytes_are_counted_until_the_last_view_is_gone() -> None:
    weight = torch.empty(100, 100, device=META)
    with counted([weight]) as allocations:
        product = weight @ weight
        assert allocations.live == allocations.peak == 2 * MATRIX
        view = product.T[:3]
        del product
        assert allocations.live == 2 * MATRIX
        del view
        assert (allocations.live, allocations.peak) == (MATRIX, 2 * MATRIX)
        allocations.reset_peak()
        weight.add_(1.0)
        assert allocations.peak == MATRIX
        del weight
    assert allocations.live == 0


def test_a_gradient_and_what_a_product_keeps_for_it_are_counted() -> None:
    weight = torch.empty(100, 100, device=META, requires_grad=True)
    with counted([weight]) as allocations:
        loss = (weight @ weight).exp().sum()
        # the exponential is kept for its gradient, the product is not
        assert allocations.live == 2 * MATRIX + 4
        loss.backward()
        del loss
        assert allocations.live == 2 * MATRIX
    assert weight.grad is not None


def test_numbers_are_ones_and_what_lies_on_the_host_has_no_bytes() -> None:
    with counted([]) as allocations:
        value = torch.zeros(4, device=META)
        assert value.sum().item() == 1.0
        assert value.tolist() == [1.0] * 4
        assert bool((value > 1).all())
        assert torch.equal(value, value + 1)
        assert value.cpu().numpy().tolist() == [1.0] * 4
        assert value[value > 0].shape == (4,)
        before = allocations.live
        large = torch.zeros(SMALL + 1, device=META)
        kept = large.to("cpu", copy=True)
        assert allocations.live - before == large.nbytes == kept.nbytes
        large.copy_(kept)


def test_autocast_casts_factors_and_keeps_the_casts_of_parameters() -> None:
    weight = torch.empty(100, 100, device=META, requires_grad=True)
    x = torch.empty(100, 100, device=META)
    with counted([weight, x]) as allocations, autocast(META, torch.bfloat16):
        with torch.no_grad():
            assert torch.nn.functional.linear(x, weight).dtype == torch.bfloat16
        assert allocations.live == 2 * MATRIX + MATRIX // 2
    assert torch.nn.functional.linear(x, weight).dtype == torch.float32
