"""The one training loop: batches -> method -> step -> report, for one configuration or several over one frozen base.

Everything that depends on the base model alone (`Reference`) is computed once per task and kept; a trial pays for
its own optimiser steps and nothing else.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc import digest
from froc.batches import Counts, Encoded, Stack, by_length, chunks, encode
from froc.data import Row, SearchView
from froc.engine import Engine
from froc.errors import FrocError, InputError
from froc.forward import Forward, Pass
from froc.methods import Facts, Method
from froc.models import Base
from froc.step import Phase, Role

CLIP = 1.0
WEIGHT_DECAY = 0.01
WARMUP = 0.1
SKIPS = 20
"""Steps in a row that float16 may lose to an overflow while its scale is being found."""


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

    `stack`: the rows of all roles on the device; `first`: role -> where its rows begin there.
    `sum_nll`: role -> (rows,) nats. `hidden`: (role, layer) -> one (T, D) tensor per row. `norm`: (role, layer) -> mean
    norm of the hidden states over all tokens of all rows.
    """

    base: Base
    pools: Pools
    sum_nll: dict[Role, Tensor] = field(default_factory=dict)
    hidden: dict[tuple[Role, int], list[Tensor]] = field(default_factory=dict)
    norm: dict[tuple[Role, int], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first: dict[Role, int] = {}
        every: list[Encoded] = []
        for role, rows in self.pools.rows.items():
            self.first[role] = len(every)
            every += rows
        self.stack = Stack(every, self.base.device)

    @torch.no_grad()
    def prepare(self, role: Role, needs: Sequence[str], layers: Sequence[int], size: int) -> None:
        """Compute what is missing; the model must hold the base parameters."""
        kept = [layer for layer in layers if "hidden" in needs and (role, layer) not in self.hidden]
        norms = [layer for layer in layers if "hidden_norm" in needs and (role, layer) not in self.norm]
        likely = "sum_nll" in needs and role not in self.sum_nll
        if not (kept or norms or likely):
            return
        rows = self.pools.rows[role]
        nll = torch.zeros(len(rows), device=self.base.device)
        states: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(rows) for layer in kept}
        lengths: dict[int, list[Tensor]] = {layer: [] for layer in norms}
        for index in by_length(rows, size):
            batch = self.stack.batch(np.asarray(index) + self.first[role])
            found = Pass(self.base.model, batch, hidden_at=sorted({*kept, *norms}), logits=likely)
            if likely:
                nll[index] = found.sum_nll
            for layer in kept:
                for place, i in enumerate(index):
                    states[layer][i] = found.hidden[layer][place, : len(rows[i].ids)].clone()
            for layer in norms:
                lengths[layer].append(found.hidden[layer][batch.attention.bool()].float().norm(dim=-1))
        if likely:
            self.sum_nll[role] = nll
        self.hidden |= {(role, layer): some for layer, some in states.items()}
        self.norm |= {(role, layer): torch.cat(some).mean() for layer, some in lengths.items()}

    def of(self, role: Role, needs: Sequence[str], layers: Sequence[int], index: Counts) -> dict[str, Tensor]:
        """name -> the base model's numbers for rows of a role: sum_nll (B,), hidden (B, T, D), hidden_norm ()."""
        found = {}
        if "sum_nll" in needs:
            found["sum_nll"] = self.sum_nll[role][torch.from_numpy(index).to(self.base.device)]
        if "hidden" in needs:
            rows = [self.hidden[role, layers[0]][i] for i in index.tolist()]
            found["hidden"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        if "hidden_norm" in needs:
            found["hidden_norm"] = self.norm[role, layers[0]]
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
        self.base.restore(seed, member)
        plan = Budgeted.of(method, len(reference.pools.rows["forget"]), batch)
        self.size = plan.batch
        phases = method.phases(facts(self.base.model, seed))
        for phase in phases:
            _refuse_missing(method, phase, reference.pools)
            for role in phase.roles:
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

    def losses(self, forwards: Mapping[Role, Forward], picked: Picked) -> dict[str, Tensor]:
        """name -> weighted scalar of the rows at hand: what they add to the mean over the batch."""
        losses = {}
        for name, part in self.phase.parts.items():
            role = part.term.role
            if role not in forwards:
                continue
            numbers = self.reference.of(role, self.phase.needs(role), self.phase.hidden_at(role), picked[role])
            rows = part.term.losses(forwards[role], numbers, self._state)
            if part.weighter:
                rows = rows * part.weighter.weights(forwards[role], self._state)
            losses[name] = part.weight * rows.sum() / self.size
        return losses

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss as its gradients are taken of."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def before(self) -> Tensor:
        """Make gradients ready for `after`; return their norm, which is not finite where a step cannot be taken."""
        self._scaler.unscale_(self._optimiser)
        return torch.nn.utils.clip_grad_norm_(self.moving.values(), CLIP)

    def after(self, finite: bool) -> None:
        """Take the optimiser's step, look where a rung is, go on to the next phase where this one is over."""
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (not self._scaler.is_enabled() or self._skipped > SKIPS):
            self.error = "the training loss or its gradient is not finite"
            return
        edited = self.phase.update_filter is not None
        old = {name: p.detach().clone() for name, p in self.moving.items()} if edited else {}
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        if edited:
            _filter(self.moving, old, self.phase, self._state)
        self.forget_gradients()
        self.done += 1
        self._left[0] = (self.phase, self._left[0][1] - 1)
        if self.done in self._rungs:
            self.base.scope.activate([self.member])
            self.stopped = self._rungs[self.done]()
        self._enter()

    def forget_gradients(self) -> None:
        """Drop gradients."""
        for parameter in self.moving.values():
            parameter.grad = None

    def leave(self) -> None:
        """Make the one-shot edit, where the method has one and training went to its end."""
        finish = self.method.finish()
        if finish is not None and not self.stopped and not self.error:
            own = self.base.scope.own(self.member)
            with torch.no_grad():
                for name, value in finish(self.base.scope.origin(), {n: p.detach() for n, p in own.items()}).items():
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
            total += _gradients(base, runs, some, engine)
        return total

    def undo() -> None:
        for run in runs:
            run.forget_gradients()

    if all(run.phase.combiner.linear for run in runs):
        total = engine.fitting(runs[0].size, work, undo)
    else:
        total = work(runs[0].size)
    norms = torch.stack([run.before() for run in runs])
    # one wait for the device per step, for all runs and both numbers
    for run, finite in zip(runs, torch.isfinite(total + norms.to(total)).tolist(), strict=True):
        run.after(finite)


def _gradients(base: Base, runs: Sequence[Run], picked: Sequence[Picked], engine: Engine) -> Tensor:
    """Add the gradients of some rows of each run; return the (runs,) losses, detached.

    Where rows do not need each other, each pass's activations are gone before the next pass makes its own.
    """
    reference = runs[0].reference
    index, order = _laid(runs, picked)
    cuts = chunks(reference.stack.length[index].max(axis=0), engine.overhead(base.device) // len(runs))

    def part(some: Sequence[Counts]) -> Tensor:
        with engine.precision(base.device):
            passes = [(_pass(base, runs, index[:, cut]), cut) for cut in some]
        return _backward(base, runs, [_roles(one, order[k], passes, k) for k, one in enumerate(picked)])

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


def _pass(base: Base, runs: Sequence[Run], index: Counts) -> Pass:
    """A pass over (runs, n) rows, equally many of every run."""
    hidden_at = sorted({layer for run in runs for layer in run.phase.layers})
    logits = any(run.phase.logits for run in runs)
    batch = runs[0].reference.stack.batch(index.reshape(-1))
    return Pass(base.model, batch, hidden_at=hidden_at, logits=logits, rows_stay=len(runs) > 1)


def _backward(base: Base, runs: Sequence[Run], found: Sequence[tuple[dict[Role, Forward], Picked]]) -> Tensor:
    """Gradients of what passes gave for each run; the (runs,) losses, detached."""
    losses = [run.losses(forwards, rows) for run, (forwards, rows) in zip(runs, found, strict=True)]
    if len(runs) == 1:
        run, mine = runs[0], {name: runs[0].scaled(loss) for name, loss in losses[0].items()}
        run.phase.combiner.backward(mine, base.model, run.state)
    else:
        scaled = [run.scaled(loss) for run, mine in zip(runs, losses, strict=True) for loss in mine.values()]
        torch.stack(scaled).sum().backward()
    nothing = torch.zeros((), device=base.device)
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
