"""The training loop: passes, gradients and steps of one configuration, or of several over one frozen base.

What depends on the base model only (`BaseStatistics`) is computed once per task.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from froc import hashing
from froc.models.base import Base
from froc.models.batches import Counts, chunks
from froc.models.compute import Engine
from froc.models.forward import Forward, Pass
from froc.models.process_group import decided_by_first
from froc.training.base_statistics import BaseStatistics, Role
from froc.training.method import Method
from froc.training.run import DivergedError, RowIndices, Run, StepCallback
from froc.training.terms import OBJECTIVES, Objective, objective_of


def unlearn(
    base: Base,
    method: Method,
    reference: BaseStatistics,
    *,
    batch: int,
    seed: int,
    callbacks: Mapping[int, StepCallback] | None = None,
    engine: Engine | None = None,
) -> int:
    """Train `base.model` in place from the base parameters; returns the number of steps done.

    batch: forget rows per step.
    seed: of row order and adapters.
    callbacks: step -> called after it; see `StepCallback`.

    DivergedError where a loss is not finite, InputError where the task lacks rows that the method needs.
    """
    engine = engine or Engine()
    run = Run(method, reference, batch=batch, seed=seed, callbacks=callbacks, engine=engine)
    train_pack(base, [run], engine)
    if run.error:
        raise DivergedError(run.error)
    return run.done


def train_pack(
    base: Base,
    runs: Sequence[Run],
    engine: Engine,
    deadline: float | None = None,
    after_step: Callable[[], object] = lambda: None,
) -> None:
    """Train several configurations in the same passes over the frozen base, each with its own adapter, rows and learning rate.

    deadline: on the clock of `time.monotonic()`; TimeoutError at the first step after it.
    after_step: called after every step.

    A run that diverges or is stopped does not affect the others: their parameters and rows are disjoint.
    """
    # a run continued from a checkpoint has restored torch's random state
    if not any(run.done for run in runs):
        torch.manual_seed(hashing.derive_seed("dropout", *(run.seed for run in runs)))
    try:
        while active := [run for run in runs if not run.finished]:
            if deadline is not None and decided_by_first(time.monotonic() > deadline):
                raise TimeoutError
            for run in active:
                if run.phase.edit is not None:
                    _freeze(base, [run])
                    base.trainable.activate([run.adapter_index])
                    run.edit()
            training = [run for run in active if not run.finished and run.phase.edit is None]
            if training:
                _freeze(base, training)
                base.trainable.activate([run.adapter_index for run in training])
                _step(base, training, engine)
            after_step()
    finally:
        for run in runs:
            run.close()
        base.model.requires_grad_(True)
    for run in runs:
        run.finalize()


def _step(base: Base, runs: Sequence[Run], engine: Engine) -> None:
    """One optimiser step of every run."""
    # rollouts are generated under training's autocast
    with engine.precision(base.device):
        picked = [run.draw() for run in runs]
    batch_size = runs[0].batch_size

    def passes(size: int) -> Tensor:
        total = torch.zeros(len(runs), device=base.device)
        for start in range(0, batch_size, size):
            total += _accumulate(base, runs, [_slice(rows, start, size) for rows in picked], engine)
        return total

    def undo() -> None:
        for run in runs:
            run.optimiser.clear_gradients()

    total = engine.fitting(batch_size, passes, undo)
    size = min(engine.rows or batch_size, batch_size)

    def recompute(run: Run, drawn: RowIndices, objective: Objective | None, exact: bool) -> Tensor:
        base.trainable.activate([run.adapter_index])
        rows = {role: index for role, index in drawn.items() if objective in (None, objective_of(role))}
        parts = [_slice(rows, start, size) for start in range(0, run.batch_size, size)]
        precision = replace(engine, autocast=None) if exact else engine
        return torch.stack([_accumulate(base, [run], [part], precision) for part in parts]).sum(0)

    norms = torch.stack(
        [run.prepare_gradients(partial(recompute, run, rows)) for run, rows in zip(runs, picked, strict=True)]
    )
    # one synchronisation with the device per step
    for run, finite in zip(runs, torch.isfinite(total + norms.to(total)).tolist(), strict=True):
        run.apply_step(finite)


def _slice(rows: RowIndices, start: int, size: int) -> RowIndices:
    return {role: index[start : start + size] for role, index in rows.items()}


def _accumulate(base: Base, runs: Sequence[Run], picked: Sequence[RowIndices], engine: Engine) -> Tensor:
    """Add the gradients of these rows of each run, objective by objective where a run needs that; (runs,) detached losses."""
    if not any(run.phase.separate_passes for run in runs):
        return _accumulate_rows(base, runs, picked, engine)
    total = [torch.zeros((), device=base.device)] * len(runs)
    for objective in OBJECTIVES:
        rows = [{role: index for role, index in drawn.items() if objective_of(role) == objective} for drawn in picked]
        present = [k for k, drawn in enumerate(rows) if drawn]
        # an adversary's perturbation, and rollout rows, belong to one run's parameters
        alone = any(runs[k].phase.single_config_only for k in present)
        for group in [[k] for k in present] if alone else [present]:
            group_runs = [runs[k] for k in group]
            base.trainable.activate([run.adapter_index for run in group_runs])
            losses = _accumulate_rows(base, group_runs, [rows[k] for k in group], engine, objective)
            # as one sum over indices, it would wait for the device
            for k, loss in zip(group, losses.unbind(), strict=True):
                total[k] = total[k] + loss
            for run in group_runs:
                run.optimiser.store_gradients(objective)
    return torch.stack(total)


def _accumulate_rows(
    base: Base, runs: Sequence[Run], picked: Sequence[RowIndices], engine: Engine, objective: Objective | None = None
) -> Tensor:
    """Add the gradients of these rows of each run; (runs,) detached losses. objective: of all rows, or None if mixed.

    Where rows are separable, each pass's activations are freed before the next pass.
    """
    if not runs:
        return torch.zeros(0, device=base.device)
    index, order = _merge_rows_by_length(runs, picked)
    cuts = chunks(runs[0].stack.length[index].max(axis=0), engine.overhead(base.device) // len(runs))

    def backward(group: Sequence[Counts]) -> Tensor:
        with engine.precision(base.device):
            passes = [(_pass(base, runs, index[:, cut], objective), cut) for cut in group]
        return _backward([_by_role(rows, order[k], passes, k) for k, rows in enumerate(picked)], runs, base.device)

    separable = all(run.phase.row_separable for run in runs)
    return torch.stack([backward(group) for group in ([[cut] for cut in cuts] if separable else [cuts])]).sum(0)


def _merge_rows_by_length(runs: Sequence[Run], picked: Sequence[RowIndices]) -> tuple[Counts, Counts]:
    """(runs, N) stack indices of all roles' rows, sorted by length, and (runs, N) their positions in drawn order."""
    stack, offsets = runs[0].stack, runs[0].offsets
    flat = [np.concatenate([index + offsets[role] for role, index in rows.items()]) for rows in picked]
    longest = max(map(len, flat))
    # a run with fewer rows is padded with copies of its first, whose results are not read
    index = np.stack([np.concatenate([rows, np.repeat(rows[:1], longest - len(rows))]) for rows in flat])
    order = np.argsort(stack.length[index], axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1), order


