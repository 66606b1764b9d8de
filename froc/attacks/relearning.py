"""Relearning attack."""

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._training import Training
from froc.fidelity import Fidelity
from froc.measuring.attack import Material


@dataclass(frozen=True)
class Relearning(Training):
    """Train for a few steps on forgotten facts that are not measured (2406.13356; WMDP settings of Unlearn-Smooth).

    What was only hidden returns with them, what is gone does not: the measured facts are not in the training rows.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "train the model for a few steps on forgotten facts other than those measured"
    holds: ClassVar[bool] = True

    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Train on the forget rows that the adversary holds."""
        self.train(model, tokenizer, material.known, material)
