"""Logit lens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._hidden_states import BATCH_ROWS, HIDDEN_OBSERVABLES, AnswerRecorder, batches, lens
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.models.batches import Encoded
from froc.models.compute import without_gradients
from froc.models.hooks import blocks


@dataclass(frozen=True)
class LogitLens(Attack):
    """Read the answer off every layer, through the model's own final norm and head (nostalgebraist 2020).

    Each query counts by its worst layer; the last layer is the model's own answer.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "read hidden layers through the model's own head"
    hides: ClassVar[frozenset[Observable]] = HIDDEN_OBSERVABLES

    def observations(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """One observation per block, from the first to the last."""
        layers = range(len(blocks(model)))
        recorder = [AnswerRecorder(rows) for _ in layers]
        with without_gradients():
            for batch in batches(model, rows, BATCH_ROWS // len(layers)):
                for layer_hits, logits in zip(recorder, lens(model, batch, layers), strict=True):
                    layer_hits.add(batch, logits)
        for layer_hits in recorder:
            yield layer_hits.observed(queries)
