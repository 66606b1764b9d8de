"""The pretend device is one: values as on the CPU, refusals as on CUDA, bytes and waits counted."""

from collections.abc import Callable

import pytest
import torch

from tests.pretend_cuda import device

CUDA = torch.device("cuda:0")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).cuda()


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).cuda()


def test_values_are_the_cpus(x: torch.Tensor, y: torch.Tensor) -> None:
    assert (x.device, x.is_cuda, (x @ y).device) == (CUDA, True, CUDA)
    assert torch.equal((x @ y).cpu(), x.cpu() @ y.cpu())
    assert x[torch.arange(2)].is_cuda
    assert torch.equal(x[x > 0].cpu(), x.cpu()[x.cpu() > 0])
    assert torch.unique(torch.tensor([1, 1, 2], device="cuda")).tolist() == [1, 2]


def test_views_share_memory(x: torch.Tensor) -> None:
    before = x.cpu()
    view = x[1:3].t()
    view.mul_(2)
    assert view.is_cuda
    assert torch.equal(x[1:3].cpu(), 2 * before[1:3])
    assert torch.equal(x[0].cpu(), before[0])


def test_an_out_tensor_that_grows_stays_on_the_device(x: torch.Tensor) -> None:
    out = torch.empty(0, device="cuda")
    torch.add(x, 1, out=out)
    assert out.is_cuda
    assert torch.equal(out.cpu(), x.cpu() + 1)


@pytest.mark.parametrize(
    "work",
    [
        lambda x, y: x + torch.randn(4, 5), lambda x, y: x @ torch.randn(5, 3), lambda x, y: torch.cat([x, torch.zeros(1, 5)]),
        lambda x, y: x.gather(1, torch.zeros(4, 1, dtype=torch.int64)),
        lambda x, y: x.index_add_(0, torch.zeros(2, dtype=torch.int64), torch.ones(2, 5)),
        lambda x, y: torch.nn.functional.embedding(torch.zeros(2, dtype=torch.int64), x),
        lambda x, y: x + y.to("cuda:1").sum(0)[:1].expand(4, 1),
        lambda x, y: torch.zeros(4, 5).add_(x),
    ],
)  # fmt: skip
def test_tensors_of_two_devices_are_refused(x: torch.Tensor, y: torch.Tensor, work: Callable[..., object]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        work(x, y)


def test_what_cuda_takes_from_the_host_is_taken(x: torch.Tensor) -> None:
    assert (x + torch.tensor(2.0)).is_cuda
    x[torch.arange(2), torch.arange(2)] -= 1.0


def test_numbers_of_the_device_are_drawn_on_the_device(x: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())
    with pytest.raises(TypeError, match="can't convert"):
        x.numpy()
    torch.manual_seed(3)
    first, state = torch.rand(3, device="cuda"), torch.cuda.get_rng_state()
    second = torch.rand(3, device="cuda")
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.rand(3, device="cuda"), second)
    torch.manual_seed(3)
    # draws of the host do not move the device's
    torch.rand(10)
    assert torch.equal(torch.rand(3, device="cuda"), first)


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_and_optimisers_work(x: torch.Tensor, fused: bool) -> None:
    weight = torch.randn(5, 5, device="cuda", requires_grad=True)
    torch.nn.functional.cross_entropy(x @ weight, torch.zeros(4, dtype=torch.int64, device="cuda")).backward()
    optimiser, before = torch.optim.AdamW([weight], lr=1e-2, fused=fused), weight.detach().clone()
    optimiser.step()
    assert weight.grad is not None
    assert weight.grad.is_cuda
    assert (weight != before).all()


def test_autocast_and_attention(x: torch.Tensor, y: torch.Tensor) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        assert (x @ y).dtype == torch.bfloat16
    query, key, value = torch.randn(3, 1, 2, 4, 8, device="cuda")
    assert torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).is_cuda


def _filled(x: torch.Tensor, index: object, value: object) -> None:
    x[index] = value  # type: ignore[index, assignment]  # torch lists what it takes, and takes more


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda x: x.sum().item(), ["number read"]),
        (lambda x: x.cpu(), ["copy to host"]),
        (lambda x: torch.zeros(6).cuda(), ["copy to device"]),
        (lambda x: x[torch.arange(2)], ["copy to device"]),
        (lambda x: x[x > 0], ["size of a result"]),
        (lambda x: _filled(x, torch.arange(2), x[2:].clone()), ["index on the host"]),
        (lambda x: _filled(x, x > 0, x[0, :1]), ["size of a result"]),
        (lambda x: _filled(x, x > 0, 1.0), []),
        (lambda x: torch.softmax(x @ x.t() + 1, -1), []),
    ],
)  # fmt: skip
def test_waits_are_counted_once(x: torch.Tensor, work: Callable[[torch.Tensor], object], waits: list[str]) -> None:
    with device.watching() as places:
        work(x)
    assert [kind for kind, _, _ in places.elements()] == waits
    assert device.counts()["waits"] == len(waits)


def test_launches_and_bytes_are_counted(x: torch.Tensor) -> None:
    device.reset_counts()
    (x.cpu().cuda() + 1).sum()
    names = ("launches", "copies_to_device", "copies_to_host", "bytes_to_device", "bytes_to_host")
    assert [device.counts()[name] for name in names] == [4, 1, 1, 80, 80]


def test_only_pinned_memory_is_copied_without_waiting() -> None:
    pinned = torch.zeros(6).pin_memory()
    assert pinned.is_pinned()
    with device.watching() as places:
        pinned.to("cuda", non_blocking=True)
        torch.zeros(6).to("cuda", non_blocking=True)
        pinned.to("cuda")
    assert [kind for kind, _, _ in places.elements()] == ["copy to device"] * 2
    assert device.counts()["copies_to_device"] == 3


def test_memory_is_counted_and_limited() -> None:
    before = device.allocated()
    tensor = torch.empty(1000, 1000, device="cuda")
    assert device.allocated() - before == torch.cuda.memory_allocated() - before == tensor.nbytes
    product = tensor @ tensor
    assert device.allocated() - before == 2 * tensor.nbytes
    del tensor, product
    assert device.allocated() == before
    assert device.peak() - before >= 8_000_000
    device.limit(before + 5_000_000)
    assert torch.cuda.mem_get_info() == (5_000_000, before + 5_000_000)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.empty(1500, 1000, device="cuda")
    half = torch.empty(1000, 1000, device="cuda")
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        half @ half
    del half
    assert device.allocated() == before


def test_there_are_several_devices() -> None:
    assert torch.cuda.device_count() == 2
    second = torch.zeros(2, device="cuda:1")
    assert (second + 1).device == torch.device("cuda:1")
    with torch.cuda.device(1):
        assert torch.zeros(2, device="cuda").device.index == 1
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(2, device="cuda:2")


def test_racing_kernels_differ_from_call_to_call() -> None:
    def summed() -> torch.Tensor:
        index = torch.zeros(100, dtype=torch.int64, device="cuda")
        return torch.zeros(1, 50, device="cuda").index_add_(0, index, torch.full((100, 50), 0.1, device="cuda"))

    assert torch.equal(summed(), summed())
    device.race(True)
    try:
        first, second = summed(), summed()
    finally:
        device.race(False)
    assert not torch.equal(first, second)
    assert torch.allclose(first, second, rtol=1e-6)
