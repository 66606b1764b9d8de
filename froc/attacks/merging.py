"""Merging with the base model."""

from dataclasses import dataclass
from typing import ClassVar

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack


@dataclass(frozen=True)
class Merging(Attack):
    """Average the model's weights with those of the model before unlearning (model soups, Wortsman et al. 2203.05482).

    theta = share theta_base + (1 - share) theta. Who merges checkpoints, as practitioners do, undoes a part of every change; a
    change that only hides an answer is undone early. Whoever has the base model has its answers, too: this tells how far
    away they are, not what a stranger can reach, and it costs nothing but the merge.

    share: of the base model's weights in the mean.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "average the model's weights with those of the model before unlearning"

    share: float = hyperparameter(0.3, Range(0.05, 0.7))

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"merging: share={self.share:g} is outside (0, 1); give a share of the base such as 0.3")

    @property
    def keeps(self) -> float:
        """1 - share."""
        return 1.0 - self.share
