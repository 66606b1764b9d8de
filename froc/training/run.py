"""One configuration in training: the parameters it moves, their optimiser, its rows, its place in its phases.

Which passes a step is made of is the loop's business (`froc.training.loop`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from froc.errors import FrocError, InputError
from froc.models.base import read_model
from froc.models.batches import Counts, Stack
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.models.trainable import Full
from froc.training.base_statistics import BaseStatistics, MethodContext, Role
from froc.training.components import Rollout, StepContext, UpdateInputs
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.schedule import TrainingLength, _draw, schedule
from froc.training.terms import Objective, Weights, objective_of

CLIP = 1.0
WEIGHT_DECAY = 0.01
ROLLED = "rollout"
"""Role of the rows that the model itself writes."""
SKIPS = 20
"""Steps in a row that float16 may lose to an overflow while its scale is being found."""


class DivergedError(FrocError):
    """A loss or a parameter is no longer finite."""


def method_context(reference: BaseStatistics, seed: int) -> MethodContext:
    """What methods may know about a model and its rows."""
    config: Any = reference.base.model.config.get_text_config()
    adapters = not isinstance(reference.base.trainable, Full)
    half = next(reference.base.model.parameters()).dtype.itemsize < 4
    return MethodContext(int(config.num_hidden_layers), int(config.hidden_size), seed, adapters, reference.ask, half)


StepCallback = Callable[[], bool]
"""Is called at a step; True where training should stop (a hopeless trial)."""
RowIndices = Mapping[Role, Counts]


@dataclass(frozen=True)
class _Rolled:
    """Rows that the model has written, beside those of the phase's other roles. numbers: name -> (rows, ...)."""

    stack: Stack | None = None
    first: Mapping[Role, int] | None = None
    numbers: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, index: Counts) -> dict[str, Tensor]:
        """Numbers of some rows."""
        place = torch.from_numpy(index)
        return {name: values[place.to(values.device)] for name, values in self.numbers.items()}


