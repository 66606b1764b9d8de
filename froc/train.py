"""The one training loop: batches -> method -> step -> report.

Everything that depends on the base model alone (`Reference`) is computed once per task and kept; a trial pays for
its own optimiser steps and nothing else.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc import digest
from froc.batches import Batch, Encoded, by_length, collate, encode
from froc.data import Row, SearchView
from froc.errors import FrocError, InputError
from froc.methods import Facts, Method
from froc.models import Base, trained
from froc.step import Forward, Phase, Role

CLIP = 1.0
WEIGHT_DECAY = 0.01
WARMUP = 0.1


class DivergedError(FrocError):
    """A loss or a parameter is no longer finite."""


@dataclass(frozen=True)
class Pools:
    """Encoded rows of each role; `refusal` row i asks forget row i's question."""

    rows: Mapping[Role, Sequence[Encoded]]

    @classmethod
    def of(cls, view: SearchView, base: Base, seed: int) -> "Pools":
        """Encode the rows that may be trained on; refusals are drawn once per forget row by `seed`."""
        rows: dict[Role, Sequence[Encoded]] = {
            "forget": encode(base.tokenizer, view.forget, view.template),
            "retain": encode(base.tokenizer, view.retain, view.template),
        }
        asked = [row for row in view.forget if row.question]
        if view.refusals and len(asked) == len(view.forget):
            draw = torch.Generator().manual_seed(digest.seed("refusals", seed))
            picks = torch.randint(len(view.refusals), (len(asked),), generator=draw).tolist()
            refused = [Row(row.question, view.refusals[i], row.group) for row, i in zip(asked, picks, strict=True)]
            rows["refusal"] = encode(base.tokenizer, refused, view.template)
        return cls(rows)


