"""Filtering, importance-aware choice and targeted layers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from froc.hyperparameters import Range, hyperparameter
from froc.methods._likeness import Directions
from froc.models.forward import Forward
from froc.models.hooks import blocks, blocks_path
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, BaseModelQuery, MethodContext
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import State, WeightedTerm, Weighter

if TYPE_CHECKING:
    from froc.training.base_statistics import BaseStatistics

BETA = 0.1
"""Inverse temperature of what is bounded, as NPO's default."""
ROWS = 64


@dataclass(frozen=True)
class Losses(BaseModelQuery[Tensor]):
    """What the base model loses on each forget row."""

    def compute(self, reference: "BaseStatistics") -> Tensor:
        """(forget rows,) negative log-likelihood in nats per token, on the CPU."""
        reference.prepare("forget", ("sum_nll",), (), ROWS)
        count = torch.tensor([len(row.ids) - row.prompt for row in reference.pools.rows["forget"]], dtype=torch.float32)
        return reference.sum_nll["forget"].cpu() / count

    def placeholder(self, context: MethodContext) -> Tensor:
        """Of no rows."""
        return torch.zeros(0)


@dataclass(frozen=True)
class BlockNorms(BaseModelQuery[tuple[str, tuple[float, ...]]]):
    """Name of the blocks' list, and how much of the forget rows' gradient falls on each block; taking it holds one gradient.

    trains: only parameters that this matches and the scope lets move count.
    """

    trains: str = ""

    def compute(self, reference: "BaseStatistics") -> tuple[str, tuple[float, ...]]:
        """Norms of the gradient of the mean NLL per token, not negative; 0 where nothing of a block counts."""
        base = reference.base
        path = blocks_path(base.model)
        homes = {base.trainable.base_name(name) for name in base.trainable.parameters()}
        named = {n.replace(".base_layer.", "."): p for n, p in base.model.named_parameters() if ".lora_" not in n}
        parameters = {
            n: p for n, p in named.items() if n in homes and n.startswith(f"{path}.") and re.search(self.trains, n)
        }
        squares = np.zeros(len(blocks(base.model)))
        for name, grad in reference.mean_gradient("forget", parameters).items():
            squares[int(name[len(path) + 1 :].partition(".")[0])] += float(grad.double().square().sum())
        return path, tuple(np.sqrt(squares).tolist())

    def placeholder(self, context: MethodContext) -> tuple[str, tuple[float, ...]]:
        """Of alike blocks."""
        return "layers", (1.0,) * context.layers


def kept(rows: Tensor, past: Tensor, losses: Tensor, similar: float, slight: float) -> tuple[int, ...]:
    """Which rows are no repetition: all but those alike to an earlier row that is kept, or to a past one, and of slight loss.

    rows: (n, D), past: (m, D) directions; alike: a cosine above `similar`. losses: (n,); slight: |L - L without the row|, L being
    the mean, of at most `slight` nats.
    """
    count = len(rows)
    changes = (losses - losses.mean()).abs() / max(1, count - 1)
    light = (changes <= slight).numpy()
    again = (rows @ past.T > similar).any(1).numpy()
    alike = (rows @ rows.T > similar).numpy()
    keep = np.zeros(count, dtype=bool)
    # whether a row stays depends on which ones before it did
    for i in range(count):
        keep[i] = not (light[i] and (again[i] or (alike[i, :i] & keep[:i]).any()))
    return tuple(np.flatnonzero(keep).tolist())


@dataclass(frozen=True)
class Gentle(Weighter):
    """2 p^beta / (p^beta + p_base^beta), by which NPO's gradient is an ascent's, on rows of at least some loss; 1 on the others.

    least: nats per token at the base model.
    """

    needs: ClassVar[tuple[str, ...]] = ("sum_nll",)
    least: float

    def weights(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) in [0, 2]; 1 at the base model."""
        before = reference["sum_nll"]
        bounded = 2.0 * torch.sigmoid(BETA * (before - forward.sum_nll.detach()))
        return torch.where(before / forward.count >= self.least, bounded, torch.ones_like(bounded))


@dataclass(frozen=True)
class FIT(Wrapper):
    """Forget a request among many: without its repetitions, gently where it matters, and in few layers.

    Filter: a forget row is left out where its cosine with an earlier row that is kept, or with one that an earlier request removed,
    is above `similar`, and leaving it out changes the request's mean loss by at most `slight` nats; steps are as many fewer.
    Choice: the share `gentle` of rows that the base model loses most on have their loss weighed by 2 p^0.1 / (p^0.1 + p_base^0.1), which
    makes an ascent NPO's; the others have it plain. Layers: of the blocks that the other method trains, the share `top` of all
    blocks, those with the largest gradients of the forget rows' NLL at the base model, and nothing outside of blocks; all: 1.

    Only parts of the paper could be read. Our reading: cosines of centred mean hidden states in the place of SimCSE's, row by row in
    the place of chunks; the loss as importance, NPO's weight as the gentle algorithm; gradient norms as attribution. similar of 1
    and gentle of 0 leave these two out. Parts that read no likelihood, or other answers, have no choice.
    """

    paper: ClassVar[str] = "2601.21682"
    family: ClassVar[str] = "wrapper"

    similar: float = hyperparameter(0.9, Range(0.6, 0.95))
    slight: float = hyperparameter(0.01, Range(1e-3, 0.5, log=True))
    gentle: float = hyperparameter(0.5, Range(0.0, 1.0))
    top: float = hyperparameter(0.5, Range(0.25, 1.0))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """Fewer rows, weights on them, fewer parameters."""
        losses = context.ask(Losses())
        only = self._rows(context, losses)
        least = _least(losses if only is None else losses[list(only)], self.gentle)
        parts = phase.parts if least is None else {k: _weighed(part, least) for k, part in phase.parts.items()}
        return replace(phase, parts=parts, trains=self._layers(phase.trains, context), only=only)

    def _rows(self, context: MethodContext, losses: Tensor) -> tuple[int, ...] | None:
        """The rows that are kept, None where all are."""
        if self.similar >= 1:
            return None
        directions = context.ask(Directions())
        rows = kept(directions["forget"], directions["earlier"], losses, self.similar, self.slight)
        return None if len(rows) == len(losses) else rows

    def _layers(self, trains: str, context: MethodContext) -> str:
        """Pattern of what moves: what the other method trains, in the chosen blocks."""
        count = max(1, round(self.top * context.layers))
        if count >= context.layers:
            return trains
        path, norms = context.ask(BlockNorms(trains))
        order = [int(k) for k in np.argsort(-np.array(norms), kind="stable") if norms[k] > 0][:count]
        return rf"^(?=.*(?:{trains})){re.escape(path)}\.({'|'.join(map(str, sorted(order)))})\."

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """Rows can be left out only where they are drawn from the task's."""
        written = any(phase.rollout for phase in inner().phases(PLACEHOLDER_CONTEXT))
        return "needs a method whose rows are the task's" if written else None


def _least(losses: Tensor, share: float) -> float | None:
    """The least loss of a share of rows, None where that is no row."""
    count = round(share * len(losses))
    return float(losses.sort(descending=True).values[count - 1]) if count else None


def _weighed(part: WeightedTerm, least: float) -> WeightedTerm:
    fits = part.term.role == "forget" and part.term.needs_logits
    return replace(part, weighters=(*part.weighters, Gentle(least))) if fits else part
