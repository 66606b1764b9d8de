"""One training step in parts that compose. No method name appears here or in the training loop.

A method declares phases; a phase sums weighted *terms* (all minimised), each on the rows of one *role*. Slots:

* `Term`: per-row losses from one forward pass of its role; may ask for numbers of the base model (`needs`).
* `Weighter`: detached weights on a term's rows or tokens.
* `Combiner`: how the two sides, forget and retain, become one direction (their sum unless said otherwise).
* `UpdateFilter`: changes the realised optimiser step (projection, masking).
* `Adversary`: what is done to the forget side's passes so that they remember; the loss is taken under it.
* `Rollout`: rows that the model as it stands writes itself, with what they are worth.
* `trains`: which parameters may move. `Edit`: writes the parameters itself, in place of gradient steps.

Shapes: B rows, T tokens, N positions that predict an answer. Shift, mask and reduction happen in `froc.forward` and nowhere else.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from froc.batches import Batch, Encoded
from froc.forward import Forward
from froc.survey import Source

if TYPE_CHECKING:
    from froc.reference import Reference

Role = str
"""`forget`, `retain`, `refusal`, or another, whose rows a phase's source or rollout makes."""
Side = Literal["forget", "retain"]
SIDES: tuple[Side, ...] = ("forget", "retain")
Weights = dict[str, Tensor]
State = dict[str, Any]
Held = Callable[[], AbstractContextManager[None]]
"""What is held while the model is passed through."""


@dataclass(frozen=True)
class Term(ABC):
    """One summand of a loss.

    `role`: the rows it reads. `needs`: base-model numbers of these rows, handed to `losses` by name. `logits`: whether
    it reads likelihoods; where no term of a phase does, the pass ends at the last layer that some term reads.
    `alone`: whether a row's loss needs no other row, so that gradients may be taken pass by pass.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    logits: ClassVar[bool] = True
    alone: ClassVar[bool] = True
    role: Role

    @property
    def hidden_at(self) -> tuple[int, ...]:
        """Layers whose hidden states it reads."""
        return ()

    @abstractmethod
    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) per-row losses, to be minimised. `state` outlives the step and is part of the run's state."""


@dataclass(frozen=True)
class TokenTerm(Term):
    """A term that is a mean over a row's answer tokens: weights on tokens make sense for it."""

    @abstractmethod
    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) losses of tokens."""

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) means over each row's answer tokens and its end."""
        return forward.mean(self.tokens(forward, reference, state))


@dataclass(frozen=True)
class NLL(TokenTerm):
    """Mean negative log-likelihood of the answer's tokens; `sign` -1 ascends it (TOFU 2401.06121)."""

    sign: float = 1.0

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) sign * NLL."""
        return self.sign * forward.nll

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) sign * NLL per token."""
        return self.sign * forward.mean_nll


class Weighter(ABC):
    """Weights on a term's rows, or on its tokens. `needs`: as of a term. A row's weights need no other row at hand."""

    level: ClassVar[Literal["row", "token"]] = "row"
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def weights(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) or (N,) detached weights, not negative."""


@dataclass(frozen=True)
class Part:
    """A term with its weight in the sum, and weights within it."""

    term: Term
    weight: float = 1.0
    weighters: tuple[Weighter, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.term, TokenTerm) and any(one.level == "token" for one in self.weighters):
            raise TypeError(f"{type(self.term).__name__} is no mean over tokens: there is nothing to weigh them in")

    @property
    def side(self) -> Side:
        """The side of the bargain it stands for."""
        return side_of(self.term.role)

    @property
    def needs(self) -> set[str]:
        """Base-model numbers that it reads."""
        return {*self.term.needs, *(need for one in self.weighters for need in one.needs)}

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) weighted within the term; its weight in the sum is not in it."""
        tokens = [one for one in self.weighters if one.level == "token"]
        if tokens and isinstance(self.term, TokenTerm):
            some = self.term.tokens(forward, reference, state)
            for one in tokens:
                some = some * one.weights(forward, reference, state)
            rows = forward.mean(some)
        else:
            rows = self.term.losses(forward, reference, state)
        for one in self.weighters:
            rows = rows * one.weights(forward, reference, state) if one.level == "row" else rows
        return rows


