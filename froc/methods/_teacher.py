"""A teacher that knows the forget rows still better: what its logits have above the base model's. A file of a method defines one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from froc import hashing
from froc.models.batches import Batch, Counts
from froc.models.forward import Forward
from froc.models.likelihood import buckets, widened
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm

ROWS = 16
"""Rows of a step of the teacher's, as E2URec's code has; four times as many are passed where nothing is trained."""


@dataclass(frozen=True, eq=False)
class Rise:
    """max(0, z_teacher - z_base) of logits where the forget rows' answers are predicted, of the buckets that the reference keeps.

    first: (rows,) int64, where a row's positions begin. values: (positions, K) float32 or wider.
    """

    first: Tensor
    values: Tensor

    def of(self, row: Tensor, place: Tensor) -> Tensor:
        """(N, K) for (N,) rows of the pool and (N,) tokens of their answers."""
        return self.values[self.first[row] + place]


@dataclass(frozen=True)
class Further(Method):
    """The base model trained on the forget rows once more."""

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase of descent."""
        return (Phase({"learn": WeightedTerm(NLL("forget"))}),)


@dataclass(frozen=True)
class Teacher(BaseModelQuery[Rise]):
    """What `epochs` more passes over the forget rows at peak rate `lr` add to the logits there.

    The teacher is trained in place of the base, on the parameters or adapters that trials train, by the loop and the seed of the task;
    a bucket's logit is the log-sum-exp of its tokens'.
    """

    lr: float
    epochs: int

    def compute(self, reference: BaseStatistics) -> Rise:
        """Two passes over the forget rows, training between them; the base is put back bit by bit."""
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
        """Of no rows."""
        return Rise(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0))

    @torch.no_grad()
    def _logits(self, reference: BaseStatistics, first: Tensor, total: int) -> Tensor:
        """(positions, K) as the model stands."""
        made: Tensor | None = None
        for index, batch in reference.batches("forget", 4 * ROWS):
            where, logits = self._bucketed(reference, index, batch)
            place = first[where[0]] + where[1]
            made = logits.new_empty(total, logits.shape[-1]) if made is None else made
            made[place] = logits
        assert made is not None
        return made

    def _bucketed(self, reference: BaseStatistics, index: Counts, batch: Batch) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Row and place, (N,) each, and (N, K) logits of some forget rows."""
        forward = Forward.of(reference.base.model, batch)
        ids = reference.lookup("forget", ("token_distribution",), (), index, forward)["buckets"]
        row = torch.from_numpy(index).to(forward.row.device)[forward.row]
        total = widened(forward.logits).logsumexp(-1, keepdim=True)
        # a token that is ruled out stays so
        return (row, forward.place), (buckets(forward.logits, ids) + total).clamp_min(-1e4)
