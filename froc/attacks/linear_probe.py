"""Linear probe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._hidden_states import HIDDEN_OBSERVABLES, AnswerRecorder, batches, lens, sample
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Observable, Observation
from froc.models.batches import Encoded, Limits, encode
from froc.models.compute import without_gradients
from froc.models.forward import Pass
from froc.models.hooks import blocks


@dataclass(frozen=True)
class LinearProbe(Attack):
    """Read the answer off hidden layers through a linear map per layer (tuned lens, Belrose et al. 2303.08112).

    Logits of layer l are head(norm(A h + b)).

    layers: how many layers below the last, evenly spaced.
    rows: retain rows that the maps are fitted on.
    ridge: regularisation, relative to the mean square of the inputs.

    Our reading: A and b are fitted to the last block's output at answer positions of retain rows, by ridge regression
    in closed form; the paper fits them to the last layer's distribution by gradient descent.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "read hidden layers through linear maps learnt on other rows"
    hides: ClassVar[frozenset[Observable]] = HIDDEN_OBSERVABLES

    layers: int = hyperparameter(4, Range(1, 8))
    rows: int = hyperparameter(256, Range(32, 1024))
    ridge: float = hyperparameter(1e-2, Range(1e-4, 1.0, log=True))

    def observations(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """One observation per chosen layer, lowest first."""
        last = len(blocks(model)) - 1
        chosen = sorted({int(k) for k in np.linspace(0, last, max(1, self.layers), endpoint=False)})
        with without_gradients():
            known = encode(
                tokenizer, sample(material.retain, material.seed, self.rows), material.template, Limits.of(model)
            )
            maps = self._fitted(model, known, chosen, last)
            recorder = [AnswerRecorder(rows) for _ in chosen]
            for batch in batches(model, rows):
                logits_by_layer = lens(model, batch, chosen, lambda k, hidden: _through(maps[k], hidden))
                for layer_hits, logits in zip(recorder, logits_by_layer, strict=True):
                    layer_hits.add(batch, logits)
        for layer_hits in recorder:
            yield layer_hits.observed(queries)

    def _fitted(
        self, model: PreTrainedModel, rows: Sequence[Encoded], chosen: Sequence[int], last: int
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """layer -> (D, D) matrix and (D,) shift from its output to the last block's."""
        states: dict[int, list[Tensor]] = {k: [] for k in {*chosen, last}}
        for batch in batches(model, rows):
            layer_pass = Pass(model, batch, end=False, hidden_at=sorted(states), logits=False)
            for k, outputs in states.items():
                outputs.append(layer_pass.hidden[k][layer_pass.row, layer_pass.column].double())
        to = torch.cat(states[last])
        maps = {}
        for k in chosen:
            x = torch.cat(states[k])
            mean, goal = x.mean(0), to.mean(0)
            square = (x - mean).T @ (x - mean)
            square += self.ridge * square.diagonal().mean() * torch.eye(len(square), device=x.device, dtype=x.dtype)
            matrix = torch.linalg.solve(square, (x - mean).T @ (to - goal))
            maps[k] = matrix, goal - mean @ matrix
        return maps


def _through(affine: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
    matrix, shift = affine
    return hidden @ matrix.to(hidden.dtype) + shift.to(hidden.dtype)
