"""The one training loop: batches -> method -> step -> report, for one configuration or several over one frozen base.

Everything that depends on the base model alone (`BaseStatistics`) is computed once per task and kept; a trial pays for
its own optimiser steps and nothing else.
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
    """Train `base.model` in place from the base parameters; return the number of steps done.

    Raises DivergedError where a loss stops being finite, InputError where the task lacks rows the method needs.
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
    each: Callable[[], object] = lambda: None,
) -> None:
    """Train several configurations, each on its own member, rows and rate, in the same passes over the frozen base.

    deadline: of `time.monotonic()`; TimeoutError at the first step after it. each: is called after every step.
    A run that diverges or is stopped leaves the others alone: parameters and rows are disjoint.
    """
    # runs that go on from their middle have their draws from there
    if not any(run.done for run in runs):
        torch.manual_seed(hashing.derive_seed("dropout", *(run.seed for run in runs)))
    try:
        while active := [run for run in runs if not run.finished]:
            if deadline is not None and time.monotonic() > deadline:
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
            each()
    finally:
        for run in runs:
            run.clear_gradients()
        base.model.requires_grad_(True)
    for run in runs:
        run.finalize()


def _step(base: Base, runs: Sequence[Run], engine: Engine) -> None:
    # a model that writes rows computes then as it does when it is trained on them
    with engine.precision(base.device):
        picked = [run.draw() for run in runs]

    def work(size: int) -> Tensor:
        total = torch.zeros(len(runs), device=base.device)
        for start in range(0, runs[0].size, size):
            some = [{role: index[start : start + size] for role, index in one.items()} for one in picked]
            total += _objective_gradients(base, runs, some, engine)
        return total

    def undo() -> None:
        for run in runs:
            run.clear_gradients()

    total = engine.fitting(runs[0].size, work, undo)

    def again(run: Run, mine: RowIndices, objective: Objective | None, exact: bool) -> Tensor:
        base.trainable.activate([run.adapter_index])
        rows = {role: index for role, index in mine.items() if objective in (None, objective_of(role))}
        some = [
            {role: index[start : start + size] for role, index in rows.items()} for start in range(0, run.size, size)
        ]
        how = replace(engine, autocast=None) if exact else engine
        return torch.stack([_objective_gradients(base, [run], [one], how) for one in some]).sum(0)

    size = min(engine.rows or runs[0].size, runs[0].size)
    norms = torch.stack(
        [run.prepare_gradients(partial(again, run, mine)) for run, mine in zip(runs, picked, strict=True)]
    )
    # one wait for the device per step, for all runs and both numbers
    for run, finite in zip(runs, torch.isfinite(total + norms.to(total)).tolist(), strict=True):
        run.apply_step(finite)


def _objective_gradients(base: Base, runs: Sequence[Run], picked: Sequence[RowIndices], engine: Engine) -> Tensor:
    """Gradients of some rows of each run, side by side where a run wants it; the (runs,) losses, detached."""
    if not any(run.phase.separate_passes for run in runs):
        return _gradients(base, runs, picked, engine, None)
    total = torch.zeros(len(runs), device=base.device)
    for objective in OBJECTIVES:
        mine = [{role: index for role, index in one.items() if objective_of(role) == objective} for one in picked]
        some = [k for k, one in enumerate(mine) if one]
        # what an adversary finds, or a model writes, is of one run's parameters
        alone = any(runs[k].phase.single_config_only for k in some)
        for group in [[k] for k in some] if alone else [some]:
            members = [runs[k] for k in group]
            base.trainable.activate([run.adapter_index for run in members])
            total[group] += _gradients(base, members, [mine[k] for k in group], engine, objective)
            for run in members:
                run.store_gradients(objective)
    return total


def _gradients(
    base: Base, runs: Sequence[Run], picked: Sequence[RowIndices], engine: Engine, objective: Objective | None = None
) -> Tensor:
    """Add the gradients of some rows of each run; return the (runs,) losses, detached. side: whose rows they are, if of one.

    Where rows do not need each other, each pass's activations are gone before the next pass makes its own.
    """
    if not runs:
        return torch.zeros(0, device=base.device)
    index, order = _merge_rows_by_length(runs, picked)
    cuts = chunks(runs[0].stack.length[index].max(axis=0), engine.overhead(base.device) // len(runs))

    def part(some: Sequence[Counts]) -> Tensor:
        with engine.precision(base.device):
            passes = [(_pass(base, runs, index[:, cut], objective), cut) for cut in some]
        return _backward([_roles(one, order[k], passes, k) for k, one in enumerate(picked)], runs, base.device)

    row_separable = all(run.phase.row_separable for run in runs)
    return torch.stack([part(some) for some in ([[cut] for cut in cuts] if row_separable else [cuts])]).sum(0)


def _merge_rows_by_length(runs: Sequence[Run], picked: Sequence[RowIndices]) -> tuple[Counts, Counts]:
    """(runs, N) rows of all roles in order of their lengths, and where each stood in the draw."""
    stack, first = runs[0].stack, runs[0].offsets
    flat = [np.concatenate([index + first[role] for role, index in one.items()]) for one in picked]
    most = max(map(len, flat))
    # a run with fewer rows is filled up with its first, which nobody reads
    index = np.stack([np.concatenate([some, np.repeat(some[:1], most - len(some))]) for some in flat])
    order = np.argsort(stack.length[index], axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1), order


def _pass(base: Base, runs: Sequence[Run], index: Counts, objective: Objective | None) -> Pass:
    """A pass over (runs, n) rows, equally many of every run."""
    hidden_at = sorted({layer for run in runs for layer in run.phase.layers})
    logits = any(run.phase.needs_logits for run in runs)
    batch = runs[0].stack.batch(index.reshape(-1))
    adversary = runs[0].phase.adversary if objective == "forget" else None
    if adversary is None:
        return Pass(base.model, batch, hidden_at=hidden_at, logits=logits, rows_stay=len(runs) > 1)
    changed, during = adversary.against(base.model, batch, runs[0].state)
    with during():
        return Pass(base.model, changed, hidden_at=hidden_at, logits=logits)


def _backward(
    found: Sequence[tuple[dict[Role, Forward], RowIndices]], runs: Sequence[Run], device: torch.device
) -> Tensor:
    """Gradients of what passes gave for each run; the (runs,) losses, detached."""
    losses = [run.losses(forwards, rows) for run, (forwards, rows) in zip(runs, found, strict=True)]
    scaled = [run.scaled(loss) for run, mine in zip(runs, losses, strict=True) for loss in mine.values()]
    torch.stack(scaled).sum().backward()
    nothing = torch.zeros((), device=device)
    return torch.stack([sum((loss.detach() for loss in mine.values()), nothing) for mine in losses])


def _roles(
    picked: RowIndices, order: Counts, passes: Sequence[tuple[Pass, Counts]], run: int
) -> tuple[dict[Role, Forward], RowIndices]:
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
    wanted = {id(parameter) for run in runs for parameter in run.parameters.values()}
    for parameter in base.model.parameters():
        if parameter.requires_grad != (id(parameter) in wanted):
            parameter.requires_grad_(id(parameter) in wanted)
