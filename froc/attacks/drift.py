"""Out-of-domain relearning attack."""

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.attacks._training import Training
from froc.fidelity import Fidelity
from froc.measuring.attack import Material


@dataclass(frozen=True)
class Drift(Training):
    """Train for a few steps on other data, as anyone who fine-tunes the model would (out-of-domain relearning).

    Our reading: the data are the task's retain rows, which every task has; Unlearning Under the Microscope uses other
    data sets (MNLI, SST2, GSM8K).
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "train the model for a few steps on rows that have nothing to do with what is forgotten"

    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Train on the retain rows."""
        self.train(model, tokenizer, material.retain, material)