class Gradients(Protocol):
    """Takes a step's gradients again, at what the parameters hold when it is called."""

    def __call__(self, side: Side | None = None, *, exact: bool = False) -> Mapping[Side, Weights]:
        """Each side's over the whole batch, or one side's. exact: without autocast, for gradients that are to be subtracted."""


class Combiner:
    """How the losses of the two sides become one gradient: their sum, which subclasses weigh or replace.

    split: whether it reads each side's gradient. probes: whether it takes gradients at other parameters, too (`explored`).
    watches: whether `after` reads losses.
    """

    split: ClassVar[bool] = False
    probes: ClassVar[bool] = False
    watches: ClassVar[bool] = False

    @property
    def probed(self) -> float:
        """How often it calls `gradients` in a step; for one side alone counts half."""
        return 0.0

    def weights(self, state: State) -> Mapping[Side, float | Tensor]:
        """Factor of a side in this step, 1 where none is given; constant within an optimiser step."""
        return {}

    def direction(self, sides: Mapping[Side, Weights], state: State) -> Weights:
        """The gradient that the optimiser sees, from each side's over the whole batch, which are without the factors."""
        for side, factor in self.weights(state).items():
            sides = {**sides, side: {name: factor * grad for name, grad in sides.get(side, {}).items()}}
        found: Weights = {}
        for one in sides.values():
            for name, grad in one.items():
                found[name] = found[name] + grad if name in found else grad
        return found

    def explored(
        self,
        sides: Mapping[Side, Weights],
        gradients: Gradients,
        moving: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """`direction` of a combiner that probes. gradients: of the same rows, at what `moving` holds when it is called.

        `moving` may be written to, and must hold its values again afterwards.
        """
        return self.direction(sides, state)

    def told(self, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float], state: State) -> bool:
        """Search losses by risk, (n,) whole thousandths, at each of the method's `looks`; True where training is done."""
        return False

    def after(self, losses: Mapping[Side, Tensor], state: State) -> None:
        """Once per optimiser step: losses of the sides over its whole batch, without the factors of `weights`."""


@dataclass(frozen=True)
class Taken:
    """What an optimiser step was made of. sides: each side's gradient, where they are kept; moments: AdamW's second ones."""

    sides: Mapping[Side, Weights]
    moments: Weights
    state: State


class UpdateFilter(ABC):
    """Changes the update that the optimiser made. split: whether it reads each side's gradient; moments: AdamW's second ones.

    last: whether it comes after those that do not say so, whatever a wrapper adds: what it freezes stays frozen.
    """

    split: ClassVar[bool] = False
    moments: ClassVar[bool] = False
    last: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, update: Weights, taken: Taken) -> Weights:
        """parameter name -> change, of the same shapes."""


@dataclass(frozen=True)
class Adversary(ABC):
    """Makes the model remember while the forget side's loss is taken.

    steps: that finding it takes for each step of training; each is a pass forward and backward over the forget rows.
    """

    steps: int

    @abstractmethod
    def against(self, model: PreTrainedModel, batch: Batch, state: State) -> tuple[Batch, Held]:
        """The batch to be passed, and what holds during the pass. Parameters and their gradients are left alone."""


@dataclass(frozen=True)
class Ground:
    """Where an edit or a rollout stands. reference: the model, its rows, the base's numbers; moving: name -> parameter.

    size: rows per pass. seed: of this trial. step: steps done in this run.
    """

    reference: "Reference"
    moving: Mapping[str, Parameter]
    state: State
    size: int
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
    def __call__(self, ground: Ground) -> None:
        """Write `ground.moving` in place."""


