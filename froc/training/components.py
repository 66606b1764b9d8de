"""Parts of a training step beside its loss terms: combiners, update filters, adversaries, edits, rollouts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from froc.models.batches import Batch, Encoded
from froc.training.base_statistics import BaseStatistics
from froc.training.terms import Objective, State, Weights

PassContext = Callable[[], AbstractContextManager[None]]
"""What is held while the model is passed through."""


Recompute = Callable[[Objective | None, bool], object]
"""Repeats a step's passes at what the parameters hold now: of both objectives or one; exact: without autocast."""


class GradientProbe(Protocol):
    """Takes a step's gradients again, at what the parameters hold when it is called."""

    def __call__(self, objective: Objective | None = None, *, exact: bool = False) -> Mapping[Objective, Weights]:
        """Each side's over the whole batch, or one side's. exact: without autocast, for gradients that are to be subtracted."""


class Combiner:
    """How the losses of the two sides become one gradient: their sum, which subclasses weigh or replace.

    split: whether it reads each side's gradient. probes: whether it takes gradients at other parameters, too (`direction_with_probes`).
    watches: whether `after_step` reads losses.
    """

    needs_gradients: ClassVar[bool] = False
    needs_probes: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = False

    @property
    def n_extra_gradients(self) -> float:
        """How often it calls `gradients` in a step; for one side alone counts half."""
        return 0.0

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """Factor of a side in this step, 1 where none is given; constant within an optimiser step."""
        return {}

    def direction(self, gradients: Mapping[Objective, Weights], state: State) -> Weights:
        """The gradient that the optimiser sees, from each side's over the whole batch, which are without the factors."""
        for objective, factor in self.weights(state).items():
            gradients = {
                **gradients,
                objective: {name: factor * grad for name, grad in gradients.get(objective, {}).items()},
            }
        found: Weights = {}
        for one in gradients.values():
            for name, grad in one.items():
                found[name] = found[name] + grad if name in found else grad
        return found

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """`direction` of a combiner that probes. gradients: of the same rows, at what `parameters` holds when it is called.

        `parameters` may be written to, and must hold its values again afterwards.
        """
        return self.direction(gradients, state)

    def on_search_losses(
        self, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float], state: State
    ) -> bool:
        """Search losses by risk, (n,) whole thousandths, at each of the method's `looks`; True where training is done."""
        return False

    def after_step(self, losses: Mapping[Objective, Tensor], state: State) -> None:
        """Once per optimiser step: losses of the sides over its whole batch, without the factors of `weights`."""


@dataclass(frozen=True)
class UpdateInputs:
    """What an optimiser step was made of. sides: each side's gradient, where they are kept; moments: AdamW's second ones."""

    gradients: Mapping[Objective, Weights]
    second_moments: Weights
    state: State


class UpdateFilter(ABC):
    """Changes the update that the optimiser made. split: whether it reads each side's gradient; moments: AdamW's second ones.

    last: whether it comes after those that do not say so, whatever a wrapper adds: what it freezes stays frozen.
    """

    needs_gradients: ClassVar[bool] = False
    needs_second_moments: ClassVar[bool] = False
    runs_last: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """parameter name -> change, of the same shapes."""


@dataclass(frozen=True)
class Adversary(ABC):
    """Makes the model remember while the forget side's loss is taken.

    steps: that finding it takes for each step of training; each is a pass forward and backward over the forget rows.
    """

    steps: int

    @abstractmethod
    def against(self, model: PreTrainedModel, batch: Batch, state: State) -> tuple[Batch, PassContext]:
        """The batch to be passed, and what holds during the pass. Parameters and their gradients are left alone."""


@dataclass(frozen=True)
class StepContext:
    """Where an edit or a rollout stands. reference: the model, its rows, the base's numbers; moving: name -> parameter.

    size: rows per pass. seed: of this trial. step: steps done in this run.
    """

    reference: BaseStatistics
    parameters: Mapping[str, Parameter]
    state: State
    batch_size: int
    seed: int
    step: int


class Edit(ABC):
    """A step that writes the parameters itself.

    rounds: how many such steps. passes: forward and backward passes over all forget and retain rows that each takes; what a survey
    has found costs nothing.
    """

    @property
    def rounds(self) -> int:
        """See above."""
        return 1

    @property
    def passes(self) -> float:
        """See above."""
        return 0.0

    @abstractmethod
    def __call__(self, step_context: StepContext) -> None:
        """Write `step_context.parameters` in place."""


class Rollout(ABC):
    """Rows of the role `rollout`, written by the model as it stands. every: steps between two draws; passes: what a row costs."""

    every: int

    @property
    @abstractmethod
    def passes(self) -> float:
        """Forward and backward passes over as many tokens that writing a row takes, per step."""

    @abstractmethod
    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        """`count` rows, and numbers by name, (count, ...), which terms of the role read by that name."""


def dot(one: Weights, other: Weights) -> Tensor:
    """Inner product over all parameters that both have; 0 where there is none."""
    shared = [(one[name] * other[name]).sum(dtype=torch.float64) for name in one if name in other]
    return torch.stack(shared).sum() if shared else torch.zeros((), dtype=torch.float64)
