"""Similarity of rows in the base model: unit vectors of their mean hidden states, whose inner products are cosines."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from froc.models.forward import Pass
from froc.models.hooks import blocks
from froc.models.likelihood import widened
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext, Role


@dataclass(frozen=True)
class Directions(BaseModelQuery[Mapping[Role, Tensor]]):
    """Unit vectors of the forget rows, the retain rows and the rows that earlier requests removed.

    A row's vector is its mean hidden state behind the last block, less the mean over all forget and retain rows: hidden
    states of language models share most of their direction, and only the remainder tells rows apart.
    """

    def compute(self, reference: BaseStatistics) -> Mapping[Role, Tensor]:
        """role -> (rows, D) float32 on the CPU; each row has length 1, or 0 where it equals the overall mean."""
        means = {role: _means(reference, role) for role in ("forget", "retain", "earlier")}
        centre = torch.cat([means["forget"], means["retain"]]).mean(0)
        return {role: normalize(mean - centre, dim=1) for role, mean in means.items()}

    def placeholder(self, context: MethodContext) -> Mapping[Role, Tensor]:
        """No rows."""
        return {role: torch.zeros(0, context.width) for role in ("forget", "retain", "earlier")}


@torch.no_grad()
def _means(reference: BaseStatistics, role: Role) -> Tensor:
    """(rows, D) mean hidden state of each row."""
    model = reference.base.model
    last = len(blocks(model)) - 1
    means = torch.zeros(len(reference.row_range(role)), int(model.config.get_text_config().hidden_size))
    for index, batch in reference.batches(role):
        hidden = widened(Pass(model, batch, hidden_at=(last,), logits=False).hidden[last])
        real = batch.attention[..., None]
        means[index] = ((hidden * real).sum(1) / real.sum(1)).float().cpu()
    return means
