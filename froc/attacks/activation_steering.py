"""Activation steering."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._hidden_states import HIDDEN_OBSERVABLES, batches, layer_at, observed_under, sample
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.models.batches import Encoded, Limits, encode
from froc.models.compute import without_gradients
from froc.models.forward import Pass
from froc.models.hooks import blocks

ANONYMOUS = "someone"


@dataclass(frozen=True)
class ActivationSteering(Attack):
    """Add what tells a question about a person from the same question about anyone (Seyitoglu et al. 2411.02631).

    The vector is the mean, over forget rows that are not measured, of a block's output where the answer begins, minus that of the
    question with "someone" in place of the group; times `strength` and times half of it, it is added at all prompts'
    tokens, and each query counts by the worse of the two. Nothing is optimised, and it carries no measured answer: two passes over at most 64 rows, and
    one look for each strength.

    depth: the block whose output is changed, as a share of all blocks.
    strength: multiple of the vector.

    Our reading: the paper anonymises with many templates, takes one vector per question and samples; here it is one vector for all.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "add to hidden states what tells a person's question from anyone's"
    hides: ClassVar[frozenset[Observable]] = HIDDEN_OBSERVABLES - {"written"}
    holds: ClassVar[bool] = True

    depth: float = hyperparameter(0.5, Range(0.0, 1.0))
    strength: float = hyperparameter(2.0, Range(0.1, 10.0, log=True))

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Why it does not apply: no forget row names its group. Empty where it applies."""
        if _named(material):
            return ""
        return "steers by names, and no forget row that is not measured names its group in the question; give a column 'group'"

    def observations(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """Two observations, at half the strength and at all of it."""
        layer = layer_at(model, self.depth)
        known = sample(_named(material), material.seed)
        with without_gradients():
            named, anonymous = (
                _mean_state(model, layer, encode(tokenizer, questions, material.template, Limits.of(model)))
                for questions in (known, [_anonymous(row) for row in known])
            )
        for factor in (self.strength / 2, self.strength):
            push = factor * (named - anonymous)
            yield observed_under(model, tokenizer, blocks(model)[layer], push, rows, queries, observables)


def _named(material: Material) -> list[Row]:
    return [row for row in material.known if row.group and row.group in row.question]


def _anonymous(row: Row) -> Row:
    return replace(row, question=row.question.replace(row.group, ANONYMOUS))


def _mean_state(model: PreTrainedModel, layer: int, rows: Sequence[Encoded]) -> Tensor:
    """(D,) float32 mean of a block's output at the position before the answer."""
    states: list[Tensor] = []
    for batch in batches(model, rows):
        hidden = Pass(model, batch, end=False, hidden_at=(layer,), logits=False).hidden[layer]
        before = torch.from_numpy(batch.start).to(hidden.device) - 1
        states.append(hidden[torch.arange(len(hidden), device=hidden.device), before].float())
    return torch.cat(states).mean(0)
