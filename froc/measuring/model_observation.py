"""A model and encoded queries -> `Observation`. One teacher-forced pass gives answer tokens; the rest only where it is read.

Shapes: n queries, A tokens of the longest answer, T tokens of the longest row, L blocks, D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.data.prompts import apart
from froc.data.rows import Row
from froc.measuring.metric import Observable, Observation
from froc.models.batches import Encoded, Limits, Stack, chunks, on_device
from froc.models.block_entry import Reuse, keep, reuse
from froc.models.compute import without_gradients
from froc.models.forward import Pass
from froc.models.generation import greedy_answers
from froc.models.hooks import blocks
from froc.models.likelihood import token_nll
from froc.models.memory import measured_in_rows
from froc.models.nf4 import unpacked
from froc.models.process_group import differentiable, gradients, whole

BATCH_ROWS = 256
VERBATIM = 128
"""Largest number of tokens by which a text is continued (MUSE 2407.06460, C1)."""


def observe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    rows: Sequence[Encoded],
    queries: Sequence[Row] = (),
    observables: frozenset[Observable] = frozenset(),
    size: int = BATCH_ROWS,
) -> Observation:
    """The behaviour of a model on encoded queries.

    queries: the rows that were encoded.
    observables: what to observe in addition to answer tokens.
    size: rows per pass.

    NaN logits give NaN log-probabilities. Where memory is too little, fewer rows are observed at a time.
    """

    def tokens(fitting: int) -> Observation:
        return _tokens(model, rows, fitting, "token_moments" in observables, "hidden" in observables)

    observation = replace(measured_in_rows(model, size, tokens), rows=tuple(queries))
    if "others" in observables:
        assert tokenizer is not None
        others = partial(_others, model, tokenizer, rows, queries)
        observation = replace(observation, **measured_in_rows(model, size, others))
    if "written" in observables:
        assert tokenizer is not None
        written = tuple(generate(model, tokenizer, rows))
        observation = replace(observation, written=written, expected=tuple(row.answer for row in queries))
    if "continued" in observables:
        assert tokenizer is not None
        continued, rest = _continued(model, tokenizer, rows)
        observation = replace(observation, continued=continued, rest=rest)
    if "gradient" in observables:
        observation = replace(observation, gradient=_gradients(model, rows))
    return observation


@without_gradients()
def _tokens(
    model: PreTrainedModel, rows: Sequence[Encoded], size: int, token_moments: bool, hidden: bool
) -> Observation:
    """One teacher-forced pass over rows; shared by all metrics that read it."""
    length = np.array([row.answer for row in rows], dtype=np.int64)
    hit = np.zeros((len(rows), int(length.max())), dtype=bool)
    logp = np.zeros(hit.shape, dtype=np.float32)
    moments = np.zeros((*hit.shape, 2), dtype=np.float32) if token_moments else None
    depth, width = len(blocks(model)), int(model.config.get_text_config().hidden_size)
    states = np.zeros((len(rows), depth, width), dtype=np.float32) if hidden else None
    stack = Stack(rows, next(model.parameters()).device)
    for index in chunks(stack.length, 1024, size):
        batch = stack.batch(index)
        known = Reuse() if hidden else reuse(model, batch.ids)
        layers = range(depth) if hidden else () if known.block is None else (known.block - 1,)
        observation = Pass(model, batch, end=False, hidden_at=layers, entry=known.entry)
        if known.block is not None:
            keep(model, known, observation.hidden[known.block - 1])
        right, nll, of_tokens = _by_token(observation, token_moments)
        place = index[observation.row], observation.column + 1 - stack.start[index][observation.row]
        hit[place] = right.cpu().numpy()
        logp[place] = -nll.cpu().numpy()
        if moments is not None:
            moments[place] = of_tokens.cpu().numpy()
        if states is not None:
            last = on_device(batch.start - 1, batch.ids.device)
            row_index = torch.arange(len(index), device=batch.ids.device)
            states[index] = (
                torch.stack([observation.hidden[k][row_index, last].float() for k in range(depth)], 1).cpu().numpy()
            )
    return Observation(hit, logp, length, token_moments=moments, hidden=states, device=str(stack.ids.device))


def _by_token(observation: Pass, token_moments: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N,) whether each target is the likeliest token, (N,) its negative log-likelihood, and (N, 2) moments where wanted."""
    right, nll, moments = [], [], []
    for part, logits in observation.logit_chunks():
        target = observation.target[part]
        nll.append(token_nll(logits, target))
        # NaN if any logit is NaN; a logit of -inf only affects its own token
        right.append((logits.argmax(-1) == target) & torch.isfinite(nll[-1]))
        if token_moments:
            moments.append(_token_moments(logits))
    return torch.cat(right), torch.cat(nll), torch.cat(moments) if token_moments else nll[0]


