"""One configuration in training: its phases, rows, parameters and optimiser.

The loop (`froc.training.loop`) decides which passes a step consists of.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from froc.errors import FrocError, InputError
from froc.models.base import read_model
from froc.models.batches import Counts, Stack
from froc.models.block_entry import Entry, frozen_blocks
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.training.base_statistics import BaseStatistics, Role, method_context
from froc.training.components import Recompute, StepContext
from froc.training.entry_states import places_of
from froc.training.method import Method
from froc.training.optimiser import PhaseOptimiser
from froc.training.phase import Phase
from froc.training.rollout_rows import ROLLOUT, RolloutRows, in_order
from froc.training.schedule import TrainingLength, draw_rows
from froc.training.terms import Objective, Weights, objective_of

StepCallback = Callable[[], bool]
"""Called after a step; True stops training there (a hopeless trial)."""
RowIndices = Mapping[Role, Counts]
"""role -> (B,) indices of rows within the role."""


class DivergedError(FrocError):
    """A loss or a parameter is no longer finite."""


class Run:
    """One configuration in training.

    steps: total number of optimiser steps and edit rounds.
    done: number done so far.
    rows: total number of rows that go forward and backward.
    batch_size: forget rows per step.
    stopped: whether a callback ended training.
    error: why training cannot continue, or "".
    """

    def __init__(
        self, method: Method, reference: BaseStatistics, *, batch: int, seed: int, adapter_index: int = 0, engine: Engine,
        callbacks: Mapping[int, StepCallback] | None = None,
    ) -> None:  # fmt: skip
        self.base, self.reference, self.method = reference.base, reference, method
        self.seed, self.adapter_index = seed, adapter_index
        self.done, self.stopped, self.error = 0, False, ""
        self.state: dict[str, Any] = {}
        self._callbacks: dict[int, list[StepCallback]] = {}
        self.add_callbacks(callbacks or {})
        self._rollout_rows: RolloutRows | None = None
        self._row_draws: dict[Role, Iterator[list[int]]] = {}
        self._phase_step = 0
        self._trained_names: set[str] = set()
        self.base.restore(seed, adapter_index)
        length = TrainingLength.of(method, len(reference.pools.rows["forget"]), batch)
        self.batch_size = length.batch
        phases = method.phases(method_context(reference, seed))
        for phase in phases:
            self._prepare_inputs(phase)
        self._remaining = [(phase, self._steps_of(phase, length.steps)) for phase in phases]
        self.steps = sum(steps for _, steps in self._remaining)
        self.rows = sum(steps * self._rows_of(phase) for phase, steps in self._remaining)
        self.optimiser = PhaseOptimiser(self.base.device, engine, seed)
        self._start_phase()

    @property
    def finished(self) -> bool:
        """Whether no step is left, or none can be taken."""
        return not self._remaining or self.stopped or bool(self.error)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """name -> parameter that the current phase trains."""
        return self.optimiser.parameters

    @property
    def changed_names(self) -> Collection[str]:
        """Names of the parameters that may differ from the base model's now."""
        if self.method.loads_retrained:
            return self.base.trainable.parameters(self.adapter_index)
        return sorted(self._trained_names)

    @property
    def stack(self) -> Stack:
        """The rows of all roles that it draws from."""
        return self._rollout_rows.stack if self._rollout_rows else self.reference.stack

    @property
    def offsets(self) -> Mapping[Role, int]:
        """role -> index of its first row in the stack."""
        return self._rollout_rows.offsets if self._rollout_rows else self.reference.offsets

    @property
    def can_checkpoint(self) -> bool:
        """True if a checkpoint taken now is complete; rollout rows are not saved, so wait until they are used up."""
        rollout = None if self.finished else self.phase.rollout
        return rollout is None or self._phase_step % rollout.every == 0

    def checkpoint(self) -> dict[str, Any]:
        """State for `restore`, between two steps; nothing is copied."""
        parameters = self.base.trainable.parameters(self.adapter_index)
        return {
            "weights": {name: parameters[name].detach() for name in sorted(self._trained_names)},
            "phases": len(self._remaining), "left": self._remaining[0][1] if self._remaining else 0,
            "since": self._phase_step,
            **self.optimiser.checkpoint(bool(self._remaining) and self.phase.edit is None),
            "state": self.state, "done": self.done, "stopped": self.stopped,
        }  # fmt: skip

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a checkpoint of the same configuration; this run must not have taken a step."""
        parameters = self.base.trainable.parameters(self.adapter_index)
        for name, value in saved["weights"].items():
            parameters[name].copy_(value)
        self._trained_names |= set(saved["weights"])
        self._remaining = self._remaining[len(self._remaining) - saved["phases"] :]
        self._start_phase()
        if self._remaining:
            self._remaining[0], self._phase_step = (self.phase, saved["left"]), saved["since"]
        if saved["optimiser"] is not None:
            for rows in (rows for role, rows in self._row_draws.items() if role != ROLLOUT):
                next(islice(rows, self._phase_step, self._phase_step), None)
        self.optimiser.restore(saved)
        self.state, self.done, self.stopped = saved["state"], saved["done"], saved["stopped"]

    def add_callbacks(self, callbacks: Mapping[int, StepCallback]) -> None:
        """Add callbacks, by step, after those that the step already has."""
        for step, callback in callbacks.items():
            self._callbacks.setdefault(step, []).append(callback)

    def close(self) -> None:
        """After the last step: drop the callbacks, which refer back to this run, and the optimiser's memory."""
        self._callbacks.clear()
        self.optimiser.release()

    def report_search_losses(self, losses: Mapping[str, Any], budgets: Mapping[str, float]) -> None:
        """Pass search losses to the combiner, which may end training here (see `Combiner.on_search_losses`)."""
        if self._remaining and self.phase.combiner.on_search_losses(losses, budgets, self.state):
            self._remaining = []

    def draw(self) -> RowIndices:
        """role -> (batch_size,) row indices of the next step."""
        rollout = self.phase.rollout
        if rollout is not None and self._phase_step % rollout.every == 0:
            self.base.trainable.activate([self.adapter_index])
            self._rollout_rows = RolloutRows.write(self.phase, self._step_context())
            self._row_draws[ROLLOUT] = in_order(rollout.every, self.batch_size)
        if self.phase.combiner.needs_progress:
            self.state["progress"] = self._phase_step / (self._phase_step + self._remaining[0][1])
        self._phase_step += 1
        return {role: np.array(next(rows), dtype=np.int64) for role, rows in self._row_draws.items()}

    def entry(self, index: Counts) -> Entry | None:
        """Where a pass over these (n,) stack rows begins, if some leading blocks stay the base model's; None for the embeddings."""
        if not self._entry_block:
            return None
        reference = self.reference
        return reference.entry_states.entry(
            self._entry_block, reference.pools.rows, places_of(index, reference.offsets)
        )

    def edit(self) -> None:
        """One round of the phase's edit, which writes the parameters itself."""
        assert self.phase.edit is not None
        self.phase.edit(self._step_context())
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters.values()):
            self.error = "the edit left parameters that are not finite"
            return
        self.optimiser.clear_gradients()
        self._advance()

    def losses(self, forwards: Mapping[Role, Forward], picked: RowIndices) -> dict[Objective, Tensor]:
        """objective -> () contribution of these rows to the mean loss over the batch, times the combiner's factor."""
        losses: dict[Objective, Tensor] = {}
        for part in self.phase.parts.values():
            role = part.term.role
            if role not in forwards:
                continue
            if role == ROLLOUT:
                assert self._rollout_rows is not None
                numbers = self._rollout_rows.lookup(picked[role])
            else:
                numbers = self.reference.lookup(role, part.needs, part.term.hidden_at, picked[role], forwards[role])
            loss = part.weight * part.losses(forwards[role], numbers, self.state).sum() / self.batch_size
            losses[part.objective] = losses[part.objective] + loss if part.objective in losses else loss
        self.optimiser.add_losses(losses)
        # separately kept gradients get their factor in `Combiner.direction`
        factors = {} if self.phase.keeps_gradients else self.phase.combiner.weights(self.state)
        return {key: loss * factors[key] if key in factors else loss for key, loss in losses.items()}

    def prepare_gradients(self, recompute: Recompute) -> Tensor:
        """See `PhaseOptimiser.prepare_gradients`."""
        return self.optimiser.prepare_gradients(recompute, self.state)

    def apply_step(self, finite: bool) -> None:
        """Take the optimiser's step, call the step's callbacks, and start the next phase at the end of this one."""
        self.error = self.optimiser.apply_step(finite, self.state)
        if not self.error:
            self._advance()

    def finalize(self) -> None:
        """Replace the trained parameters by the method's result, if training reached its end.

        That is the task's retrained model, or a mix of base and trained parameters (`Method.mix`).
        """
        if self.stopped or self.error:
            return
        trainable = self.base.trainable
        if self.method.loads_retrained:
            trainable.load(self._retrained(), 1.0, self.adapter_index)
        if self.method.mix != 1.0:
            trainable.load(trainable.parameters(self.adapter_index), self.method.mix, self.adapter_index)

    def _advance(self) -> None:
        self.done += 1
        self._remaining[0] = (self.phase, self._remaining[0][1] - 1)
        for callback in self._callbacks.get(self.done, ()):
            # an earlier callback may have ended training
            if self.finished:
                break
            self.base.trainable.activate([self.adapter_index])
            # without steps left nothing can be stopped
            self.stopped = callback() and any(steps for _, steps in self._remaining)
        self._start_phase()

    def _step_context(self) -> StepContext:
        return StepContext(self.reference, self.parameters, self.state, self.batch_size, self.seed, self.done)

    def _prepare_inputs(self, phase: Phase) -> None:
        """Make the rows and compute the base model's numbers that a phase reads."""
        for role in dict.fromkeys((*phase.roles, *phase.reads)):
            if role == ROLLOUT:
                continue
            try:
                self.reference.ensure(role, phase.sources.get(role))
            except InputError as error:
                raise InputError(f"{type(self.method).__name__} {error}") from error
            if role in phase.roles:
                self.reference.prepare(role, phase.needs(role), phase.hidden_at(role), max(self.batch_size, 64))

    def _steps_of(self, phase: Phase, steps: int) -> int:
        """Number of steps of a phase, where a phase over all of training and all forget rows has `steps`."""
        if phase.edit is not None:
            return phase.edit.rounds
        drawn = 1.0 if phase.only is None else len(phase.only) / len(self.reference.pools.rows["forget"])
        return round(phase.step_fraction * steps * drawn)

    def _rows_of(self, phase: Phase) -> int:
        """Rows that go forward and backward in a step."""
        pools = self.reference.pools.rows
        if phase.edit is not None:
            return round(phase.edit.passes * (len(pools["forget"]) + len(pools["retain"])))
        return 2 * self.batch_size

    def _start_phase(self) -> None:
        """Set up the next phase with steps left, unless it is already running."""
        while self._remaining and self._remaining[0][1] == 0:
            self._remaining.pop(0)
        if not self._remaining or getattr(self, "phase", None) is self._remaining[0][0]:
            return
        self.phase, steps = self._remaining[0]
        parameters = self._select_parameters()
        self._trained_names |= set(parameters)
        self._entry_block = self._first_block()
        self._phase_step, self._rollout_rows = 0, None
        lr = self.method.lr * self.phase.phase_lr_multiplier
        self.optimiser.start(self.phase, parameters, lr, steps)
        # rollout rows are used in the order in which they are written
        self._row_draws = {
            role: iter(()) if role == ROLLOUT else draw_rows(self._rows_of_role(role), self.batch_size, role, self.seed)
            for role in self.phase.roles
        }

    def _first_block(self) -> int:
        """The block at which this phase's passes may begin; 0 where they begin at the embeddings."""
        phase, reference = self.phase, self.reference
        if phase.edit is not None or phase.rollout is not None:
            return 0
        frozen = frozen_blocks(self.base.model, self.changed_names)
        # an adversary reads and changes what comes before; hidden states of earlier blocks have to be computed
        possible = phase.adversary is None and min(phase.layers, default=frozen) >= frozen - 1
        return frozen if frozen and possible and reference.entry_states.fit(reference.pools.rows, self.rows) else 0

    def _rows_of_role(self, role: Role) -> Sequence[int]:
        """Row indices of a role that the phase draws from."""
        if self.phase.only is not None and objective_of(role) == "forget":
            return self.phase.only
        return range(len(self.reference.pools.rows[role]))

    def _retrained(self) -> Weights:
        folder = self.reference.pools.retrained
        names = {name for name, _ in self.base.model.named_parameters()}
        if folder is None or set(self.base.trainable.parameters(self.adapter_index)) != names:
            raise InputError("needs a model that the task brings, and --train full")
        return read_model(Path(folder))

    def _select_parameters(self) -> dict[str, Parameter]:
        trainable = self.base.trainable
        parameters = {
            name: parameter
            for name, parameter in trainable.parameters(self.adapter_index).items()
            if self.phase.matches(trainable.base_name(name))
        }
        if not parameters:
            raise InputError(
                f"no parameter of this model matches {self.phase.trains!r}; the method does not fit its architecture"
                " or what --train lets move"
            )
        return parameters
