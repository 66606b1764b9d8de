"""Run a model over queries -> per-query losses in thousandths. The last place that sees a tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.batches import Encoded, Stack, by_length, chunks, encode
from froc.data import UTILITY, Query
from froc.forward import Pass
from froc.losses import SCALE, quantise
from froc.metrics import Metric, Observed
from froc.models import Base

BATCH = 256
CAP = 100.0
"""Nats per answer token that one query adds to an average at most; a guess among a million tokens has 14."""


@dataclass(frozen=True)
class Average:
    """Means over queries, each counting the same: no risk and no bound, but what FROC's score is made of.

    loss: negative log-likelihood of the answer, nats per token, in [0, CAP]. accuracy: share of answer tokens that greedy
    teacher forcing gets right, in [0, 1]. Four digits each: an exact mean would identify the texts behind it.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """What one look at a probe's queries gave. losses: (n,) int16 thousandths."""

    losses: NDArray[np.int16]
    average: Average


@dataclass(frozen=True)
class Probe:
    """The queries of one risk, encoded once.

    base: (n,) the base model's scores, against which utility drops are taken; None for forgetting.
    start: the base model's averages, where it was measured.
    """

    risk: str
    metric: Metric
    queries: tuple[Query, ...]
    rows: tuple[Encoded, ...]
    base: NDArray[np.float64] | None = None
    start: Average | None = None


def probes(
    base: Base, queries: Mapping[str, tuple[Query, ...]], metrics: Mapping[str, Metric], template: str
) -> list[Probe]:
    """Encode the queries of every risk and measure the base model where a drop is asked for; restores the base."""
    base.restore()
    made = []
    for risk, some in queries.items():
        rows = tuple(encode(base.tokenizer, [query.row for query in some], template))
        probe = Probe(risk, metrics[risk], some, rows)
        if risk == UTILITY:
            seen = look(base, probe)
            probe = Probe(risk, metrics[risk], some, rows, probe.metric.scores(seen), averaged(seen, risk))
        made.append(probe)
    return made


def look(base: Base, probe: Probe, some: Sequence[int] | None = None) -> Observed:
    """What the model as it stands does with all queries, or those at `some`: all that metrics and averages need."""
    index = range(len(probe.rows)) if some is None else some
    rows = [probe.rows[i] for i in index]
    seen = observe(base.model, rows)
    if probe.metric.reads != "generated":
        return seen
    written = tuple(generate(base.model, base.tokenizer, rows))
    return Observed(seen.hit, seen.logp, seen.length, written, tuple(probe.queries[i].row.answer for i in index))


def scores(base: Base, probe: Probe, some: Sequence[int] | None = None) -> NDArray[np.float64]:
    """(n,) scores of the model as it stands, on all queries or those at `some`; never NaN."""
    return probe.metric.scores(look(base, probe, some))


def losses(base: Base, probe: Probe, some: Sequence[int] | None = None) -> NDArray[np.int16]:
    """(n,) whole thousandths, rounded up. A query that could not be measured counts as the worst loss."""
    return _losses(probe, scores(base, probe, some), some)


def judged(probe: Probe, seen: Observed, some: Sequence[int] | None = None) -> Measured:
    """Losses and averages of what was seen of all queries, or of those at `some`."""
    return Measured(_losses(probe, probe.metric.scores(seen), some), averaged(seen, probe.risk))


def averaged(seen: Observed, risk: str) -> Average:
    """Mean loss and accuracy. A query that could not be measured counts as the worst: not forgotten, or all spoiled."""
    loss = -(seen.logp.astype(np.float64).sum(axis=1) / seen.length)
    accuracy = seen.hit.sum(axis=1) / seen.length
    failed = np.isnan(loss)
    worst, wrong = (CAP, 0.0) if risk == UTILITY else (0.0, 1.0)
    loss = np.where(failed, worst, loss.clip(0.0, CAP))
    accuracy = np.where(failed, wrong, accuracy)
    return Average(float(f"{abs(loss.mean()):.4g}"), round(float(accuracy.mean()), 4))


def _losses(probe: Probe, found: NDArray[np.float64], some: Sequence[int] | None) -> NDArray[np.int16]:
    if probe.base is not None:
        found = np.clip((probe.base if some is None else probe.base[list(some)]) - found, 0.0, 1.0)
    failed = ~np.isfinite(found)
    whole = quantise(np.where(failed, 1.0, found))
    return np.where(failed, SCALE, whole).astype(np.int16)


@torch.inference_mode()
def observe(model: PreTrainedModel, rows: Sequence[Encoded], size: int = BATCH) -> Observed:
    """One teacher-forced pass over rows; shared by all metrics that read it. NaN logits give NaN log-probabilities."""
    length = np.array([row.answer for row in rows], dtype=np.int64)
    hit = np.zeros((len(rows), int(length.max())), dtype=bool)
    logp = np.zeros(hit.shape, dtype=np.float32)
    stack = Stack(rows, next(model.parameters()).device)
    for index in chunks(stack.length, 1024, size):
        seen = Pass(model, stack.batch(index), end=False)
        assert seen.logits is not None
        logits = seen.logits.float()
        right = (logits.argmax(-1) == seen.target) & torch.isfinite(logits).all(-1)
        place = index[seen.row], seen.column + 1 - stack.start[index][seen.row]
        hit[place] = right.cpu().numpy()
        logp[place] = -seen.nll.cpu().numpy()
    return Observed(hit, logp, length)


@torch.inference_mode()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded], size: int = BATCH
) -> list[str]:
    """Greedy continuations of the prompts, as long as the longest answer of their batch and half as much again."""
    written = [""] * len(rows)
    device = next(model.parameters()).device
    end = tokenizer.eos_token_id
    pad = end if isinstance(end, int) else 0
    for index in by_length(rows, size):
        prompts = [rows[i].ids[: rows[i].prompt] for i in index]
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        new = max(rows[i].answer for i in index)
        out = model.generate(  # type: ignore[operator]  # generation comes by a mixin that the stubs do not know
            input_ids=ids,
            attention_mask=attention,
            do_sample=False,
            max_new_tokens=new + new // 2 + 1,
            pad_token_id=pad,
        )
        texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        for i, text in zip(index, texts, strict=True):
            written[i] = text
    return written
