"""Whether losses, weights and files belong to one model: the digest sealed with a candidate against the weights in its folder."""

from pathlib import Path

from froc.audit import model_folder
from froc.audit.report import Facts
from froc.errors import VerificationError
from froc.models import weights_digest
from froc.visible import visible

UNBOUND = "no digest of weights was sealed: nothing here ties the losses to the model's weights"
NOT_COMPARED = "the digest of the chosen weights was sealed before calibration was opened; the model's files were not compared with it"
BOUND = "the model's weights and the files beside them are those that were sealed before calibration was opened, and not what the plan calls the base model's"


def check(facts: Facts, config: str, folder: Path | None) -> str:
    """What was checked, in words, for a report that covers the model of `config`. folder: the model's; None if not available.

    VerificationError where the measured model and the folder's model differ, or the folder holds the base model.
    """
    bases = {facts.seal.base_weights_digest, facts.plan.model.digest} - {None}
    sealed = facts.seal.weights_of(config)
    if sealed in bases:
        raise VerificationError(
            "sealed-is-base",
            f"the weights of {config} were sealed with the digest of the base model's: nothing was unlearned",
        )
    _refuse_other_files(facts)
    if folder is None:
        return UNBOUND if sealed is None else NOT_COMPARED
    folder_digest = model_folder.of_weights(folder, facts.files)
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


def _refuse_other_files(facts: Facts) -> None:
    """VerificationError where files beside the weights are not the sealed ones: they decide how the weights behave."""
    if facts.seal.model_files is None:
        return
    sealed = {name: sha for name, sha in facts.seal.model_files.items() if name not in model_folder.HUB_FILES}
    signed = {
        name: sha for name, sha in weights_digest.beside(facts.files).items() if name not in model_folder.HUB_FILES
    }
    differing = next((name for name in sorted({*sealed, *signed}) if sealed.get(name) != signed.get(name)), None)
    if differing is not None:
        raise VerificationError(
            "model-files-differ",
            f"{visible(differing)} of the model is not as it was when the candidates were sealed and measured; put the file back that froc "
            "search wrote, or audit the changed model: froc audit model",
        )
