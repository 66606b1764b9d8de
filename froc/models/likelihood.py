"""Negative log-likelihood of tokens with little memory: logits are the largest tensor of a step.

torch's cross-entropy keeps a float32 copy of half-precision logits and their log-softmax, and allocates two more
tensors of that size in the backward pass. This keeps the logits and allocates one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 2**21
"""Number of logits processed in float32 at a time."""


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
            total[part] = logits[part].to(wide).logsumexp(-1)
        # a logit of +inf gives nan probabilities, as in a softmax
        total.masked_fill_(total.isposinf(), torch.nan)
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
            gradient.exp_()[torch.arange(len(gradient)), target[part]] -= 1.0
            gradient *= grads[0][part, None]
            if not exact:
                grad[part] = gradient
        return grad, None


def _parts(logits: Tensor) -> Iterator[slice]:
    size = max(1, ELEMENTS // logits.shape[-1])
    return (slice(start, start + size) for start in range(0, len(logits), size))


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
