"""The one training loop: batches -> method -> step -> report, for one configuration or several over one frozen base.

Everything that depends on the base model alone (`Reference`) is computed once per task and kept; a trial pays for
its own optimiser steps and nothing else.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc import digest
from froc.batches import Counts, chunks
from froc.engine import Engine
from froc.errors import FrocError, InputError
from froc.forward import Forward, Pass
from froc.methods import Facts, Method
from froc.models import Base, read_model
from froc.reference import Reference
from froc.step import SIDES, Role, Side, Taken, Weights, side_of

CLIP = 1.0
WEIGHT_DECAY = 0.01
WARMUP = 0.1
SKIPS = 20
"""Steps in a row that float16 may lose to an overflow while its scale is being found."""


class DivergedError(FrocError):
    """A loss or a parameter is no longer finite."""


@dataclass(frozen=True)
class Budgeted:
    """How long a method trains here: `steps` optimiser steps of `batch` forget rows (and as many retain rows)."""

    steps: int
    batch: int

    @classmethod
    def of(cls, method: Method, forget_rows: int, batch: int) -> "Budgeted":
        """`epochs` passes over the forget rows."""
        size = min(batch, forget_rows)
        return cls(max(1, math.ceil(method.epochs * forget_rows / size)) if method.epochs else 0, size)


def facts(model: PreTrainedModel, seed: int) -> Facts:
    """What methods may know about a model."""
    config: Any = model.config.get_text_config()
    return Facts(int(config.num_hidden_layers), int(config.hidden_size), seed)


Look = Callable[[], bool]
"""Is called at a step; True where training should stop (a hopeless trial)."""
Picked = Mapping[Role, Counts]


class Run:
    """One configuration in training: the parameters it moves, their optimiser, its rows, its place in its phases."""

    def __init__(
        self, method: Method, reference: Reference, *, batch: int, seed: int, member: int = 0, engine: Engine,
        rungs: Mapping[int, Look] | None = None,
    ) -> None:  # fmt: skip
        self.base, self.reference, self.method, self.seed, self.member = reference.base, reference, method, seed, member
        self.done, self.stopped, self.error = 0, False, ""
        self._rungs, self._skipped = rungs or {}, 0
        self._state: dict[str, Any] = {}
        self.moving: dict[str, torch.nn.Parameter] = {}
        self._sides: dict[Side, Weights] = {}
        self._watched: dict[Side, Any] = {}
        self.base.restore(seed, member)
        plan = Budgeted.of(method, len(reference.pools.rows["forget"]), batch)
        self.size = plan.batch
        phases = method.phases(facts(self.base.model, seed))
        for phase in phases:
            for role in phase.roles:
                try:
                    reference.ensure(role)
                except InputError as error:
                    raise InputError(f"{type(method).__name__} {error}") from error
                reference.prepare(role, phase.needs(role), phase.hidden_at(role), max(plan.batch, 64))
        self._left = [(phase, round(phase.share * plan.steps)) for phase in phases]
        self.steps = sum(steps for _, steps in self._left)
        self._scaler = torch.amp.GradScaler(
            self.base.device.type, enabled=engine.autocast == torch.float16, init_scale=2.0**12
        )
        self._enter()

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        return not self._left or self.stopped or bool(self.error)

    @property
    def state(self) -> dict[str, Any]:
        """What its terms keep between steps."""
        return self._state

    def draw(self) -> Picked:
        """role -> rows of the next step."""
        return {role: np.array(next(draw), dtype=np.int64) for role, draw in self._draws.items()}

    def losses(self, forwards: Mapping[Role, Forward], picked: Picked) -> dict[Side, Tensor]:
        """side -> scalar of the rows at hand: what they add to the mean over the batch."""
        losses: dict[Side, Tensor] = {}
        for part in self.phase.parts.values():
            role = part.term.role
            if role not in forwards:
                continue
            needs, layers = self.phase.needs(role), self.phase.hidden_at(role)
            numbers = self.reference.of(role, needs, layers, picked[role], forwards[role])
            rows = part.losses(forwards[role], numbers, self._state)
            some = part.weight * rows.sum() / self.size
            losses[part.side] = losses[part.side] + some if part.side in losses else some
        if self.phase.combiner.watches:
            for side, loss in losses.items():
                self._watched[side] = self._watched.get(side, 0.0) + loss.detach()
        # where each side's gradient is kept, it is the side's own; `direction` weighs it
        factors = {} if self.phase.split else self.phase.combiner.weights(self._state)
        return {side: loss * factors[side] if side in factors else loss for side, loss in losses.items()}

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss as its gradients are taken of."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def keep_side(self, side: Side) -> None:
        """Put by what the side's passes gave, where each side's gradient is wanted."""
        if not self.phase.split:
            return
        mine = self._sides.setdefault(side, {})
        for name, parameter in self.moving.items():
            if parameter.grad is not None:
                mine[name] = mine[name] + parameter.grad if name in mine else parameter.grad
                parameter.grad = None

    def before(self) -> Tensor:
        """Make gradients ready for `after`; return their norm, which is not finite where a step cannot be taken."""
        if self.phase.split:
            for name, grad in self.phase.combiner.direction(self._sides, self._state).items():
                # filters read the sides afterwards, and clipping works in place
                self.moving[name].grad = grad.clone()
        self._scaler.unscale_(self._optimiser)
        return torch.nn.utils.clip_grad_norm_(self.moving.values(), CLIP)

    def after(self, finite: bool) -> None:
        """Take the optimiser's step, look where a rung is, go on to the next phase where this one is over."""
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (not self._scaler.is_enabled() or self._skipped > SKIPS):
            self.error = "the training loss or its gradient is not finite"
            return
        edited = bool(self.phase.filters)
        old = {name: p.detach().clone() for name, p in self.moving.items()} if edited else {}
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        if edited and finite:
            self._filter(old)
        if self.phase.combiner.watches and finite:
            self.phase.combiner.after(self._watched, self._state)
        self.forget_gradients()
        self.done += 1
        self._left[0] = (self.phase, self._left[0][1] - 1)
        if self.done in self._rungs:
            self.base.scope.activate([self.member])
            # at its end there is nothing left to be stopped, and an edit may be due
            self.stopped = self._rungs[self.done]() and any(steps for _, steps in self._left)
        self._enter()

    def forget_gradients(self) -> None:
        """Drop gradients, and what was summed up beside them."""
        self._sides, self._watched = {}, {}
        for parameter in self.moving.values():
            parameter.grad = None

    def leave(self) -> None:
        """Make the one-shot edit, where the method has one and training went to its end."""
        if self.stopped or self.error:
            return
        scope, finish = self.base.scope, self.method.finish()
        if self.method.brought:
            scope.put(self._retrained(), 1.0, self.member)
        if self.method.share != 1.0:
            scope.put(scope.take(self.member), self.method.share, self.member)
        if finish is not None:
            own = scope.own(self.member)
            with torch.no_grad():
                for name, value in finish(scope.origin(), {n: p.detach() for n, p in own.items()}).items():
                    own[name].copy_(value)

    def _enter(self) -> None:
        """Set the next phase up where one is due."""
        while self._left and self._left[0][1] == 0:
            self._left.pop(0)
        if not self._left or getattr(self, "phase", None) is self._left[0][0]:
            return
        self.phase, steps = self._left[0]
        self.moving = self._moving()
        self._optimiser = torch.optim.AdamW(
            self.moving.values(), lr=self.method.lr, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: _rate(step, steps))
        rows = self.reference.pools.rows
        self._draws = {role: _draw(len(rows[role]), self.size, role, self.seed) for role in self.phase.roles}

    def _retrained(self) -> Weights:
        folder = self.reference.pools.retrained
        if folder is None or set(self.base.scope.own(self.member)) != {
            n for n, _ in self.base.model.named_parameters()
        }:
            raise InputError("needs a model that the task brings, and --train full")
        return read_model(Path(folder))

    @torch.no_grad()
    def _filter(self, before: Weights) -> None:
        update = {name: self.moving[name] - old for name, old in before.items()}
        for one in self.phase.filters:
            moments = (
                {name: self._optimiser.state[p]["exp_avg_sq"] for name, p in self.moving.items()} if one.moments else {}
            )
            update = one(update, Taken(self._sides, moments, self._state))
        for name, old in before.items():
            self.moving[name].copy_(old + update[name])

    def _moving(self) -> dict[str, torch.nn.Parameter]:
        scope = self.base.scope
        moving = {n: p for n, p in scope.own(self.member).items() if self.phase.moves(scope.home(n))}
        if not moving:
            raise InputError(
                f"no parameter of this model matches {self.phase.trains!r}; the method does not fit its architecture"
                " or what --train lets move"
            )
        return moving


