"""Parts of a training step other than loss terms: combiners, update filters, adversaries, edits, rollouts."""

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
from froc.models.process_group import whole
from froc.training.base_statistics import BaseStatistics
from froc.training.terms import Objective, State, Weights

PassContext = Callable[[], AbstractContextManager[None]]
"""Makes the context manager under which an attacked pass runs."""


Recompute = Callable[[Objective | None, bool], object]
"""Repeats a step's passes at the parameters' current values: (objective or None for both, exact: without autocast)."""


class GradientProbe(Protocol):
    """Computes a step's gradients again, at the parameters' current values."""

    def __call__(self, objective: Objective | None = None, *, exact: bool = False) -> Mapping[Objective, Weights]:
        """Gradients over the whole batch, of both objectives or one. exact: without autocast, for gradients that will be subtracted."""


class Combiner:
    """How the forget and the retain objective become one gradient: their sum, which subclasses weight or replace.

    needs_gradients: it reads each objective's gradient.
    needs_probes: it also computes gradients at other parameter values (`direction_with_probes`).
    needs_losses: `after_step` reads the losses.
    needs_progress: `weights` reads `state["progress"]`, the fraction of the phase's steps that are done, in [0, 1).
    """

    needs_gradients: ClassVar[bool] = False
    needs_probes: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = False
    needs_progress: ClassVar[bool] = False

    @property
    def n_extra_gradients(self) -> float:
        """Extra gradient computations per step, in units of both objectives; a call for one objective counts half."""
        return 0.0

    def weights(self, state: State) -> Mapping[Objective, float | Tensor]:
        """Factor of each objective's loss in this step, 1 where none is returned; constant within an optimiser step."""
        return {}

    def direction(self, gradients: Mapping[Objective, Weights], state: State) -> Weights:
        """The gradient for the optimiser. gradients: of each objective over the whole batch, before its factor."""
        for objective, factor in self.weights(state).items():
            gradients = {
                **gradients,
                objective: {name: factor * grad for name, grad in gradients.get(objective, {}).items()},
            }
        total: Weights = {}
        for side in gradients.values():
            for name, grad in side.items():
                total[name] = total[name] + grad if name in total else grad
        return total

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """`direction` of a combiner with `needs_probes`.

        probe: computes gradients of the same rows at the current values of `parameters`.
        parameters: may be written to, and must be restored bit by bit before returning.
        """
        return self.direction(gradients, state)

    def on_search_losses(
        self, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float], state: State
    ) -> bool:
        """Called at each of the method's `n_feedback_evals`; return True to end training.

        losses: risk -> (n,) search losses in thousandths.
        budgets: risk -> largest allowed risk.
        """
        return False

    def after_step(self, losses: Mapping[Objective, Tensor], state: State) -> None:
        """Called after each optimiser step. losses: of each objective over the whole batch, before its factor."""


@dataclass(frozen=True)
class UpdateInputs:
    """The inputs of an optimiser step.

    gradients: of each objective, where kept.
    second_moments: AdamW's, where requested.
    state: kept between steps and in checkpoints.
    """

    gradients: Mapping[Objective, Weights]
    second_moments: Weights
    state: State


class UpdateFilter(ABC):
    """Changes the optimiser's update.

    needs_gradients, needs_second_moments: which fields of `UpdateInputs` it reads.
    runs_last: run after all other filters, so that a freeze cannot be undone.
    """

    needs_gradients: ClassVar[bool] = False
    needs_second_moments: ClassVar[bool] = False
    runs_last: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """parameter name -> filtered change, of the same shapes. update: the realised change of the step."""


@dataclass(frozen=True)
class Adversary(ABC):
    """Perturbs the forget rows' passes so that the model remembers; the forget loss is computed under the perturbation.

    steps: inner optimisation steps per training step, each one forward and backward over the forget rows.
    """

    steps: int

    @abstractmethod
    def against(self, model: PreTrainedModel, batch: Batch, state: State) -> tuple[Batch, PassContext]:
        """The perturbed batch, and the context under which its pass runs. Parameters and their gradients must not change."""


@dataclass(frozen=True)
class StepContext:
    """What an edit or a rollout works with.

    reference: the model, its rows and the base model's numbers.
    parameters: name -> trained parameter.
    state: kept between steps and in checkpoints.
    batch_size: rows per pass.
    seed: of this trial.
    step: steps done in this run.
    """

    reference: BaseStatistics
    parameters: Mapping[str, Parameter]
    state: State
    batch_size: int
    seed: int
    step: int


class Edit(ABC):
    """A step that writes the parameters itself; a phase has either an edit or gradient steps."""

    @property
    def rounds(self) -> int:
        """Number of edit steps."""
        return 1

    @property
    def passes(self) -> float:
        """Equivalent forward and backward passes over all forget and retain rows per step; base-model queries cost nothing."""
        return 0.0

    @abstractmethod
    def __call__(self, step_context: StepContext) -> None:
        """Write `step_context.parameters` in place."""


class Rollout(ABC):
    """Rows of the role `rollout`, written by the model at its current parameters. every: steps between two draws."""

    every: int

    @property
    @abstractmethod
    def passes(self) -> float:
        """Cost of writing a step's rows, in forward and backward passes over as many tokens."""

    @abstractmethod
    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        """`count` rows, and name -> (count, ...) numbers that terms of the role read."""


def dot(a: Weights, b: Weights) -> Tensor:
    """() inner product over the parameters in both; 0 where there is none."""
    shared = [whole((a[name] * b[name]).sum(dtype=torch.float64)) for name in a if name in b]
    # parameters may lie on several devices
    return (
        torch.stack([part.to(shared[0].device) for part in shared]).sum()
        if shared
        else torch.zeros((), dtype=torch.float64)
    )