class Rollout(ABC):
    """Rows of the role `rollout`, written by the model as it stands. every: steps between two draws; passes: what a row costs."""

    every: int

    @property
    @abstractmethod
    def passes(self) -> float:
        """Forward and backward passes over as many tokens that writing a row takes, per step."""

    @abstractmethod
    def draw(self, ground: Ground, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        """`count` rows, and numbers by name, (count, ...), which terms of the role read by that name."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training: `share` of all steps with the same parts; or an edit's rounds, which no share counts.

    trains: regular expression on parameter names, searched in each name. sources: role -> what makes its rows. reads: roles that
    surveys and edits read, beside the terms'. only: the forget rows that are drawn, and with them what stands for each; steps
    are as many fewer. All by default; with none there is no step. rate: its learning rate in units of the method's.
    """

    parts: Mapping[str, Part]
    share: float = 1.0
    combiner: Combiner = field(default_factory=Combiner)
    filters: tuple[UpdateFilter, ...] = ()
    adversary: Adversary | None = None
    rollout: Rollout | None = None
    edit: Edit | None = None
    sources: Mapping[Role, Source] = field(default_factory=dict)
    reads: tuple[Role, ...] = ()
    only: tuple[int, ...] | None = None
    trains: str = ""
    rate: float = 1.0

    def __post_init__(self) -> None:
        if (self.edit is None) != bool(self.parts):
            raise TypeError("a phase has parts that are trained on, or an edit, and not both")

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles that some term reads, in order of declaration."""
        return tuple(dict.fromkeys(part.term.role for part in self.parts.values()))

    @property
    def logits(self) -> bool:
        """Whether some term reads likelihoods."""
        return any(part.term.logits for part in self.parts.values())

    @property
    def separable(self) -> bool:
        """Whether the gradient is a sum over rows: what one row gives depends on no other."""
        return all(part.term.alone for part in self.parts.values())

    @property
    def split(self) -> bool:
        """Whether each side's gradient is kept by itself."""
        return self.combiner.split or self.combiner.probes or any(one.split for one in self.filters)

    @property
    def apart(self) -> bool:
        """Whether the two sides go through the model in passes of their own."""
        return self.split or self.lonely

    @property
    def lonely(self) -> bool:
        """Whether passes serve one configuration alone: their rows or hidden states are made for its parameters."""
        return self.adversary is not None or self.rollout is not None

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose hidden states some term reads."""
        return tuple(sorted({layer for role in self.roles for layer in self.hidden_at(role)}))

    def hidden_at(self, role: Role) -> tuple[int, ...]:
        """Layers whose hidden states some term of this role reads."""
        layers = {layer for part in self.parts.values() if part.term.role == role for layer in part.term.hidden_at}
        return tuple(sorted(layers))

    def needs(self, role: Role) -> tuple[str, ...]:
        """Base-model numbers that some term of this role reads."""
        return tuple(sorted({need for part in self.parts.values() if part.term.role == role for need in part.needs}))

    def moves(self, name: str) -> bool:
        """Whether the parameter may move."""
        return re.search(self.trains, name) is not None

    def cost(self, layers: int) -> float:
        """Of a step, relative to gradient difference's: two roles forward and backward through all `layers`."""
        depth = 1.0 if self.logits else (1 + max(self.layers)) / layers
        forget = sum(side_of(role) == "forget" for role in self.roles)
        extra = forget * (self.adversary.steps if self.adversary else 0) + (self.rollout.passes if self.rollout else 0)
        return (depth * len(self.roles) * (1 + self.combiner.probed) + extra) / 2


def side_of(role: Role) -> Side:
    """All but retain rows are forgotten ones, or stand in for them."""
    return "retain" if role == "retain" else "forget"


def dot(one: Weights, other: Weights) -> Tensor:
    """Inner product over all parameters that both have; 0 where there is none."""
    shared = [(one[name] * other[name]).sum(dtype=torch.float64) for name in one if name in other]
    return torch.stack(shared).sum() if shared else torch.zeros((), dtype=torch.float64)
