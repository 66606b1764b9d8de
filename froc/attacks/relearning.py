"""Relearning attack."""

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._hidden_states import sample
from froc.attacks._training import Training
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, hyperparameter
from froc.measuring.attack import Material


@dataclass(frozen=True)
class Relearning(Training):
    """Train for a few steps on forgotten facts that are not measured (2406.13356; WMDP settings of Unlearn-Smooth).

    What was only hidden returns with them, what is gone does not: the measured facts are not in the training rows. How
    much returns depends on the adversary's data, rate and patience: several settings joined by + count each query by
    its worst one, as the named risk `relearning_sweep` does.

    rows: rows that the adversary holds, drawn by the seed; 0 for all forget rows that are not about measured facts.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "train the model for a few steps on forgotten facts other than those measured"
    holds: ClassVar[bool] = True

    rows: int = hyperparameter(0, Choice((0, 4, 16, 64)))

    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Train on the forget rows that the adversary holds."""
        rows = tuple(sample(material.known, material.seed, self.rows or len(material.known)))
        self.train(model, tokenizer, rows, material)
