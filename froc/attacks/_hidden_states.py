"""Common parts of attacks on hidden states: perturbing module outputs, losses of known rows, recording answers.

Gradients are computed for the optimised tensor only; the parameters' own are not touched.

Shapes: B rows, T tokens, N positions that predict an answer, D width, V vocabulary, L layers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc import hashing
from froc.data.task import Row
from froc.measuring.metric import Observable, Observation
from froc.measuring.model_observation import generate
from froc.models.batches import Batch, Encoded, Stack, chunks
from froc.models.compute import without_gradients
from froc.models.forward import Pass
from froc.models.hooks import blocks, output_changed
from froc.models.likelihood import chunks_of

MAX_ROWS = 64
"""Largest number of rows that something is optimised on."""
BATCH_ROWS = 256
GRADIENT_ROWS = 32
"""Rows per pass with gradients."""
HIDDEN_OBSERVABLES: frozenset[Observable] = frozenset(
    {"written", "continued", "others", "token_moments", "hidden", "gradient"}
)
"""All observables but answer tokens."""


def sample(rows: Sequence[Row], seed: int, most: int = MAX_ROWS) -> list[Row]:
    """At most `most` rows, drawn without replacement, in their original order."""
    draw = np.random.default_rng(hashing.derive_seed("sample", seed))
    return [rows[i] for i in sorted(draw.permutation(len(rows))[:most])]


class AnswerRecorder:
    """Hits and log-probabilities of answers, collected batch by batch, as `froc.measuring.model_observation` does for an unattacked model."""

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self._length = np.array([row.answer for row in rows], dtype=np.int64)
        self._hit = np.zeros((len(rows), int(self._length.max())), dtype=bool)
        self._logp = np.zeros(self._hit.shape, dtype=np.float32)

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Record (N, V) logits at the positions that predict a batch's answers."""
        self.add_chunks(batch, ((part, logits[part].float()) for part in chunks_of(*logits.shape)))

    def add_chunks(self, batch: Batch, logits: Iterable[tuple[slice, Tensor]]) -> None:
        """The same of float32 logits that come with the positions that they are of."""
        row, column = batch.predicting(end=False)
        target = batch.ids[
            torch.from_numpy(row).to(batch.ids.device), torch.from_numpy(column + 1).to(batch.ids.device)
        ]
        nlls, hits = [], []
        for part, chunk in logits:
            nlls.append(torch.nn.functional.cross_entropy(chunk, target[part], reduction="none"))
            hits.append((chunk.argmax(-1) == target[part]) & torch.isfinite(nlls[-1]))
        place = batch.index.cpu().numpy()[row], column + 1 - batch.start[row]
        self._hit[place] = torch.cat(hits).cpu().numpy()
        self._logp[place] = -torch.cat(nlls).cpu().numpy()

    def observed(self, queries: Sequence[Row]) -> Observation:
        """The observation that metrics read."""
        return Observation(self._hit, self._logp, self._length, rows=tuple(queries))


def batches(model: PreTrainedModel, rows: Sequence[Encoded], size: int = BATCH_ROWS) -> Iterator[Batch]:
    """All rows in batches of similar length; `Batch.index` says which rows."""
    stack = Stack(rows, model.device)
    for index in chunks(stack.length, 1024, max(1, size)):
        yield stack.batch(index)


def prompt_tokens(batch: Batch) -> Tensor:
    """(B, T) bool, the prompts' tokens."""
    start = torch.from_numpy(batch.start).to(batch.ids.device)
    return torch.arange(batch.ids.shape[1], device=batch.ids.device) < start[:, None]


def at_prompt(batch: Batch, push: Tensor) -> Callable[[Tensor], Tensor]:
    """(B, T, D) hidden states -> the same with a (D,) vector added at the prompts' tokens."""
    real = prompt_tokens(batch)[..., None]
    return lambda out: out + (real * push).to(out.dtype)


