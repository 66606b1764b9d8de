"""Losses, weights and files are about one model: the digest that was sealed with a candidate, and the weights in its folder."""

from collections.abc import Collection
from pathlib import Path

from audit import model_folder
from audit.claims import Facts
from froc.errors import VerificationError

UNBOUND = "no digest of weights was sealed, as in older versions: nothing here ties the losses to the model's weights"
NOT_COMPARED = "the digest of the chosen weights was sealed before calibration was opened; the model's files were not compared with it"
BOUND = "the model's weights are those that were sealed before calibration was opened, and not the base model's"


def check(facts: Facts, config: str, folder: Path | None, names: Collection[str]) -> str:
    """What is seen, for a report that covers the model of `config`. folder, names: the model's, folder None where it is not at hand.

    Raises VerificationError where what was measured, what lies in the folder and the base model are not two different models.
    """
    bases = {facts.seal.base_weights_digest, facts.plan.model.digest} - {None}
    sealed = facts.seal.weights_of(config)
    if sealed in bases:
        raise VerificationError(
            "sealed-is-base",
            f"the weights of {config} were sealed with the digest of the base model's: nothing was unlearned",
        )
    if folder is None:
        return UNBOUND if sealed is None else NOT_COMPARED
    folder_digest = model_folder.of_weights(folder, names)
    if folder_digest in bases:
        raise VerificationError(
            "model-is-base",
            "the folder holds the weights of the base model: nothing was unlearned; give the chosen model's folder",
        )
    if sealed is None:
        return UNBOUND
    if folder_digest != sealed:
        raise VerificationError(
            "model-weights-differ",
            f"the weights in the folder are not those of {config} that were sealed and measured; give the folder that froc search wrote",
        )
    return BOUND
