"""One training step in parts that compose. No method name appears here or in the training loop.

A method declares phases; a phase sums weighted *terms* (all minimised), each on the rows of one *role*. Slots:

* `Term`: per-row losses from one forward pass of its role; may ask for numbers of the base model (`needs`).
* `Weighter`: detached weights on a term's rows.
* `Combiner`: how the terms become one direction (their sum unless said otherwise).
* `UpdateFilter`: changes the realised optimiser step (projection, masking).
* `trains`: which parameters may move. `finish`: a one-shot edit after the last step.

Shapes: B rows, T tokens. Shift, mask and reduction happen in `froc.forward` and nowhere else.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from froc.forward import Forward

Role = Literal["forget", "retain", "refusal"]


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
    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: dict[str, Any]) -> Tensor:
        """(B,) per-row losses, to be minimised. `state` outlives the step and is part of the run's state."""


@dataclass(frozen=True)
class NLL(Term):
    """Mean negative log-likelihood of the answer's tokens; `sign` -1 ascends it (TOFU 2401.06121)."""

    sign: float = 1.0

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: dict[str, Any]) -> Tensor:
        """(B,) sign * NLL per token."""
        return self.sign * forward.mean_nll


class Weighter(ABC):
    """Weights on a term's rows."""

    @abstractmethod
    def weights(self, forward: Forward, state: dict[str, Any]) -> Tensor:
        """(B,) detached weights, not negative."""


class Combiner(ABC):
    """How the terms of one step become gradients in `parameter.grad`.

    linear: the gradients of parts of a batch add up to those of the batch, so it may be taken in parts and beside others.
    """

    linear: ClassVar[bool] = False

    @abstractmethod
    def backward(self, losses: Mapping[str, Tensor], model: torch.nn.Module, state: dict[str, Any]) -> None:
        """losses: name -> scalar, already weighted."""


class Sum(Combiner):
    """Plain sum, one backward pass."""

    linear: ClassVar[bool] = True

    def backward(self, losses: Mapping[str, Tensor], model: torch.nn.Module, state: dict[str, Any]) -> None:
        """Gradients of the sum."""
        torch.stack(list(losses.values())).sum().backward()


class UpdateFilter(ABC):
    """Changes the update that the optimiser made."""

    @abstractmethod
    def __call__(self, update: dict[str, Tensor], state: dict[str, Any]) -> dict[str, Tensor]:
        """parameter name -> change, of the same shapes."""


@dataclass(frozen=True)
class Part:
    """A term with its weight in the sum."""

    term: Term
    weight: float = 1.0
    weighter: Weighter | None = None


@dataclass(frozen=True)
class Phase:
    """A stretch of training: `share` of all steps with the same parts.

    trains: regular expression on parameter names, searched in each name.
    """

    parts: Mapping[str, Part]
    share: float = 1.0
    combiner: Combiner = field(default_factory=Sum)
    update_filter: UpdateFilter | None = None
    trains: str = ""

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
        return self.combiner.linear and all(part.term.alone and not part.weighter for part in self.parts.values())

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
        return tuple(
            sorted({need for part in self.parts.values() if part.term.role == role for need in part.term.needs})
        )

    def moves(self, name: str) -> bool:
        """Whether the parameter may move."""
        return re.search(self.trains, name) is not None


Finish = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]
"""One-shot edit: (base parameters, trained parameters) -> parameters."""