def _token_moments(logits: torch.Tensor) -> torch.Tensor:
    """(N, 2) mean and standard deviation of log p(v) for v drawn from p, for (N, V) logits."""
    # keeps tokens of probability 0 finite
    log = torch.log_softmax(logits, -1).clamp_min(-1e4)
    p = log.exp()
    mean = (p * log).sum(-1)
    variance = (p * log.square()).sum(-1) - mean.square()
    return torch.stack([mean, variance.clamp_min(0.0).sqrt()], -1)


def _others(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    queries: Sequence[Row],
    size: int,
) -> dict[str, Any]:
    """Log-probabilities of each row's other answers, and of its restated one, after the same prompt."""
    n_others = max((len(row.others) for row in queries), default=0)
    log_p = np.full((len(rows), n_others + 1, 2), np.nan, dtype=np.float32)
    texts = [
        (i, k, text) for i, row in enumerate(queries) for k, text in enumerate((row.restated, *row.others)) if text
    ]
    if texts:
        answer_ids = apart(tokenizer, [_after(rows[i], tokenizer, text) for i, _, text in texts])
        encoded = [
            Encoded((*rows[i].ids[: rows[i].prompt], *ids), rows[i].prompt, len(ids))
            for (i, _, _), ids in zip(texts, answer_ids, strict=True)
        ]
        limits = Limits.of(model)
        for (i, _, _), row in zip(texts, encoded, strict=True):
            limits.refuse(row.ids, queries[i].at("queries", i + 1))
        observation = _tokens(model, encoded, size, token_moments=False, hidden=False)
        total = observation.logp.sum(axis=1, dtype=np.float64)
        for (i, k, _), whole, count in zip(texts, total, observation.length, strict=True):
            log_p[i, k] = whole, whole / count
    return {"restated": log_p[:, 0], "others": log_p[:, 1:]}


def _after(row: Encoded, tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text as an answer after its prompt: with a leading blank where the answer has one."""
    # some tokenizers leave out the blank of a text's first token
    lead, with_next = (
        str(tokenizer.decode(list(row.ids[max(0, row.prompt - 1) : stop]))) for stop in (row.prompt, row.prompt + 1)
    )
    return f" {text.strip()}" if with_next[len(lead) :].startswith(" ") else text.strip()


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded], size: int = BATCH_ROWS
) -> list[str]:
    """Greedy continuations of the prompts, as `froc.models.generation.greedy_answers` writes them."""
    answers = measured_in_rows(model, size, partial(greedy_answers, model, tokenizer, rows))
    token_ids = [list(ids) for ids in answers]
    return list(tokenizer.batch_decode(token_ids, skip_special_tokens=True)) if token_ids else []


def _continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Greedy continuations of each whole text's first half, and its true second half, at most `VERBATIM` tokens."""
    cut = []
    for row in rows:
        whole = row.ids[: row.prompt + row.answer]
        begin = max(1, len(whole) // 2)
        rest = whole[begin : begin + VERBATIM]
        cut.append(Encoded((*whole[:begin], *rest), begin, len(rest)))
    expected = tokenizer.batch_decode([list(row.ids[row.prompt :]) for row in cut], skip_special_tokens=True)
    written = generate(model, tokenizer, cut)
    # a continuation is compared with as many tokens as the text has left
    again: Any = tokenizer(written, add_special_tokens=False)["input_ids"] if written else []
    short = tokenizer.batch_decode([ids[: row.answer] for ids, row in zip(again, cut, strict=True)])
    return tuple(short), tuple(expected)


def _gradients(model: PreTrainedModel, rows: Sequence[Encoded]) -> NDArray[np.float64]:
    """(n,) Euclidean norm over all parameters of the gradient of each row's mean loss; one backward pass a row."""
    with unpacked(model):
        return _gradient_norms(model, rows)


def _gradient_norms(model: PreTrainedModel, rows: Sequence[Encoded]) -> NDArray[np.float64]:
    trained = [p for p in model.parameters() if p.dtype.is_floating_point]
    stack = Stack(rows, next(model.parameters()).device)
    norms = np.zeros(len(rows))
    with differentiable(model, trained):
        for i in range(len(rows)):
            of_row = gradients(Pass(model, stack.batch([i]), end=False).nll.mean(), trained)
            squares = [whole(grad.double().square().sum()) for grad in of_row if grad is not None]
            norms[i] = float(torch.stack(squares).sum().sqrt())
    return norms
