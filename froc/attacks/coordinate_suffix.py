"""Greedy coordinate gradient attack."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc import hashing
from froc.attacks._hidden_states import GRADIENT_ROWS, batches, nll, sample, slope
from froc.data.prompts import PromptFormat
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.measuring.model_observation import observe
from froc.models.batches import Batch, Encoded, Limits, encode
from froc.models.hooks import output_changed
from froc.models.process_group import whole

Tokens = tuple[int, ...]
MARKER = " |"
MAX_ROWS = 16


@dataclass(frozen=True)
class CoordinateSuffix(Attack):
    """Put optimised tokens after the question that bring answers back (GCG, Zou et al. 2307.15043).

    One suffix for all questions, optimised on forget rows that are not measured. It starts as exclamation marks. Each
    step takes the `top` tokens of every position by the gradient of the one-hot input, tries random swaps among them,
    and keeps the best if it is better. Tokens are inserted as ids, not as text that is tokenised again. If the suffix
    does not make known answers likelier, none is used.

    tokens: length of the suffix.
    steps: optimisation steps.
    top: candidate tokens per position.
    swaps: swaps tried per step.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "put optimised tokens after the question"
    hides: ClassVar[frozenset[Observable]] = frozenset({"continued"})
    holds: ClassVar[bool] = True

    tokens: int = hyperparameter(5, Range(1, 20))
    steps: int = hyperparameter(10, Range(1, 500))
    top: int = hyperparameter(64, Range(1, 256))
    swaps: int = hyperparameter(16, Range(1, 512))

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Why it does not apply: plain text has no question. Empty where it applies."""
        if all(row.question for row in (*rows, *material.known)):
            return ""
        return "follows the question, and rows of plain text have none; give rows with 'question' and 'answer'"

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
        """One observation, with the optimised suffix."""
        known_rows = sample(material.known, material.seed, MAX_ROWS)
        known = encode(tokenizer, known_rows, material.template, Limits.of(model))
        places = _ends(tokenizer, known_rows, known, material.template)
        suffix = self._optimised(model, tokenizer, known, places, material.seed)
        ends = _ends(tokenizer, queries, rows, material.template)
        longer = [_with(row, at, suffix) for row, at in zip(rows, ends, strict=True)]
        yield observe(model, tokenizer, longer, queries, observables)

    def _optimised(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, known: Sequence[Encoded], places: Sequence[int], seed: int
    ) -> Tokens:  # fmt: skip
        """The suffix; () if none is better."""

        def losses(tried: Sequence[Tokens]) -> list[float]:
            rows = [_with(row, at, suffix) for suffix in tried for row, at in zip(known, places, strict=True)]
            return [float(value) for value in nll(model, rows).reshape(len(tried), -1).sum(1)]

        draw = np.random.default_rng(hashing.derive_seed("suffix", seed))
        marks: Any = tokenizer(" !", add_special_tokens=False)["input_ids"]
        suffix = (int(marks[-1]),) * self.tokens
        none, least = losses([(), suffix])
        for _ in range(self.steps):
            top = self._top(model, tokenizer, known, places, suffix)
            at = draw.integers(len(suffix), size=self.swaps)
            tried = [(*suffix[:k], int(draw.choice(top[k])), *suffix[k + 1 :]) for k in at]
            value, best = min(zip(losses(tried), tried, strict=True))
            if value < least:
                least, suffix = value, best
        return suffix if least < none else ()

    def _top(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, known: Sequence[Encoded], places: Sequence[int],
        suffix: Tokens,
    ) -> list[list[int]]:  # fmt: skip
        """Per position of the suffix, the `top` tokens whose one-hot entries have the most negative gradients."""
        embeddings: Any = model.get_input_embeddings()
        rows = [_with(row, at, suffix) for row, at in zip(known, places, strict=True)]
        nothing = torch.zeros(len(suffix), embeddings.weight.shape[1], device=model.device, requires_grad=True)

        def place(batch: Batch) -> AbstractContextManager[None]:
            index = batch.index.cpu()
            row = torch.arange(len(index), device=batch.ids.device)[:, None]
            column = (torch.tensor(places)[index][:, None] + torch.arange(len(suffix))).to(batch.ids.device)

            def change(out: Tensor) -> Tensor:
                push = nothing.to(out.dtype).expand(len(index), -1, -1)
                return out.index_put((row, column), push, accumulate=True)

            return output_changed(embeddings, change)

        grad = slope(model, list(batches(model, rows, GRADIENT_ROWS)), place, nothing)[1]
        with torch.no_grad():
            gain = -(grad @ whole(embeddings.weight).float().T)[:, : len(tokenizer)]
            gain[:, [i for i in tokenizer.all_special_ids if i < gain.shape[1]]] = -torch.inf
            tokens: list[list[int]] = gain.topk(min(self.top, gain.shape[1])).indices.tolist()
            return tokens


def _with(row: Encoded, at: int, suffix: Tokens) -> Encoded:
    return Encoded((*row.ids[:at], *suffix, *row.ids[at:]), row.prompt + len(suffix), row.answer)


def _ends(
    tokenizer: PreTrainedTokenizerBase, queries: Sequence[Row], rows: Sequence[Encoded], template: PromptFormat
) -> list[int]:
    """Index in each prompt at which its question ends, before what the template puts after it."""
    marked = encode(tokenizer, [replace(row, question=row.question + MARKER) for row in queries], template)
    ends = []
    for plain_row, marked_row in zip(rows, marked, strict=True):
        tail = 0
        while (
            tail < plain_row.prompt - 1
            and plain_row.ids[plain_row.prompt - 1 - tail] == marked_row.ids[marked_row.prompt - 1 - tail]
        ):
            tail += 1
        ends.append(plain_row.prompt - tail)
    return ends