class Run:
    """One configuration in training: the parameters it moves, their optimiser, its rows, its place in its phases."""

    def __init__(
        self, method: Method, reference: BaseStatistics, *, batch: int, seed: int, adapter_index: int = 0, engine: Engine,
        callbacks: Mapping[int, StepCallback] | None = None,
    ) -> None:  # fmt: skip
        self.base, self.reference, self.method, self.seed, self.adapter_index = (
            reference.base,
            reference,
            method,
            seed,
            adapter_index,
        )
        self.done, self.stopped, self.error = 0, False, ""
        self._callbacks: dict[int, list[StepCallback]] = {}
        self._skipped, self._rolled, self._moved = 0, _Rolled(), set[str]()
        self.add_callbacks(callbacks or {})
        self._state: dict[str, Any] = {}
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._gradients: dict[Objective, Weights] = {}
        self._losses: dict[Objective, Any] = {}
        self.base.restore(seed, adapter_index)
        plan = TrainingLength.of(method, len(reference.pools.rows["forget"]), batch)
        self.size = plan.batch
        phases = method.phases(method_context(reference, seed))
        for phase in phases:
            self._prepare_inputs(phase)
        self._left = [(one, self._steps_of(one, plan.steps)) for one in phases]
        self.steps = sum(steps for _, steps in self._left)
        self.rows = sum(steps * self._rows_of(phase) for phase, steps in self._left)
        self._scaler = torch.amp.GradScaler(
            self.base.device.type, enabled=engine.autocast == torch.float16, init_scale=2.0**12
        )
        self._start_phase()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be done."""
        return not self._left or self.stopped or bool(self.error)

    @property
    def state(self) -> dict[str, Any]:
        """What its terms keep between steps."""
        return self._state

    @property
    def stack(self) -> Stack:
        """The rows it draws from, of all roles."""
        return self._rolled.stack or self.reference.stack

    @property
    def offsets(self) -> Mapping[Role, int]:
        """role -> where its rows begin in the stack."""
        return self._rolled.first or self.reference.offsets

    @property
    def can_checkpoint(self) -> bool:
        """Whether `saved` says all there is: rows that the model has written are gone through first, and never kept."""
        rollout = None if self.finished else self.phase.rollout
        return rollout is None or self._since % rollout.every == 0

    def saved(self) -> dict[str, Any]:
        """What `restore` needs, as it stands between two steps: no copy of it."""
        own = self.base.trainable.parameters(self.adapter_index)
        training = bool(self._left) and self.phase.edit is None
        return {
            "weights": {name: own[name].detach() for name in sorted(self._moved)},
            "phases": len(self._left), "left": self._left[0][1] if self._left else 0, "since": self._since,
            "optimiser": self._optimiser.state_dict() if training else None,
            "schedule": self._schedule.state_dict() if training else None,
            "scaler": self._scaler.state_dict(), "state": self._state,
            "done": self.done, "skipped": self._skipped, "stopped": self.stopped,
        }  # fmt: skip

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Any]) -> None:
        """Be where `saved` was taken of the same configuration; this run has not begun yet."""
        own = self.base.trainable.parameters(self.adapter_index)
        for name, value in saved["weights"].items():
            own[name].copy_(value)
        self._moved |= set(saved["weights"])
        self._left = self._left[len(self._left) - saved["phases"] :]
        self._start_phase()
        if self._left:
            self._left[0], self._since = (self.phase, saved["left"]), saved["since"]
        if saved["optimiser"] is not None:
            self._optimiser.load_state_dict(saved["optimiser"])
            self._schedule.load_state_dict(saved["schedule"])
            for draw in (draw for role, draw in self._draws.items() if role != ROLLED):
                next(islice(draw, self._since, self._since), None)
        self._scaler.load_state_dict(saved["scaler"])
        self._state, self.done = saved["state"], saved["done"]
        self._skipped, self.stopped = saved["skipped"], saved["stopped"]

    def add_callbacks(self, callbacks: Mapping[int, StepCallback]) -> None:
        """Be looked at after these steps, after whoever looks there already."""
        for step, look in callbacks.items():
            self._callbacks.setdefault(step, []).append(look)

    def report_search_losses(self, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float]) -> None:
        """Say the search losses to the combiner, which may end training here."""
        if self._left and self.phase.combiner.on_search_losses(losses, budgets, self._state):
            self._left = []

    def draw(self) -> RowIndices:
        """role -> rows of the next step."""
        if self.phase.rollout is not None and self._since % self.phase.rollout.every == 0:
            self._roll(self.phase.rollout)
        self._since += 1
        return {role: np.array(next(draw), dtype=np.int64) for role, draw in self._draws.items()}

    def edit(self) -> None:
        """Let the phase's edit write the parameters."""
        assert self.phase.edit is not None
        self.phase.edit(self._ground())
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters.values()):
            self.error = "the edit left parameters that are not finite"
            return
        self.clear_gradients()
        self._advance()

    def losses(self, forwards: Mapping[Role, Forward], picked: RowIndices) -> dict[Objective, Tensor]:
        """side -> scalar of the rows at hand: what they add to the mean over the batch."""
        losses: dict[Objective, Tensor] = {}
        for part in self.phase.parts.values():
            role = part.term.role
            if role not in forwards:
                continue
            if role == ROLLED:
                numbers = self._rolled.of(picked[role])
            else:
                numbers = self.reference.lookup(role, part.needs, part.term.hidden_at, picked[role], forwards[role])
            rows = part.losses(forwards[role], numbers, self._state)
            some = part.weight * rows.sum() / self.size
            losses[part.objective] = losses[part.objective] + some if part.objective in losses else some
        if self.phase.combiner.needs_losses:
            for objective, loss in losses.items():
                self._losses[objective] = self._losses.get(objective, 0.0) + loss.detach()
        # where each side's gradient is kept, it is the side's own; `direction` weighs it
        factors = {} if self.phase.keeps_gradients else self.phase.combiner.weights(self._state)
        return {
            objective: loss * factors[objective] if objective in factors else loss for objective, loss in losses.items()
        }

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss as its gradients are taken of."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def store_gradients(self, objective: Objective) -> None:
        """Put by what the side's passes gave, where each side's gradient is wanted."""
        if not self.phase.keeps_gradients:
            return
        mine = self._gradients.setdefault(objective, {})
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                mine[name] = mine[name] + parameter.grad if name in mine else parameter.grad
                parameter.grad = None

    def prepare_gradients(self, again: Callable[[Objective | None, bool], object]) -> Tensor:
        """Make gradients ready for `apply_step`; return their norm, which is not finite where a step cannot be taken.

        again: makes the passes over the step's rows once more, of both sides or one, as usual or without autocast.
        """
        if self.phase.keeps_gradients:
            for name, grad in self._direction(again).items():
                # filters read the sides afterwards, and clipping works in place
                self.parameters[name].grad = grad.clone()
        self._scaler.unscale_(self._optimiser)
        return torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)

    def apply_step(self, finite: bool) -> None:
        """Take the optimiser's step, look where a rung is, go on to the next phase where this one is over."""
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (not self._scaler.is_enabled() or self._skipped > SKIPS):
            self.error = "the training loss or its gradient is not finite"
            return
        edited = bool(self.phase.filters)
        old = {name: p.detach().clone() for name, p in self.parameters.items()} if edited else {}
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        if edited and finite:
            self._filter(old)
        if self.phase.combiner.needs_losses and finite:
            self.phase.combiner.after_step(self._losses, self._state)
        self.clear_gradients()
        self._advance()

    def _advance(self) -> None:
        """One step is done: look where a rung is, go on to the next phase where this one is over."""
        self.done += 1
        self._left[0] = (self.phase, self._left[0][1] - 1)
        for look in self._callbacks.get(self.done, ()):
            # an earlier look may have ended it
            if self.finished:
                break
            self.base.trainable.activate([self.adapter_index])
            # at its end there is nothing left to be stopped, and an edit may be due
            self.stopped = look() and any(steps for _, steps in self._left)
        self._start_phase()

    def _direction(self, again: Callable[[Objective | None, bool], object]) -> Weights:
        combiner = self.phase.combiner
        if not combiner.needs_probes:
            return combiner.direction(self._gradients, self._state)
        scale = self._scaler.get_scale()
        kept, watched = self._gradients, self._losses

        def probe(objective: Objective | None = None, *, exact: bool = False) -> Mapping[Objective, Weights]:
            self._gradients, self._losses = {}, {}
            with torch.enable_grad():
                again(objective, exact)
            found, self._gradients, self._losses = self._gradients, kept, watched
            return {objective: {n: g / scale for n, g in one.items()} for objective, one in found.items()}

        here = {objective: {n: g / scale for n, g in one.items()} for objective, one in kept.items()}
        with torch.no_grad():
            found = combiner.direction_with_probes(here, probe, self.parameters, self._state)
        return {name: grad * scale for name, grad in found.items()}

    def _ground(self) -> StepContext:
        return StepContext(self.reference, self.parameters, self._state, self.size, self.seed, self.done)

    def _roll(self, rollout: Rollout) -> None:
        self.base.trainable.activate([self.adapter_index])
        written, numbers = rollout.draw(self._ground(), rollout.every * self.size)
        pools = self.reference.pools.rows
        rows = {role: written if role == ROLLED else pools[role] for role in self.phase.roles}
        lengths = np.cumsum([0, *(len(some) for some in rows.values())]).tolist()
        first = dict(zip(rows, lengths, strict=False))
        self._rolled = _Rolled(Stack([row for some in rows.values() for row in some], self.base.device), first, numbers)
        # what was just written is gone through in order
        self._draws[ROLLED] = iter(np.arange(rollout.every * self.size).reshape(rollout.every, -1).tolist())

    def _prepare_inputs(self, phase: Phase) -> None:
        """Have the rows and the base model's numbers that a phase reads."""
        for role in dict.fromkeys((*phase.roles, *phase.reads)):
            if role == ROLLED:
                continue
            try:
                self.reference.ensure(role, phase.sources.get(role))
            except InputError as error:
                raise InputError(f"{type(self.method).__name__} {error}") from error
            if role in phase.roles:
                self.reference.prepare(role, phase.needs(role), phase.hidden_at(role), max(self.size, 64))

    def _steps_of(self, phase: Phase, every: int) -> int:
        """Steps of a phase where all phases have `every` with all forget rows."""
        if phase.edit is not None:
            return phase.edit.rounds
        drawn = 1.0 if phase.only is None else len(phase.only) / len(self.reference.pools.rows["forget"])
        return round(phase.step_fraction * every * drawn)

    def _rows_of(self, phase: Phase) -> int:
        """Rows that go forward and backward in a step."""
        pools = self.reference.pools.rows
        if phase.edit is not None:
            return round(phase.edit.passes * (len(pools["forget"]) + len(pools["retain"])))
        return 2 * self.size

    def clear_gradients(self) -> None:
        """Drop gradients, and what was summed up beside them."""
        self._gradients, self._losses = {}, {}
        for parameter in self.parameters.values():
            parameter.grad = None

    def finalize(self) -> None:
        """Put the result where the method says it lies, if training went to its end."""
        if self.stopped or self.error:
            return
        scope = self.base.trainable
        if self.method.loads_retrained:
            scope.load(self._retrained(), 1.0, self.adapter_index)
        if self.method.mix != 1.0:
            scope.load(scope.snapshot(self.adapter_index), self.method.mix, self.adapter_index)

    def _start_phase(self) -> None:
        """Set the next phase up where one is due."""
        while self._left and self._left[0][1] == 0:
            self._left.pop(0)
        if not self._left or getattr(self, "phase", None) is self._left[0][0]:
            return
        self.phase, steps = self._left[0]
        self.parameters = self._select_parameters()
        self._moved |= set(self.parameters)
        self._since, self._rolled, self._draws = 0, _Rolled(), {}
        if self.phase.edit is not None:
            return
        self._optimiser = torch.optim.AdamW(
            self.parameters.values(),
            lr=self.method.lr * self.phase.phase_lr_multiplier,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: schedule(step, steps))
        for role in self.phase.roles:
            # rollouts are gone through as they are written
            self._draws[role] = iter(()) if role == ROLLED else _draw(self._drawn(role), self.size, role, self.seed)

    def _drawn(self, role: Role) -> Sequence[int]:
        """The rows of a role that this phase draws from."""
        if self.phase.only is not None and objective_of(role) == "forget":
            return self.phase.only
        return range(len(self.reference.pools.rows[role]))

    def _retrained(self) -> Weights:
        folder = self.reference.pools.retrained
        everything = {name for name, _ in self.base.model.named_parameters()}
        if folder is None or set(self.base.trainable.parameters(self.adapter_index)) != everything:
            raise InputError("needs a model that the task brings, and --train full")
        return read_model(Path(folder))

    @torch.no_grad()
    def _filter(self, before: Weights) -> None:
        update = {name: self.parameters[name] - old for name, old in before.items()}
        for one in sorted(self.phase.filters, key=lambda one: one.runs_last):
            moments = (
                {name: self._optimiser.state[p]["exp_avg_sq"] for name, p in self.parameters.items()}
                if one.needs_second_moments
                else {}
            )
            update = one(update, UpdateInputs(self._gradients, moments, self._state))
        for name, old in before.items():
            self.parameters[name].copy_(old + update[name])

    def _select_parameters(self) -> dict[str, torch.nn.Parameter]:
        scope = self.base.trainable
        parameters = {
            n: p for n, p in scope.parameters(self.adapter_index).items() if self.phase.moves(scope.base_name(n))
        }
        if not parameters:
            raise InputError(
                f"no parameter of this model matches {self.phase.trains!r}; the method does not fit its architecture"
                " or what --train lets move"
            )
        return parameters
