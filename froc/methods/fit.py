"""Filtering, importance-aware updates and targeted layers (FIT)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._likeness import Directions
from froc.models.forward import Forward
from froc.models.hooks import blocks, blocks_path
from froc.models.process_group import whole
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, BaseModelQuery, BaseStatistics, MethodContext
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import State, WeightedTerm, Weighter

BETA = 0.1
"""Inverse temperature of the bounded weights; NPO's default."""
ROWS = 64


@dataclass(frozen=True)
class Losses(BaseModelQuery[Tensor]):
    """The base model's loss on each forget row."""

    def compute(self, reference: BaseStatistics) -> Tensor:
        """(forget rows,) negative log-likelihood in nats per token, on the CPU."""
        reference.prepare("forget", ("sum_nll",), (), ROWS)
        count = torch.tensor([len(row.ids) - row.prompt for row in reference.pools.rows["forget"]], dtype=torch.float32)
        return reference.sum_nll["forget"].cpu() / count

    def placeholder(self, context: MethodContext) -> Tensor:
        """No rows."""
        return torch.zeros(0)


@dataclass(frozen=True)
class BlockNorms(BaseModelQuery[tuple[str, tuple[float, ...]]]):
    """Name of the list of blocks, and the norm of the forget rows' gradient in each block; computing it holds one gradient.

    trains: pattern; only trainable parameters that match it count.
    """

    trains: str = ""

    def compute(self, reference: BaseStatistics) -> tuple[str, tuple[float, ...]]:
        """Norms of the gradient of the mean NLL per token; 0 for a block without counted parameters."""
        base = reference.base
        path = blocks_path(base.model)
        homes = {base.trainable.base_name(name) for name in base.trainable.parameters()}
        named = {n.replace(".base_layer.", "."): p for n, p in base.model.named_parameters() if ".lora_" not in n}
        parameters = {
            n: p for n, p in named.items() if n in homes and n.startswith(f"{path}.") and re.search(self.trains, n)
        }
        squares = np.zeros(len(blocks(base.model)))
        for name, grad in reference.mean_gradient("forget", parameters).items():
            squares[int(name[len(path) + 1 :].partition(".")[0])] += float(whole(grad.double().square().sum()))
        return path, tuple(np.sqrt(squares).tolist())

    def placeholder(self, context: MethodContext) -> tuple[str, tuple[float, ...]]:
        """Equal norms."""
        return "layers", (1.0,) * context.layers


def kept(rows: Tensor, past: Tensor, losses: Tensor, similar: float, slight: float) -> tuple[int, ...]:
    """Indices of the rows that are not repetitions.

    A row is left out if it is similar to an earlier kept row or to a past one, and leaving it out changes the mean loss
    only slightly.

    rows: (n, D) unit vectors of the forget rows.
    past: (m, D) unit vectors of rows that earlier requests removed.
    losses: (n,) nats per token.
    similar: cosine above which two rows are similar.
    slight: largest change of the mean loss, in nats per token.
    """
    count = len(rows)
    changes = (losses - losses.mean()).abs() / max(1, count - 1)
    light = (changes <= slight).numpy()
    again = (rows @ past.T > similar).any(1).numpy()
    alike = (rows @ rows.T > similar).numpy()
    keep = np.zeros(count, dtype=bool)
    # sequential: a row is compared with the earlier rows that were kept
    for i in range(count):
        keep[i] = not (light[i] and (again[i] or (alike[i, :i] & keep[:i]).any()))
    return tuple(np.flatnonzero(keep).tolist())


@dataclass(frozen=True)
class Gentle(Weighter):
    """Weight 2 p^beta / (p^beta + p_base^beta), NPO's factor on the gradient, for rows of high base loss; 1 for the others.

    least: base loss from which a row is weighted, nats per token.
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
    """Forget one request among many: drop repeated rows, update important rows gently, train few layers.

    Filter: a forget row is left out where its cosine with an earlier kept row, or with a row that an earlier request
    removed, is above `similar`, and leaving it out changes the request's mean loss by at most `slight` nats; the number
    of steps falls accordingly. Importance: the share `gentle` of rows with the largest base loss has its loss weighted
    by 2 p^0.1 / (p^0.1 + p_base^0.1), which turns ascent into NPO. Layers: of the blocks that the inner method trains,
    those with the largest gradients of the forget rows' NLL at the base model.

    similar: cosine threshold; 1 keeps all rows.
    slight: nats per token.
    gentle: share of rows; 0 weights none.
    top: number of trained blocks as a share of all blocks; 1 trains what the inner method trains.

    Our reading (only parts of the paper could be read): cosines of centred mean hidden states instead of SimCSE's, rows
    instead of chunks, the loss as importance, NPO's weight as the gentle update, gradient norms as attribution. Terms
    that read no likelihood, or other answers than the forgotten ones, are not weighted.
    """

    paper: ClassVar[str] = "2601.21682"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "wrapper"

    similar: float = hyperparameter(0.9, Range(0.6, 0.95))
    slight: float = hyperparameter(0.01, Range(1e-3, 0.5, log=True))
    gentle: float = hyperparameter(0.5, Range(0.0, 1.0))
    top: float = hyperparameter(0.5, Range(0.25, 1.0))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """Fewer rows, weights on them, fewer trained parameters."""
        losses = context.ask(Losses())
        only = self._rows(context, losses)
        least = _least(losses if only is None else losses[list(only)], self.gentle)
        parts = phase.parts if least is None else {k: _weighed(part, least) for k, part in phase.parts.items()}
        return replace(phase, parts=parts, trains=self._layers(phase.trains, context), only=only)

    def _rows(self, context: MethodContext, losses: Tensor) -> tuple[int, ...] | None:
        """Indices of the kept rows; None if all are kept."""
        if self.similar >= 1:
            return None
        directions = context.ask(Directions())
        rows = kept(directions["forget"], directions["earlier"], losses, self.similar, self.slight)
        return None if len(rows) == len(losses) else rows

    def _layers(self, trains: str, context: MethodContext) -> str:
        """Pattern of the trained parameters: those of the inner method within the chosen blocks."""
        count = max(1, round(self.top * context.layers))
        if count >= context.layers:
            return trains
        path, norms = context.ask(BlockNorms(trains))
        order = [int(k) for k in np.argsort(-np.array(norms), kind="stable") if norms[k] > 0][:count]
        return rf"^(?=.*(?:{trains})){re.escape(path)}\.({'|'.join(map(str, sorted(order)))})\."

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """Rows can be left out only where they come from the task, not from a rollout."""
        written = any(phase.rollout for phase in inner().phases(PLACEHOLDER_CONTEXT))
        return "needs a method whose rows are the task's" if written else None


def _least(losses: Tensor, share: float) -> float | None:
    """Smallest loss among the `share` of rows with the largest losses; None if that is no row."""
    count = round(share * len(losses))
    return float(losses.sort(descending=True).values[count - 1]) if count else None


def _weighed(part: WeightedTerm, least: float) -> WeightedTerm:
    fits = part.term.role == "forget" and part.term.needs_logits
    return replace(part, weighters=(*part.weighters, Gentle(least))) if fits else part
