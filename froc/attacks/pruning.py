"""Pruning."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material, parameters
from froc.models.process_group import edited


@dataclass(frozen=True)
class Pruning(Attack):
    """Set the smallest weights of every matrix to zero (magnitude pruning, Han et al. 1506.02626).

    As quantisation does, it wipes out small changes: what unlearning hid by them returns. Embeddings and head stay.

    share: of each matrix's weights that become zero, those of the smallest magnitude.
    """

    fidelity: ClassVar[Fidelity] = "formula"
    allows: ClassVar[str] = "store the model without its smallest weights"

    share: float = hyperparameter(0.3, Range(0.05, 0.7))

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(
                f"pruning: share={self.share:g} is outside (0, 1); give a share of the weights such as 0.3"
            )

    @torch.no_grad()
    def change(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material) -> None:
        """Prune the matrices in place."""
        ends = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part}
        for parameter in parameters(model).values():
            if parameter.ndim >= 2 and parameter.dtype.is_floating_point and id(parameter) not in ends:
                with edited(parameter) as matrix:
                    size = matrix.abs().flatten()
                    count = int(self.share * len(size))
                    if count:
                        matrix.flatten().scatter_(0, size.argsort()[:count], 0.0)
