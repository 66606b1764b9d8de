"""Unlearning methods: one file each; `froc/methods/npo.py` is the method `npo`.

A method is a frozen dataclass. Its fields are its hyperparameters; `phases` says what one step is made of
(see `froc.step`). Adding a file here is all it takes: the name, the search space, the contract tests follow.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from froc.params import Range, hyper
from froc.step import NLL, Finish, Part, Phase, Role


@dataclass(frozen=True)
class Facts:
    """What a method may know before it trains.

    layers: number of transformer blocks. width: size of the hidden states. seed: of this trial.
    """

    layers: int
    width: int
    seed: int


@dataclass(frozen=True)
class Method(ABC):
    """Hyperparameters that every method has.

    lr: peak learning rate of AdamW, linear warm-up over a tenth of the steps, then linear decay.
    epochs: passes over the forget rows.
    """

    paper: ClassVar[str] = ""
    family: ClassVar[str] = ""

    lr: float = hyper(1e-5, Range(1e-6, 1e-4, log=True))
    epochs: int = hyper(5, Range(1, 10))

    @abstractmethod
    def phases(self, facts: Facts) -> tuple[Phase, ...]:
        """The phases of training, in order; shares add up to 1."""

    @classmethod
    def roles(cls) -> tuple[Role, ...]:
        """Rows it trains on, with the defaults: a task that lacks them cannot run it."""
        return tuple({role: None for phase in cls().phases(Facts(4, 8, 0)) for role in phase.roles})

    def finish(self) -> Finish | None:
        """A one-shot edit of the parameters after training, or None."""
        return None


@dataclass(frozen=True)
class Retaining(Method):
    """Methods that hold the retain rows with a weighted likelihood term.

    retain_weight: weight of the retain rows' negative log-likelihood against the forget term's 1.
    """

    retain_weight: float = hyper(1.0, Range(0.1, 20.0, log=True))

    def keep(self) -> dict[str, Part]:
        """The retain part."""
        return {"retain": Part(NLL("retain"), self.retain_weight)}