def unlearn(
    base: Base,
    method: Method,
    reference: Reference,
    *,
    batch: int,
    seed: int,
    rungs: Mapping[int, Look] | None = None,
    engine: Engine | None = None,
) -> int:
    """Train `base.model` in place from the base parameters; return the number of steps done.

    Raises DivergedError where a loss stops being finite, InputError where the task lacks rows the method needs.
    """
    engine = engine or Engine()
    run = Run(method, reference, batch=batch, seed=seed, rungs=rungs, engine=engine)
    together(base, [run], engine)
    if run.error:
        raise DivergedError(run.error)
    return run.done


def together(base: Base, runs: Sequence[Run], engine: Engine, deadline: float | None = None) -> None:
    """Train several configurations, each on its own member, rows and rate, in the same passes over the frozen base.

    deadline: of `time.monotonic()`; TimeoutError at the first step after it.
    A run that diverges or is stopped leaves the others alone: parameters and rows are disjoint.
    """
    torch.manual_seed(digest.seed("dropout", *(run.seed for run in runs)))
    try:
        while active := [run for run in runs if not run.over]:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            _freeze(base, active)
            base.scope.activate([run.member for run in active])
            _step(base, active, engine)
    finally:
        for run in runs:
            run.forget_gradients()
        base.model.requires_grad_(True)
    for run in runs:
        run.leave()


