"""The base model's next-token distributions on training rows, whole or in buckets."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from froc.models.base import Base
from froc.models.batches import Counts, Encoded, on_device
from froc.models.forward import Forward, Pass
from froc.models.likelihood import buckets

EXACT = 2**24
"""Largest number of values (64 MiB) up to which a role's whole distributions are kept; beyond, only the likeliest tokens."""


LIKELIEST = 256
"""Tokens per position that are kept beyond `EXACT`; the rest of the vocabulary is one bucket."""


class TokenDistribution:
    """The base model's next-token distributions at the positions that predict answers.

    Whole where they are few; else over each position's target and likeliest tokens, with one bucket for all others. A
    KL divergence over buckets is a lower bound of the full one, and equal to it where the base model gives the other
    tokens probability 0.
    """

    def __init__(self, rows: Sequence[Encoded], base: Base) -> None:
        count = np.array([len(row.ids) - row.prompt for row in rows])
        self._first = on_device(np.cumsum(count) - count, base.device)
        head = base.model.get_output_embeddings()
        size = int(head.weight.shape[0] if head is not None else base.model.config.get_text_config().vocab_size)
        total = int(count.sum())
        self._few = None if total * size <= EXACT or size <= LIKELIEST else LIKELIEST
        width = size if self._few is None else self._few + 1
        self._logp = torch.zeros(total, width, device=base.device)
        self._ids = torch.zeros((total if self._few else 0), self._few or 0, dtype=torch.int32, device=base.device)

    def add(self, index: Counts, result: Pass) -> None:
        """Store the distributions of one pass."""
        every = Forward([(result, np.arange(len(index)), np.arange(len(index)))])
        where = self._first[on_device(index, self._first.device)[every.row]] + every.place
        for part, logits in result.logit_chunks():
            ids = None
            if self._few is not None:
                # the target comes first, whatever its probability
                ids = logits.scatter(-1, every.target[part, None], torch.inf).topk(self._few).indices
                self._ids[where[part]] = ids.int()
            self._logp[where[part]] = buckets(logits, ids).to(self._logp)

    def of(self, row: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) log-probabilities, and (N, K - 1) token ids, or (0,) where the buckets are the vocabulary."""
        where = self._first[row] + place
        return self._logp[where], self._ids[where].long() if self._few is not None else self._ids.new_empty(0)