def _pass(base: Base, runs: Sequence[Run], index: Counts, objective: Objective | None) -> Pass:
    """A pass over (runs, n) rows, n of every run."""
    hidden_at = sorted({layer for run in runs for layer in run.phase.layers})
    logits = any(run.phase.needs_logits for run in runs)
    batch = runs[0].stack.batch(index.reshape(-1))
    adversary = runs[0].phase.adversary if objective == "forget" else None
    if adversary is None:
        entry = runs[0].entry(index[0]) if len(runs) == 1 else None
        return Pass(base.model, batch, hidden_at=hidden_at, logits=logits, rows_stay=len(runs) > 1, entry=entry)
    attacked, perturbed = adversary.against(base.model, batch, runs[0].state)
    with perturbed():
        return Pass(base.model, attacked, hidden_at=hidden_at, logits=logits)


def _backward(
    results: Sequence[tuple[dict[Role, Forward], RowIndices]], runs: Sequence[Run], device: torch.device
) -> Tensor:
    """Backward pass over all runs' losses; (runs,) detached losses. results: per run, role -> forward results, and its rows."""
    losses = [run.losses(forwards, rows) for run, (forwards, rows) in zip(runs, results, strict=True)]
    scaled = [run.optimiser.scaled(loss) for run, own in zip(runs, losses, strict=True) for loss in own.values()]
    torch.stack(scaled).sum().backward()
    zero = torch.zeros((), device=device)
    return torch.stack([sum((loss.detach() for loss in own.values()), zero) for own in losses])


def _by_role(
    picked: RowIndices, order: Counts, passes: Sequence[tuple[Pass, Counts]], run: int
) -> tuple[dict[Role, Forward], RowIndices]:
    """One run's forward results by role, and their rows.

    order: drawn position of each row in sorted order.
    passes: each with the sorted positions that it covers.
    """
    forwards: dict[Role, Forward] = {}
    rows: dict[Role, Counts] = {}
    start = 0
    for role, index in picked.items():
        segments = []
        for part, cut in passes:
            drawn = order[cut] - start
            own = np.flatnonzero((drawn >= 0) & (drawn < len(index)))
            if len(own):
                segments.append((part, own + run * len(cut), drawn[own]))
        if segments:
            forwards[role] = Forward(segments)
            rows[role] = index[np.sort(np.concatenate([drawn for _, _, drawn in segments]))]
        start += len(index)
    return forwards, rows


def _freeze(base: Base, runs: Sequence[Run]) -> None:
    trained = {id(parameter) for run in runs for parameter in run.parameters.values()}
    for parameter in base.model.parameters():
        if parameter.requires_grad != (id(parameter) in trained):
            parameter.requires_grad_(id(parameter) in trained)