@dataclass
class Reference:
    """Numbers of the base model on training rows, computed at first need and kept.

    `sum_nll`: role -> (rows,) nats. `hidden`: (role, layer) -> one (T, D) tensor per row.
    """

    base: Base
    pools: Pools
    sum_nll: dict[Role, Tensor] = field(default_factory=dict)
    hidden: dict[tuple[Role, int], list[Tensor]] = field(default_factory=dict)

    @torch.no_grad()
    def prepare(self, role: Role, needs: Sequence[str], layers: Sequence[int], size: int) -> None:
        """Compute what is missing; the model must hold the base parameters."""
        missing = [layer for layer in layers if "hidden" in needs and (role, layer) not in self.hidden]
        if not missing and ("sum_nll" not in needs or role in self.sum_nll):
            return
        rows = self.pools.rows[role]
        nll = torch.zeros(len(rows), device=self.base.device)
        kept: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(rows) for layer in missing}
        for index in by_length(rows, size):
            batch = collate(rows, index, self.base.device)
            forward = Forward(self.base.model, batch, missing)
            nll[batch.index] = forward.sum_nll
            for layer in missing:
                for place, i in enumerate(index):
                    kept[layer][i] = forward.hidden(layer)[place, : len(rows[i].ids)].clone()
        self.sum_nll[role] = nll
        self.hidden |= {(role, layer): found for layer, found in kept.items()}

    def of(self, role: Role, needs: Sequence[str], layers: Sequence[int], batch: Batch) -> dict[str, Tensor]:
        """name -> the base model's numbers for a batch: sum_nll (B,), hidden (B, T, D)."""
        found = {}
        if "sum_nll" in needs:
            found["sum_nll"] = self.sum_nll[role][batch.index]
        if "hidden" in needs:
            rows = [self.hidden[role, layers[0]][i] for i in batch.index.tolist()]
            found["hidden"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return found


@dataclass(frozen=True)
class Budgeted:
    """How long a method trains here: `steps` optimiser steps of `batch` forget rows (and as many retain rows)."""

    steps: int
    batch: int

    @classmethod
    def of(cls, method: Method, forget_rows: int, batch: int) -> "Budgeted":
        """`epochs` passes over the forget rows."""
        size = min(batch, forget_rows)
        return cls(max(1, math.ceil(method.epochs * forget_rows / size)), size)


def facts(model: PreTrainedModel, seed: int) -> Facts:
    """What methods may know about a model."""
    config: Any = model.config.get_text_config()
    return Facts(int(config.num_hidden_layers), int(config.hidden_size), seed)


def unlearn(
    base: Base,
    method: Method,
    reference: Reference,
    *,
    batch: int,
    seed: int,
    rungs: Mapping[int, Callable[[], bool]] | None = None,
) -> int:
    """Train `base.model` in place from the base parameters; return the number of steps done.

    rungs: step -> a check that returns True where training should stop (a hopeless trial).
    Raises DivergedError where a loss stops being finite, InputError where the task lacks rows the method needs.
    """
    base.restore()
    phases = method.phases(facts(base.model, seed))
    plan = Budgeted.of(method, len(reference.pools.rows["forget"]), batch)
    for phase in phases:
        _refuse_missing(method, phase, reference.pools)
        for role in phase.roles:
            reference.prepare(role, phase.needs(role), phase.hidden_at(role), max(plan.batch, 64))
    done = 0
    state: dict[str, Any] = {}
    torch.manual_seed(digest.seed("dropout", seed))
    for phase in phases:
        steps = round(phase.share * plan.steps)
        for _ in _run(base.model, phase, reference, plan.batch, steps, method.lr, seed, state):
            done += 1
            if rungs and done in rungs and rungs[done]():
                return done
    finish = method.finish()
    if finish is not None:
        with torch.no_grad():
            for name, value in finish(base.weights, trained(base.model)).items():
                trained(base.model)[name].copy_(value)
    return done


def _run(
    model: PreTrainedModel,
    phase: Phase,
    reference: Reference,
    size: int,
    steps: int,
    lr: float,
    seed: int,
    state: dict[str, Any],
) -> Iterator[None]:
    moving = _moving(model, phase)
    optimiser = torch.optim.AdamW(moving.values(), lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    draws = {role: _draw(len(reference.pools.rows[role]), size, role, seed) for role in phase.roles}
    try:
        for _ in range(steps):
            picked = {role: next(draw) for role, draw in draws.items()}
            before = {n: p.detach().clone() for n, p in moving.items()} if phase.update_filter else {}
            losses = _losses(model, phase, reference, picked, state)
            total = sum(float(loss.detach()) for loss in losses.values())
            if not math.isfinite(total):
                raise DivergedError("the training loss is not finite")
            phase.combiner.backward(losses, model, state)
            norm = torch.nn.utils.clip_grad_norm_(moving.values(), CLIP)
            if not math.isfinite(float(norm)):
                raise DivergedError("the gradient is not finite")
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            if phase.update_filter:
                _filter(moving, before, phase, state)
            yield
    finally:
        model.requires_grad_(True)
        model.zero_grad(set_to_none=True)


def _losses(
    model: PreTrainedModel,
    phase: Phase,
    reference: Reference,
    picked: Mapping[Role, list[int]],
    state: dict[str, Any],
) -> dict[str, Tensor]:
    forwards, numbers = {}, {}
    for role, index in picked.items():
        batch = collate(reference.pools.rows[role], index, next(model.parameters()).device)
        forwards[role] = Forward(model, batch, phase.hidden_at(role))
        numbers[role] = reference.of(role, phase.needs(role), phase.hidden_at(role), batch)
    losses = {}
    for name, part in phase.parts.items():
        rows = part.term.losses(forwards[part.term.role], numbers[part.term.role], state)
        if part.weighter:
            rows = rows * part.weighter.weights(forwards[part.term.role], state)
        losses[name] = part.weight * rows.mean()
    return losses


def _moving(model: PreTrainedModel, phase: Phase) -> dict[str, torch.nn.Parameter]:
    moving = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(phase.moves(name))
        if phase.moves(name):
            moving[name] = parameter
    if not moving:
        raise InputError(
            f"no parameter of this model matches {phase.trains!r}; the method does not fit its architecture"
        )
    return moving


def _draw(rows: int, size: int, role: Role, seed: int) -> Iterator[list[int]]:
    """Endless batches, every row once per pass; refusals follow the forget rows, which they answer."""
    stream = "forget" if role == "refusal" else role
    generator = torch.Generator().manual_seed(digest.seed("rows", stream, seed))
    order: list[int] = []
    while True:
        while len(order) < size:
            order += torch.randperm(rows, generator=generator).tolist()
        yield order[:size]
        order = order[size:]


def _rate(step: int, steps: int) -> float:
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))


@torch.no_grad()
def _filter(
    moving: dict[str, torch.nn.Parameter], before: dict[str, Tensor], phase: Phase, state: dict[str, Any]
) -> None:
    assert phase.update_filter is not None
    update = phase.update_filter({name: moving[name] - old for name, old in before.items()}, state)
    for name, old in before.items():
        moving[name].copy_(old + update[name])


def _refuse_missing(method: Method, phase: Phase, pools: Pools) -> None:
    for role in phase.roles:
        if role not in pools.rows:
            kind = type(method).__name__
            raise InputError(f"{kind} needs {role} rows, which this task lacks; add idk.txt or leave the method out")
