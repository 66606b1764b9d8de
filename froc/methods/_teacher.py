"""A teacher that knows the forget rows even better than the base model, and by how much its logits exceed the base model's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from froc import hashing
from froc.models.batches import Batch, Counts, on_device
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, TokenTerm, WeightedTerm

ROWS = 16
"""Rows per training step of the teacher, as in E2URec's code; four times as many per pass without gradients."""

PER_WIDTH = 5e-5 * 768
"""E2URec's learning rate of the teacher times the width of its T5-base; the rate is divided by the model's width."""
FOR_ADAPTERS = 10.0
"""Factor on the teacher's learning rate for adapters, as usual for adapter learning rates."""


def rate(context: MethodContext) -> float:
    """The teacher's usual peak learning rate."""
    return PER_WIDTH / context.width * (FOR_ADAPTERS if context.adapters else 1.0)


@dataclass(frozen=True, eq=False)
class Rise:
    """max(0, z_teacher - z_base) at the positions that predict forget answers, per bucket of the stored distributions.

    first: (rows,) int64, index of each row's first position.
    values: (positions, K) float32 or wider.
    """

    first: Tensor
    values: Tensor

    def of(self, row: Tensor, place: Tensor) -> Tensor:
        """(N, K) values for (N,) row indices and (N,) token positions within their answers."""
        return self.values[self.first[row] + place]


@dataclass(frozen=True)
class AgainstTeacher(TokenTerm):
    """A term that learns z_base - alpha max(0, z_teacher - z_base) at each position that predicts a forget answer or its end."""

    needs: ClassVar[tuple[str, ...]] = ("token_distribution",)
    alpha: float
    rise: Rise = field(compare=False, repr=False)

    def lessened(self, forward: Forward, reference: Mapping[str, Tensor]) -> Tensor:
        """(N, K) logits per bucket of the stored distributions."""
        rise = self.rise.of(reference["row"][forward.row], forward.place)
        return reference["token_distribution"] - self.alpha * rise


@dataclass(frozen=True)
class Further(Method):
    """The teacher's training: more descent on the forget rows."""

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase of descent."""
        return (Phase({"learn": WeightedTerm(NLL("forget"))}),)


@dataclass(frozen=True)
class Teacher(BaseModelQuery[Rise]):
    """By how much `epochs` more passes over the forget rows at peak learning rate `lr` raise the logits there.

    The teacher is trained in place of the base model, on the parameters or adapters that trials train, with the task's
    seed. A bucket's logit is the log-sum-exp of its tokens' logits.
    """

    lr: float
    epochs: int

    def compute(self, reference: BaseStatistics) -> Rise:
        """Two passes over the forget rows with training between them; the base model is restored bit by bit."""
        base, rows = reference.base, reference.pools.rows["forget"]
        reference.prepare("forget", ("token_distribution",), (), 4 * ROWS)
        count = torch.tensor([len(row.ids) - row.prompt for row in rows], device=base.device)
        first = count.cumsum(0) - count
        before = self._logits(reference, first, int(count.sum()))
        kept, active = base.trainable.snapshot(), base.trainable.active
        try:
            seed = hashing.derive_seed("teacher", reference.pools.seed)
            unlearn(base, Further(self.lr, self.epochs), reference, batch=ROWS, seed=seed)
            return Rise(first, (self._logits(reference, first, len(before)) - before).clamp_min_(0.0))
        finally:
            base.trainable.load(kept)
            base.trainable.activate(active)

    def placeholder(self, context: MethodContext) -> Rise:
        """No rows."""
        return Rise(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0))

    @torch.no_grad()
    def _logits(self, reference: BaseStatistics, first: Tensor, total: int) -> Tensor:
        """(positions, K) logits of the current model."""
        made: Tensor | None = None
        for index, batch in reference.batches("forget", 4 * ROWS):
            where, logits = self._bucketed(reference, index, batch)
            place = first[where[0]] + where[1]
            made = logits.new_empty(total, logits.shape[-1]) if made is None else made
            made[place] = logits
        assert made is not None
        return made

    def _bucketed(self, reference: BaseStatistics, index: Counts, batch: Batch) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Row and token position, (N,) each, and the (N, K) bucket logits of a batch of forget rows."""
        forward = Forward.of(reference.base.model, batch)
        ids = reference.lookup("forget", ("token_distribution",), (), index, forward)["buckets"]
        row = on_device(index, forward.row.device)[forward.row]
        return (row, forward.place), forward.over_logits(_bucket_logits, ids)


def _bucket_logits(logits: Tensor, ids: Tensor) -> Tensor:
    """(n, K) log-sum-exps of the logits in each bucket."""
    # keeps tokens of probability 0 finite
    return (buckets(logits, ids) + logits.logsumexp(-1, keepdim=True)).clamp_min(-1e4)
