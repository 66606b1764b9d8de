"""One phase's optimiser: gradients, loss scaling, clipping, AdamW with its schedule, and update filters."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from froc.models.compute import Engine
from froc.training.adamw import adamw, second_moment
from froc.training.clipping import clip
from froc.training.components import Recompute, UpdateInputs
from froc.training.phase import Phase
from froc.training.schedule import schedule
from froc.training.terms import Objective, State, Weights

CLIP = 1.0
"""Largest norm of a step's gradient, over all trained parameters."""
SKIPS = 20
"""Largest number of consecutive steps skipped for an overflow while float16's loss scale is found."""


class PhaseOptimiser:
    """Turns the gradients of a step's passes into an update of the phase's parameters.

    parameters: name -> trained parameter of the current phase.

    The loss scale is kept across phases; everything else restarts with each phase.
    """

    def __init__(self, device: torch.device, engine: Engine, seed: int = 0) -> None:
        self._name, self._seed = engine.optimizer, seed
        self.parameters: dict[str, Parameter] = {}
        self._device = device
        self._gradients: dict[Objective, Weights] = {}
        self._losses: dict[Objective, Any] = {}
        self._skipped = 0
        self._moments: MutableMapping[Tensor, Any] = {}
        self._scaler = torch.amp.GradScaler(device.type, enabled=engine.autocast == torch.float16, init_scale=2.0**12)

    def start(self, phase: Phase, parameters: dict[str, Parameter], lr: float, steps: int) -> None:
        """Begin a phase of `steps` optimiser steps at peak learning rate `lr`, or an edit, which needs no optimiser."""
        self.release()
        self._phase, self.parameters = phase, parameters
        if phase.edit is not None:
            return
        self._adamw = adamw(parameters.values(), lr, self._name, self._seed)
        self._moments = self._adamw.state
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._adamw, lambda step: schedule(step, steps))

    def checkpoint(self, training: bool) -> dict[str, Any]:
        """State for `restore`, not copied. training: whether a phase with optimiser steps is under way."""
        return {
            "optimiser": self._adamw.state_dict() if training else None,
            "schedule": self._schedule.state_dict() if training else None,
            "scaler": self._scaler.state_dict(), "skipped": self._skipped,
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; its phase has been started."""
        if saved["optimiser"] is not None:
            self._adamw.load_state_dict(saved["optimiser"])
            self._moments = self._adamw.state
            self._schedule.load_state_dict(saved["schedule"])
        self._scaler.load_state_dict(saved["scaler"])
        self._skipped = saved["skipped"]

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times the loss scale, to be differentiated."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def add_losses(self, losses: Mapping[Objective, Tensor]) -> None:
        """Add the objectives' losses of a pass, for a combiner that reads them."""
        if self._phase.combiner.needs_losses:
            for objective, loss in losses.items():
                self._losses[objective] = self._losses.get(objective, 0.0) + loss.detach()

    def store_gradients(self, objective: Objective) -> None:
        """Move the parameters' gradients to an objective's, where the phase keeps them separately."""
        if not self._phase.keeps_gradients:
            return
        total = self._gradients.setdefault(objective, {})
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                total[name] = total[name] + parameter.grad if name in total else parameter.grad
                parameter.grad = None

    def clear_gradients(self) -> None:
        """Drop all gradients and accumulated losses."""
        self._gradients, self._losses = {}, {}
        for parameter in self.parameters.values():
            parameter.grad = None

    def release(self) -> None:
        """Drop gradients and moments; nothing can be trained before the next phase.

        Torch's optimiser and its schedule refer to each other, so their memory would stay until Python collects garbage.
        """
        self.clear_gradients()
        self._moments.clear()

    def prepare_gradients(self, recompute: Recompute, state: State) -> Tensor:
        """Combine, unscale and clip the gradients; returns their norm (), not finite where no step can be taken.

        recompute: repeats the passes over the step's rows, of both objectives or one, with or without autocast.
        """
        if self._phase.keeps_gradients:
            for name, grad in self._direction(recompute, state).items():
                # filters read the objectives' gradients afterwards, and clipping works in place
                self.parameters[name].grad = grad.clone()
        self._scaler.unscale_(self._adamw)
        return clip(self.parameters.values(), CLIP, self._device)

    def apply_step(self, finite: bool, state: State) -> str:
        """Take the optimiser's step and filter it, unless gradients are not finite; returns why training cannot continue, or ""."""
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (not self._scaler.is_enabled() or self._skipped > SKIPS):
            return "the training loss or its gradient is not finite"
        filtered = bool(self._phase.filters)
        old = {name: p.detach().clone() for name, p in self.parameters.items()} if filtered else {}
        self._scaler.step(self._adamw)
        self._scaler.update()
        self._schedule.step()
        if filtered and finite:
            self._filter(old, state)
        if self._phase.combiner.needs_losses and finite:
            self._phase.combiner.after_step(self._losses, state)
        self.clear_gradients()
        return ""

    def _direction(self, recompute: Recompute, state: State) -> Weights:
        combiner = self._phase.combiner
        if not combiner.needs_probes:
            return combiner.direction(self._gradients, state)
        scale = self._scaler.get_scale()
        kept, losses = self._gradients, self._losses

        def probe(objective: Objective | None = None, *, exact: bool = False) -> Mapping[Objective, Weights]:
            self._gradients, self._losses = {}, {}
            with torch.enable_grad():
                recompute(objective, exact)
            probed, self._gradients, self._losses = self._gradients, kept, losses
            return _divided(probed, scale)

        with torch.no_grad():
            combined = combiner.direction_with_probes(_divided(kept, scale), probe, self.parameters, state)
        return {name: grad * scale for name, grad in combined.items()}

    @torch.no_grad()
    def _filter(self, old: Weights, state: State) -> None:
        update = {name: self.parameters[name] - value for name, value in old.items()}
        for update_filter in sorted(self._phase.filters, key=lambda update_filter: update_filter.runs_last):
            moments: Weights = {}
            if update_filter.needs_second_moments:
                moments = {name: second_moment(self._adamw, p) for name, p in self.parameters.items()}
            update = update_filter(update, UpdateInputs(self._gradients, moments, state))
        for name, value in old.items():
            self.parameters[name].copy_(value + update[name])


def _divided(gradients: Mapping[Objective, Weights], scale: float) -> dict[Objective, Weights]:
    return {objective: {name: g / scale for name, g in grads.items()} for objective, grads in gradients.items()}
