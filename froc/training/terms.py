"""Loss terms of a training step: per-row losses of one role, with detached weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from froc.models.forward import Forward
from froc.training.base_statistics import Role

Objective = Literal["forget", "retain"]


OBJECTIVES: tuple[Objective, ...] = ("forget", "retain")


Weights = dict[str, Tensor]


State = dict[str, Any]


@dataclass(frozen=True)
class Term(ABC):
    """One summand of a loss.

    role: the rows that it reads.
    needs: names of base-model numbers of these rows, passed to `losses` (see `BaseStatistics.lookup`).
    needs_logits: whether it reads likelihoods; where no term of a phase does, the pass ends at the last layer that is
        read.
    row_separable: whether a row's loss needs no other row, so that gradients can be computed pass by pass.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    needs_logits: ClassVar[bool] = True
    row_separable: ClassVar[bool] = True
    role: Role

    @property
    def hidden_at(self) -> tuple[int, ...]:
        """Layers whose hidden states it reads."""
        return ()

    @abstractmethod
    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) per-row losses, to be minimised. reference: the `needs` by name. state: kept between steps and in checkpoints."""


@dataclass(frozen=True)
class TokenTerm(Term):
    """A term that is a mean over a row's answer tokens, and may have weights on tokens."""

    @abstractmethod
    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) per-token losses."""

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) means over each row's answer tokens and its end."""
        return forward.mean(self.tokens(forward, reference, state))


@dataclass(frozen=True)
class LayerTerm(Term):
    """A term of one layer's hidden states, which needs no likelihoods. layer: its index, from 0."""

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    needs_logits: ClassVar[bool] = False
    layer: int = 0

    @property
    def hidden_at(self) -> tuple[int, ...]:
        """That layer."""
        return (self.layer,)


@dataclass(frozen=True)
class NLL(TokenTerm):
    """Mean negative log-likelihood of the answer's tokens in nats; `sign` -1 ascends it (TOFU 2401.06121)."""

    sign: float = 1.0

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) sign * NLL."""
        return self.sign * forward.nll

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) sign * NLL per token."""
        return self.sign * forward.mean_nll


class Weighter(ABC):
    """Weights on a term's rows or tokens (`level`).

    needs: as for a term.

    A row's weights must not depend on other rows of the batch.
    """

    level: ClassVar[Literal["row", "token"]] = "row"
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def weights(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) or (N,) detached weights, not negative."""


@dataclass(frozen=True)
class WeightedTerm:
    """A term with its weight in the sum, and weighters of its rows and tokens."""

    term: Term
    weight: float = 1.0
    weighters: tuple[Weighter, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.term, TokenTerm) and any(weighter.level == "token" for weighter in self.weighters):
            raise TypeError(f"{type(self.term).__name__} is no mean over tokens: there is nothing to weigh them in")

    @property
    def objective(self) -> Objective:
        """The objective that it belongs to."""
        return objective_of(self.term.role)

    @property
    def needs(self) -> set[str]:
        """Names of base-model numbers that it reads."""
        return {*self.term.needs, *(need for weighter in self.weighters for need in weighter.needs)}

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses with the weighters' weights, without the term's own weight."""
        tokens = [weighter for weighter in self.weighters if weighter.level == "token"]
        if tokens and isinstance(self.term, TokenTerm):
            losses = self.term.tokens(forward, reference, state)
            for weighter in tokens:
                losses = losses * weighter.weights(forward, reference, state)
            rows = forward.mean(losses)
        else:
            rows = self.term.losses(forward, reference, state)
        for weighter in self.weighters:
            rows = rows * weighter.weights(forward, reference, state) if weighter.level == "row" else rows
        return rows


def objective_of(role: Role) -> Objective:
    """`retain` for retain rows; all other rows are forget rows or stand for them."""
    return "retain" if role == "retain" else "forget"
