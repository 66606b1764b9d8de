"""Soft prompt attack."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc import hashing
from froc.attacks._hidden_states import GRADIENT_ROWS, batches, nll, sample, slope
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.measuring.model_observation import observe
from froc.models.batches import Encoded, Limits, encode
from froc.models.hooks import output_changed
from froc.models.process_group import called


@dataclass(frozen=True)
class SoftPrompt(Attack):
    """Put optimised embedding vectors before the prompt (embedding attack, Schwinn et al. 2402.09063).

    One prompt for all questions, started at embeddings of drawn tokens and optimised with Adam on forget rows that are
    not measured. If it does not make their answers likelier, none is used.

    tokens: number of vectors.
    steps: optimisation steps.
    lr: learning rate, relative to the embeddings' root mean square.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "put learnt embedding vectors before the prompt"
    hides: ClassVar[frozenset[Observable]] = frozenset({"written", "continued"})
    holds: ClassVar[bool] = True

    tokens: int = hyperparameter(4, Range(1, 20))
    steps: int = hyperparameter(20, Range(1, 200))
    lr: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))

    @property
    def adds(self) -> int:
        """Number of tokens that it adds to a row."""
        return self.tokens

    def observations(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """One observation, with the optimised prompt."""
        known = encode(tokenizer, sample(material.known, material.seed), material.template, Limits.of(model))
        soft = self._optimised(model, known, material.seed)
        if soft is None:
            yield observe(model, tokenizer, rows, queries, observables)
            return
        with _before(model, soft):
            yield observe(model, tokenizer, [self._longer(row) for row in rows], queries, observables)

    def _longer(self, row: Encoded) -> Encoded:
        """The row with placeholder tokens in front, whose embeddings are replaced."""
        return Encoded(((0,) * self.tokens + row.ids), self.tokens + row.prompt, row.answer)

    def _optimised(self, model: PreTrainedModel, rows: Sequence[Encoded], seed: int) -> Tensor | None:
        """(tokens, D) vectors; None if no prompt is better than none."""
        known = list(batches(model, [self._longer(row) for row in rows], GRADIENT_ROWS))
        least, best = float(nll(model, rows).sum()) / sum(row.answer for row in rows), None
        embeddings = model.get_input_embeddings()
        draw = torch.Generator().manual_seed(hashing.derive_seed("soft prompt", seed))
        first = torch.randint(model.config.get_text_config().vocab_size, (self.tokens,), generator=draw)
        with torch.no_grad():
            soft = called(embeddings, first.to(model.device)[None])[0].float()
        size = float(soft.square().mean().sqrt())
        soft.requires_grad_()
        optimiser = torch.optim.Adam([soft], lr=self.lr * size)
        for _ in range(self.steps + 1):
            value, soft.grad = slope(model, known, lambda _: _before(model, soft), soft)
            if value < least:
                least, best = value, soft.detach().clone()
            optimiser.step()
        return best


def _before(model: PreTrainedModel, soft: Tensor) -> AbstractContextManager[None]:
    """Context manager: the first embeddings of every row are `soft`."""

    def change(out: Tensor) -> Tensor:
        return torch.cat([soft.to(out.dtype).expand(len(out), -1, -1), out[:, len(soft) :]], 1)

    return output_changed(model.get_input_embeddings(), change)
