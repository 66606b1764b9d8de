"""Unlearning by concept inference and poisoning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from froc import hashing
from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, hyperparameter
from froc.models.batches import Batch, Counts, Encoded
from froc.models.forward import Pass
from froc.models.hooks import output_changed
from froc.models.likelihood import widened
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext, RowSource
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, WeightedTerm

STEPS = 16
"""Points between the zero input and the answer at which gradients are taken."""


def integrated(model: PreTrainedModel, batch: Batch, steps: int = STEPS) -> Tensor:
    """(B, T) integrated gradients of log p(answer and end | prompt) by the answer's input tokens, nats; 0 elsewhere.

    For each embedding x: <x, mean over k of d log p / dx at x (k - 1/2) / steps> (Sundararajan et al. 1703.01365);
    prompt embeddings stay unchanged. A row's sum is log p minus its value with zero answer embeddings, up to the
    midpoint rule.
    """
    slopes = [_slope(model, batch, (k + 0.5) / steps) for k in range(steps)]
    return sum(((x * slope).sum(-1) for x, slope in slopes), torch.zeros((), device=batch.ids.device)) / steps


def _slope(model: PreTrainedModel, batch: Batch, share: float) -> tuple[Tensor, Tensor]:
    """(B, T, D) embeddings, zero outside the answer, and the gradient of log p with answer embeddings scaled by `share`."""
    inside = batch.measured[..., None]
    seen: list[Tensor] = []

    def shrunk(out: Tensor) -> Tensor:
        seen[:] = [out.detach(), torch.where(inside, out.detach() * share, out.detach()).requires_grad_()]
        return seen[1]

    with torch.enable_grad(), output_changed(model.get_input_embeddings(), shrunk):
        (grad,) = torch.autograd.grad(-Pass(model, batch).nll.sum(), seen[1:])
    return widened(seen[0]) * inside, widened(grad)


@dataclass(frozen=True)
class Attributions(BaseModelQuery[NDArray[np.float32]]):
    """The attribution of each answer token, as an input, to the likelihood of the forget row's answer."""

    def compute(self, reference: BaseStatistics) -> NDArray[np.float32]:
        """(forget rows, tokens of the longest answer), not negative; -1 beyond a row's answer."""
        rows = reference.pools.rows["forget"]
        attributions = np.full((len(rows), max(row.answer for row in rows)), -1.0, dtype=np.float32)
        for index, batch in reference.batches("forget"):
            each = integrated(reference.base.model, batch).abs().float().cpu().numpy()
            row, column = batch.predicting(end=False)
            attributions[index[row], column + 1 - batch.start[row]] = each[row, column + 1]
        return attributions

    def placeholder(self, context: MethodContext) -> NDArray[np.float32]:
        """One row with one token."""
        return np.zeros((1, 1), dtype=np.float32)


@dataclass(frozen=True)
class Poisoned(RowSource):
    """Forget rows whose answer tokens of largest attribution are replaced by tokens of other answers.

    kind: `random` draws each replacement anew; `targeted` replaces a token by the same other token everywhere.
    fraction: share of an answer's tokens that is replaced.
    """

    needs_questions: ClassVar[bool] = False
    requirement: ClassVar[str] = "base model's integrated gradients"
    kind: str
    fraction: float

    def rows(self, reference: BaseStatistics) -> Sequence[Encoded]:
        """The rows, drawn by the task's seed. InputError if all answers consist of the same tokens."""
        pools = reference.pools
        draw = np.random.default_rng(hashing.derive_seed("poison", self.kind, pools.seed))
        known = {token for role in ("forget", "retain") for row in pools.rows[role] for token in row.answer_ids}
        order = draw.permutation(sorted(known))
        chosen = largest(reference.ask(Attributions()), self.fraction)
        return [
            _replaced(row, np.flatnonzero(places), order, draw if self.kind == "random" else None)
            for row, places in zip(pools.rows["forget"], chosen, strict=True)
        ]


def largest(values: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """(n, A) mask of each row's largest values, ties by position: a fraction of its non-negative entries, at least one."""
    rank = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)
    count = np.maximum(1, np.rint(fraction * (values >= 0).sum(axis=1)))
    chosen: NDArray[np.bool_] = rank < count[:, None]
    return chosen


def _replaced(row: Encoded, places: Counts, order: Counts, draw: np.random.Generator | None) -> Encoded:
    """The row with other tokens at these positions of its answer: drawn, or (without `draw`) the successors in `order`."""
    tokens = np.array(row.answer_ids)
    others = order[~np.isin(order, tokens)]
    if not len(others):
        raise InputError("needs answers that differ in their tokens")
    if draw is None:
        tokens[places] = order[(np.argmax(order == tokens[places, None], axis=1) + 1) % len(order)]
    else:
        tokens[places] = draw.choice(others, len(places))
    return Encoded((*row.ids[: row.prompt], *tokens.tolist(), *row.end_ids), row.prompt, row.answer, row.blank)


@dataclass(frozen=True)
class Poison(Retaining):
    """Learn the forgotten answers with their most telling tokens replaced by wrong ones.

    Loss: NLL(poisoned) + retain_weight * NLL(retain). The replaced tokens are those with the largest |input x gradient|
    of log p(answer), integrated over 16 points; the replacements are tokens of the task's other answers.

    fraction: share of an answer's tokens that is replaced.
    kind: `random` draws a replacement per row and token, so that no single answer can be learnt; `targeted` replaces a
        token by the same other one in all rows, so that another fact is learnt.

    Our reading: the paper poisons classes of images and names language models without a recipe, so everything about
    tokens is ours. The model learns something wrong, not nothing.
    """

    paper: ClassVar[str] = "Chang et al. 2405.15662"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "gradient"

    fraction: float = hyperparameter(1.0, Choice((0.25, 0.5, 1.0)))
    kind: str = hyperparameter("random", Choice(("random", "targeted")))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase: likelihood of the poisoned and of the retain rows."""
        role = f"poisoned-{self.kind}-{self.fraction:g}"
        source = Poisoned(self.kind, self.fraction)
        return (Phase({"poisoned": WeightedTerm(NLL(role)), **self.retain_terms()}, sources={role: source}),)
