"""Negative log-likelihood of tokens with little memory: logits are the largest tensor of a step.

torch's cross-entropy keeps a float32 copy of half-precision logits and their log-softmax, and allocates two more
tensors of that size in the backward pass. `token_nll` keeps the logits and allocates one; `linear_nll` keeps none of that
size and computes the logits twice, a chunk of positions at a time. `over_logits` does so for any function of a position's logits.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from froc.models.autocast import autocast

ELEMENTS = 2**21
"""Number of logits of `token_nll` processed in float32 at a time on a CPU: what its caches hold."""
CHUNK = 2**24
"""Number of logits processed at a time elsewhere (64 MiB in float32), and by `linear_nll`."""


def token_nll(logits: Tensor, target: Tensor) -> Tensor:
    """(N,) nats, float32 or wider, of (N,) int64 targets under (N, V) logits of any floating dtype."""
    nll: Tensor = _TokenNLL.apply(logits, target)
    return nll


class _TokenNLL(torch.autograd.Function):
    """nll_n = log sum_v exp(z_nv) - z_n,t(n); its gradient in z is softmax(z_n) - onehot(t(n))."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        wide = torch.promote_types(logits.dtype, torch.float32)
        total = logits.new_empty(len(logits), dtype=wide)
        for part in _parts(logits):
            total[part] = _log_sum_exp(logits[part].to(wide), overwrite=logits.dtype != wide)
        ctx.save_for_backward(logits, target, total)
        return total - logits.gather(-1, target[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, target, total = ctx.saved_tensors
        grad = torch.empty_like(logits)
        exact = logits.dtype == total.dtype
        for part in _parts(logits):
            # written into the result where that has the same precision
            gradient = torch.sub(logits[part], total[part, None], out=grad[part] if exact else None)
            _differentiated(gradient, target[part], grads[0][part])
            if not exact:
                grad[part] = gradient
        return grad, None


def linear_nll(
    states: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """`token_nll` of the logits of a linear layer, without more than a chunk of these in memory.

    states: (N, D) inputs; weight: (V, D). dtype: in which they are multiplied, as autocast would have it; their own by default.
    """
    nll: Tensor = _LinearNLL.apply(states, weight, bias, target, dtype or weight.dtype)
    return nll


class _LinearNLL(torch.autograd.Function):
    """The logits are computed again in the backward pass, and each chunk's gradient goes on to states and weight at once."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, dtype: torch.dtype
    ) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        total, picked = (states.new_empty(len(states), dtype=wide) for _ in range(2))
        head = _Head(states, weight, bias, dtype)
        for part in chunks_of(len(states), len(weight)):
            total[part], picked[part] = _total_and_picked(head.logits(part).to(wide), target[part])
        ctx.save_for_backward(states, weight, bias, target, total)
        ctx.dtype = dtype
        return total - picked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, target, total = ctx.saved_tensors
        head = _Head(states, weight, bias, ctx.dtype, ctx.needs_input_grad)
        for part in chunks_of(len(states), len(weight)):
            gradient = head.logits(part).to(total.dtype).sub_(total[part, None])
            _differentiated(gradient, target[part], grads[0][part])
            head.add(part, gradient)
            # before the next chunk's is made
            del gradient
        return *head.gradients, None, None


class _Head:
    """A linear layer's outputs, a chunk of positions at a time, and the gradients of its inputs, weight and bias from theirs."""

    def __init__(
        self, states: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, wanted: Sequence[bool] = (False,) * 3
    ) -> None:  # fmt: skip
        self._states, self._weight = states.detach().to(dtype), weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)
        inputs = zip((states, weight, bias), wanted, strict=False)
        self.gradients = tuple(torch.zeros_like(t) if t is not None and needed else None for t, needed in inputs)

    def logits(self, part: slice) -> Tensor:
        """(n, V) outputs."""
        # autocast would cast the whole weight once more for every chunk
        with autocast(self._states.device, None):
            return torch.nn.functional.linear(self._states[part], self._weight, self._bias)

    def add(self, part: slice, gradient: Tensor) -> None:
        """(n, V) gradient of the outputs."""
        of_states, of_weight, of_bias = self.gradients
        if of_bias is not None:
            of_bias += gradient.sum(0).to(of_bias)
        gradient = gradient.to(self._weight.dtype)
        if of_states is not None:
            of_states[part] = (gradient @ self._weight).to(of_states)
        if of_weight is not None and of_weight.dtype == gradient.dtype:
            of_weight.addmm_(gradient.T, self._states[part])
        elif of_weight is not None:
            of_weight += (gradient.T @ self._states[part]).to(of_weight)


def over_logits(
    function: Callable[..., Tensor], states: Tensor, head: "tuple[Tensor, Tensor | None] | None", others: Sequence[Tensor],
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """(N, ...) results of a function of each position's logits, without more than a chunk of what it makes of them in memory.

    function: maps (n, V) logits, float32 or wider, and (n, ...) `others` to (n, ...); called again for the gradients. states: (N, D) inputs of
    the head, its weight (V, D) and bias; or (N, V) logits where the head is None. others: are not differentiated.
    """
    weight, bias = head or (None, None)
    result: Tensor = _OverLogits.apply(states, weight, bias, function, dtype or states.dtype, *others)
    return result


class _OverLogits(torch.autograd.Function):
    """Each chunk is computed again in the backward pass, and differentiated there."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor | None, bias: Tensor | None, function: Callable[..., Tensor], dtype: torch.dtype,
        *others: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(states, weight, bias, *others)
        ctx.function, ctx.dtype = function, dtype
        head = None if weight is None else _Head(states, weight, bias, dtype)
        results = []
        for part in chunks_of(len(states), (states.T if weight is None else weight).shape[0]):
            logits = states[part] if head is None else head.logits(part)
            results.append(function(widened(logits), *(column[part] for column in others)))
        return torch.cat(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, *others = ctx.saved_tensors
        head = None if weight is None else _Head(states, weight, bias, ctx.dtype, ctx.needs_input_grad)
        of_logits = torch.empty_like(states) if head is None else states
        for part in chunks_of(len(states), (states.T if weight is None else weight).shape[0]):
            logits = (states[part] if head is None else head.logits(part)).detach().requires_grad_()
            with torch.enable_grad():
                result = ctx.function(widened(logits), *(column[part] for column in others))
            (gradient,) = torch.autograd.grad(result, logits, grads[0][part])
            del result, logits
            if head is None:
                of_logits[part] = gradient
            else:
                head.add(part, gradient)
            del gradient
        ours = (of_logits, None, None) if head is None else head.gradients
        return *ours, None, None, *(None for _ in others)


def _total_and_picked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) log-sum-exp and (n,) logits of the targets; overwrites the logits."""
    picked = logits.gather(-1, target[:, None])[:, 0]
    return _log_sum_exp(logits, overwrite=True), picked


def _log_sum_exp(values: Tensor, *, overwrite: bool) -> Tensor:
    """(n,) torch's logsumexp, which cannot use the memory of its (n, V) values; nan where one is +inf, as in a softmax."""
    largest = values.amax(-1)
    centred = torch.sub(values, largest[:, None], out=values if overwrite else None)
    return centred.exp_().sum(-1).log_().add_(largest)


def _differentiated(centred: Tensor, target: Tensor, grad: Tensor) -> None:
    """(n, V) logits less their log-sum-exp -> the gradient in the logits, in place."""
    # by index tensors the host would wait for the device
    there = target[:, None]
    probability = centred.exp_().gather(-1, there)
    centred.scatter_(-1, there, probability - 1.0)
    centred *= grad[:, None]


def linear_saves_memory(positions: int, vocabulary: int) -> bool:
    """Whether `linear_nll` needs less than `token_nll`, which keeps all logits and their gradient: from two chunks on."""
    return positions * vocabulary > 2 * CHUNK


def chunks_of(positions: int, vocabulary: int, elements: int | None = None) -> Iterator[slice]:
    """Slices of positions that have at most `CHUNK` (`elements`) logits each, or one position's."""
    size = max(1, (elements or CHUNK) // vocabulary)
    return (slice(start, start + size) for start in range(0, positions, size))


def _parts(logits: Tensor) -> Iterator[slice]:
    positions, vocabulary = logits.shape
    return chunks_of(positions, vocabulary, ELEMENTS if logits.device.type == "cpu" else CHUNK)


def widened(values: Tensor) -> Tensor:
    """The values in float32 or wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def buckets(logits: Tensor, ids: Tensor | None = None) -> Tensor:
    """(N, V) log-probabilities of (N, V) logits, float32 or wider; given (N, K) ids, (N, K + 1): of these tokens and of all others."""
    wide = widened(logits)
    if ids is None or not ids.numel():
        return wide.log_softmax(-1)
    rest = wide.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    logits_of_buckets = torch.cat([wide.gather(-1, ids), rest], -1)
    return logits_of_buckets - wide.logsumexp(-1, keepdim=True)


def cross_entropy(logits: Tensor, target: Tensor, ids: Tensor | None = None) -> Tensor:
    """(N,) nats of (N, V) logits from (N, K) target probabilities of `buckets`; tokens of probability 0 count as e^-10000."""
    return -(target * buckets(logits, ids).clamp_min(-1e4)).sum(-1)