def _step(base: Base, runs: Sequence[Run], engine: Engine) -> None:
    picked = [run.draw() for run in runs]

    def work(size: int) -> Tensor:
        total = torch.zeros(len(runs), device=base.device)
        for start in range(0, runs[0].size, size):
            some = [{role: index[start : start + size] for role, index in one.items()} for one in picked]
            total += _all_sides(base, runs, some, engine)
        return total

    def undo() -> None:
        for run in runs:
            run.forget_gradients()

    total = engine.fitting(runs[0].size, work, undo)
    norms = torch.stack([run.before() for run in runs])
    # one wait for the device per step, for all runs and both numbers
    for run, finite in zip(runs, torch.isfinite(total + norms.to(total)).tolist(), strict=True):
        run.after(finite)


def _all_sides(base: Base, runs: Sequence[Run], picked: Sequence[Picked], engine: Engine) -> Tensor:
    """Gradients of some rows of each run, side by side where a run wants it; the (runs,) losses, detached."""
    if not any(run.phase.apart for run in runs):
        return _gradients(base, runs, picked, engine, None)
    total = torch.zeros(len(runs), device=base.device)
    for side in SIDES:
        mine = [{role: index for role, index in one.items() if side_of(role) == side} for one in picked]
        some = [k for k, one in enumerate(mine) if one]
        alone = any(runs[k].phase.adversary for k in some)
        # what an adversary finds is found for one run's parameters
        for group in [[k] for k in some] if alone else [some]:
            members = [runs[k] for k in group]
            base.scope.activate([run.member for run in members])
            total[group] += _gradients(base, members, [mine[k] for k in group], engine, side)
            for run in members:
                run.keep_side(side)
    return total


