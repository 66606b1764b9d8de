"""Best-of-k sampling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc import hashing
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.measuring.model_observation import observe
from froc.models.batches import Encoded
from froc.models.generation import sample_answers


@dataclass(frozen=True)
class Sampling(Attack):
    """Ask k times at temperature 1; each query counts by its worst answer (leak@k, 2511.04934).

    Greedy writing shows one answer of many: what is unlikely once is likely to come in several tries. A query's loss is
    the largest of k drawn answers, so the mean over queries estimates its expectation over draws without bias; for 0-1
    losses that is the chance that any of k answers leaks. Only metrics of written answers are changed by it.

    k: answers drawn per query, each up to 1.5 times the true answer's length.

    Our reading (the paper was read second-hand): temperature 1 from the whole vocabulary, without a nucleus.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "ask several times and keep the best answer"
    shows_in: ClassVar[frozenset[Observable]] = frozenset({"written"})

    k: int = hyperparameter(8, Range(2, 64, log=True))

    def observations(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """k observations, which differ in what is written."""
        plain = observe(model, tokenizer, rows, queries, observables - {"written"})
        expected = tuple(row.answer for row in queries)
        texts = [self._answers(model, tokenizer, row, material.seed) for row in rows]
        for written in zip(*texts, strict=True):
            yield replace(plain, written=written, expected=expected)

    def _answers(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: Encoded, seed: int
    ) -> list[str]:
        """k drawn answers to one query; alone in its batch, so that no other query changes what is drawn."""
        most = np.full(self.k, row.answer + row.answer // 2 + 1, dtype=np.int64)
        own = hashing.derive_seed("sampling", seed, *row.ids[: row.prompt])
        drawn = sample_answers(model, [row] * self.k, most, own)
        return list(tokenizer.batch_decode([list(answer.answer_ids) for answer in drawn], skip_special_tokens=True))