def layer_at(model: PreTrainedModel, depth: float) -> int:
    """Index of the block at a share of the depth: 0 for the first, 1 for the last."""
    last = len(blocks(model)) - 1
    return min(max(round(depth * last), 0), last)


def observed_under(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    block: torch.nn.Module,
    push: Tensor,
    rows: Sequence[Encoded],
    queries: Sequence[Row],
    observables: frozenset[Observable],
) -> Observation:
    """What metrics read where a (D,) vector is added to a block's output at the prompts' tokens; answers are written if asked for."""
    recorder = AnswerRecorder(rows)
    with without_gradients():
        for batch in batches(model, rows):
            with output_changed(block, at_prompt(batch, push)):
                result = Pass(model, batch, end=False)
            recorder.add_chunks(batch, result.logit_chunks())
    observation = recorder.observed(queries)
    if "written" not in observables:
        return observation
    # in generation, the first pass is over the prompt and the others over one token each
    with output_changed(block, lambda out: out + push.to(out.dtype) if out.shape[1] > 1 else out):
        written = tuple(generate(model, tokenizer, rows))
    return replace(observation, written=written, expected=tuple(row.answer for row in queries))


Place = Callable[[Batch], AbstractContextManager[None]]
"""Makes the context in which a batch's pass is perturbed."""


def nll(model: PreTrainedModel, rows: Sequence[Encoded]) -> NDArray[np.float64]:
    """(n,) negative log-likelihood of each row's answer, nats."""
    values = np.zeros(len(rows))
    with torch.no_grad():
        for batch in batches(model, rows):
            values[batch.index.cpu().numpy()] = Pass(model, batch, end=False).sum_nll.double().cpu().numpy()
    return values


def slope(model: PreTrainedModel, known: Sequence[Batch], place: Place, pushing: Tensor) -> tuple[float, Tensor]:
    """NLL per answer token (nats) under a perturbation, and its gradient with respect to that perturbation.

    known: batches of rows.
    place: makes the context that applies the perturbation to a batch.
    pushing: the perturbation.
    """
    count = sum(int((batch.stop - batch.start).sum()) for batch in known)
    total, grad = 0.0, torch.zeros_like(pushing)
    for batch in known:
        with place(batch), torch.enable_grad():
            part = Pass(model, batch, end=False).nll.sum() / count
            grad += torch.autograd.grad(part, [pushing])[0]
        total += float(part.detach())
    return total, grad


def lens(
    model: PreTrainedModel, batch: Batch, layers: Sequence[int], through: Callable[[int, Tensor], Tensor] | None = None
) -> list[Tensor]:
    """(N, V) logits of each layer's hidden states at the positions that predict answers, one tensor per layer.

    One pass: the layers' outputs replace the last block's, side by side, so that final norm, head and capping apply to
    each.

    through: maps a layer's index and (B, T, D) output to what goes on.
    """
    states: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[Tensor], Tensor]:
        def kept(output: Tensor) -> Tensor:
            states[layer] = output
            return output

        return kept

    def side_by_side(_: Tensor) -> Tensor:
        return torch.cat([through(k, states[k]) if through else states[k] for k in layers])

    row, column = batch.predicting(end=False)
    many = torch.from_numpy(np.concatenate([row + k * len(batch.ids) for k in range(len(layers))]))
    where = many.to(batch.ids.device), torch.from_numpy(np.tile(column, len(layers))).to(batch.ids.device)

    def at_answers(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][where], *args[1:]) if args[0].dim() == 3 else args

    with ExitStack() as hooks:
        for layer in {*layers, len(blocks(model)) - 1}:
            hooks.enter_context(output_changed(blocks(model)[layer], keep(layer)))
        hooks.enter_context(output_changed(blocks(model)[-1], side_by_side))
        head: Any = model.get_output_embeddings()
        if head is not None:
            hooks.callback(head.register_forward_pre_hook(at_answers).remove)
        logits: Tensor = model(input_ids=batch.ids, use_cache=False).logits
    logits = logits if logits.dim() == 2 else logits[where]
    return list(logits.split(len(row)))