def _gradients(
    base: Base, runs: Sequence[Run], picked: Sequence[Picked], engine: Engine, side: Side | None = None
) -> Tensor:
    """Add the gradients of some rows of each run; return the (runs,) losses, detached. side: whose rows they are, if of one.

    Where rows do not need each other, each pass's activations are gone before the next pass makes its own.
    """
    if not runs:
        return torch.zeros(0, device=base.device)
    reference = runs[0].reference
    index, order = _laid(runs, picked)
    cuts = chunks(reference.stack.length[index].max(axis=0), engine.overhead(base.device) // len(runs))

    def part(some: Sequence[Counts]) -> Tensor:
        with engine.precision(base.device):
            passes = [(_pass(base, runs, index[:, cut], side), cut) for cut in some]
        return _backward([_roles(one, order[k], passes, k) for k, one in enumerate(picked)], runs, base.device)

    separable = all(run.phase.separable for run in runs)
    return torch.stack([part(some) for some in ([[cut] for cut in cuts] if separable else [cuts])]).sum(0)


def _laid(runs: Sequence[Run], picked: Sequence[Picked]) -> tuple[Counts, Counts]:
    """(runs, N) rows of all roles in order of their lengths, and where each stood in the draw."""
    reference = runs[0].reference
    flat = [np.concatenate([index + reference.first[role] for role, index in one.items()]) for one in picked]
    most = max(map(len, flat))
    # a run with fewer rows is filled up with its first, which nobody reads
    index = np.stack([np.concatenate([some, np.repeat(some[:1], most - len(some))]) for some in flat])
    order = np.argsort(reference.stack.length[index], axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1), order


def _pass(base: Base, runs: Sequence[Run], index: Counts, side: Side | None) -> Pass:
    """A pass over (runs, n) rows, equally many of every run."""
    hidden_at = sorted({layer for run in runs for layer in run.phase.layers})
    logits = any(run.phase.logits for run in runs)
    batch = runs[0].reference.stack.batch(index.reshape(-1))
    adversary = runs[0].phase.adversary if side == "forget" else None
    if adversary is None:
        return Pass(base.model, batch, hidden_at=hidden_at, logits=logits, rows_stay=len(runs) > 1)
    changed, during = adversary.against(base.model, batch, runs[0].state)
    with during():
        return Pass(base.model, changed, hidden_at=hidden_at, logits=logits)


def _backward(found: Sequence[tuple[dict[Role, Forward], Picked]], runs: Sequence[Run], device: torch.device) -> Tensor:
    """Gradients of what passes gave for each run; the (runs,) losses, detached."""
    losses = [run.losses(forwards, rows) for run, (forwards, rows) in zip(runs, found, strict=True)]
    scaled = [run.scaled(loss) for run, mine in zip(runs, losses, strict=True) for loss in mine.values()]
    torch.stack(scaled).sum().backward()
    nothing = torch.zeros((), device=device)
    return torch.stack([sum((loss.detach() for loss in mine.values()), nothing) for mine in losses])


def _roles(
    picked: Picked, order: Counts, passes: Sequence[tuple[Pass, Counts]], run: int
) -> tuple[dict[Role, Forward], Picked]:
    """role -> its rows in the passes, and which rows these are. order: drawn place of each row in sorted order."""
    found: dict[Role, Forward] = {}
    rows: dict[Role, Counts] = {}
    start = 0
    for role, index in picked.items():
        where = []
        for one, cut in passes:
            drawn = order[cut] - start
            mine = np.flatnonzero((drawn >= 0) & (drawn < len(index)))
            if len(mine):
                where.append((one, mine + run * len(cut), drawn[mine]))
        if where:
            found[role] = Forward(where)
            rows[role] = index[np.sort(np.concatenate([drawn for _, _, drawn in where]))]
        start += len(index)
    return found, rows


def _freeze(base: Base, runs: Sequence[Run]) -> None:
    wanted = {id(parameter) for run in runs for parameter in run.moving.values()}
    for parameter in base.model.parameters():
        if parameter.requires_grad != (id(parameter) in wanted):
            parameter.requires_grad_(id(parameter) in wanted)


def _draw(rows: int, size: int, role: Role, seed: int) -> Iterator[list[int]]:
    """Endless batches, every row once per pass; refusals follow the forget rows, which they answer."""
    stream = side_of(role)
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
