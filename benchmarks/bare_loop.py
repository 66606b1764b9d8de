"""NPO as one writes it by hand in PyTorch: what `engine.py` measures a trial against."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForCausalLM

from froc.models.base import Base
from froc.models.batches import Encoded, collate
from froc.models.compute import Engine
from froc.plugins import make
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.adamw import WEIGHT_DECAY
from froc.training.method import Method
from froc.training.optimiser import CLIP
from froc.training.run import Run
from froc.training.schedule import WARMUP

BATCH = 32
"""Forget rows per step."""


@dataclass(frozen=True)
class Padded:
    """Rows padded to their longest. ids, attention: (B, T). labels: (B, T), the next token where it is trained or -100.

    count: (B,) labels per row.
    """

    ids: Tensor
    attention: Tensor
    labels: Tensor
    count: Tensor

    @classmethod
    def of(cls, rows: Sequence[Encoded], index: Sequence[int], end: bool = True) -> "Padded":
        """end: whether what ends an answer is a label too."""
        batch = collate(rows, index, "cpu")
        labels = batch.ids.masked_fill(~(batch.trained if end else batch.measured), -100)
        # shifted here, once, so that the loop need not copy logits to shift them
        labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        return cls(batch.ids, batch.attention, labels, (labels >= 0).sum(1))


def sum_nll(model: Any, batch: Padded) -> Tensor:
    """(B,) negative log-likelihood of a row's labels."""
    logits = model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="none")
    return losses.view(batch.ids.shape).sum(1)


class Bare:
    """NPO as one writes it by hand, on batches that were put together before.

    steps: (forget, retain, the base model's NLL of the forget rows) of each step.
    """

    def __init__(self, base: Base, bench: TrialRunner, spec: TrialSpec) -> None:
        self.params, self.size = spec.params, BATCH
        self.model: Any = _fresh(base)
        self._frozen: Any = _fresh(base).requires_grad_(False)
        pools = bench.reference.pools.rows
        run = Run(make(Method, spec.method, spec.params), bench.reference, batch=BATCH, seed=spec.seed, engine=Engine())
        self.steps = []
        for _ in range(_steps(len(pools["forget"]), spec)):
            drawn = run.draw()
            forget, retain = (Padded.of(pools[role], drawn[role].tolist()) for role in ("forget", "retain"))
            with torch.no_grad():
                self.steps.append((forget, retain, sum_nll(self._frozen, forget)))
        self.queries = [
            Padded.of(probe.rows, range(start, min(start + BATCH, len(probe.rows))), end=False)
            for probe in bench.probes for start in range(0, len(probe.rows), BATCH)
        ]  # fmt: skip

    def train(self, cached: bool = True) -> None:
        """All steps, from the base parameters on. cached: take the base model's numbers as given."""
        lr, beta, weight = (self.params[name] for name in ("lr", "beta", "retain_weight"))
        self.model.load_state_dict(self._frozen.state_dict())
        parameters, total = list(self.model.parameters()), len(self.steps)
        warm = max(1, round(WARMUP * total))
        optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm if step < warm else 1.0, (total - step) / (total - warm))
        )
        for forget, retain, known in self.steps:
            nll = sum_nll(self.model, forget)
            if not cached:
                with torch.no_grad():
                    known = sum_nll(self._frozen, forget)
            loss = -2 / beta * logsigmoid(beta * (nll - known)).mean()
            loss = loss + weight * (sum_nll(self.model, retain) / retain.count).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def measure(self) -> list[float]:
        """Extraction strength of every query: share of the answer after its last wrong token."""
        strengths: list[float] = []
        for batch in self.queries:
            logits = self.model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits
            wrong = (logits.argmax(-1) != batch.labels) & (batch.labels >= 0)
            after = batch.labels.ge(0).flip(1).cumsum(1).masked_fill(~wrong.flip(1), 10**6)
            strengths += ((after.amin(1) - 1).minimum(batch.count) / batch.count).tolist()
        return strengths

    def trial(self) -> None:
        """Train and measure."""
        self.train()
        self.measure()


def _fresh(base: Base) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base.name, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def _steps(forget_rows: int, spec: TrialSpec) -> int:
    return -(-int(spec.params["epochs"]) * forget_rows // min(BATCH, forget_rows))
