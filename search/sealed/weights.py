"""The weights that a seal binds: digests of each candidate's and of the base model's, taken before calibration is opened.

Digests are of the folder that would be written (`froc.models.base.digest_of`), so that the chosen model's files can be
compared without torch. What is measured, kept and written later is compared with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from froc import hashing
from froc.errors import InputError
from froc.models import inference_files, weights_digest
from froc.models.base import Base, digest_of, read_weights
from froc.risk.claim import Candidate
from froc.search.external_model import ExternalModel
from froc.search.trial.work import KeptWeights


def bound(
    base: Base, candidates: Sequence[Candidate], kept: Mapping[str, KeptWeights], external: ExternalModel | None
) -> list[Candidate]:
    """The candidates with the digests of their weights. kept: config -> parameters. external: the single candidate, if made elsewhere."""
    return [
        replace(candidate, weights_digest=_digest(base, kept[candidate.config], external)) for candidate in candidates
    ]


def of_base(base: Base) -> str:
    """Digest of the base model, whose parameters are restored."""
    base.restore()
    return digest_of(base)


def files_beside(base: Base, external: ExternalModel | None) -> dict[str, str]:
    """File name -> digest of the files to be written beside the weights (`froc.models.weights_digest.beside`), which decide how they behave."""
    if external is not None and not external.adapted:
        return weights_digest.beside({name: hashing.sha256_file(external.folder / name) for name in external.names})
    return inference_files.digests(base)


def of_kept(base: Base, kept: KeptWeights) -> str:
    """Digest of a trial's parameters, which afterwards replace the base model's in memory."""
    base.trainable.activate([0])
    base.trainable.load(read_weights(kept) if isinstance(kept, Path) else kept)
    return digest_of(base)


def refuse_retrained(
    base: Base, candidates: Sequence[Candidate], kept: Mapping[str, KeptWeights], external: ExternalModel | None
) -> None:
    """InputError where parameters trained again differ from the sealed ones; older seals have no weights."""
    for candidate in candidates:
        if candidate.weights_digest is None:
            continue
        if _digest(base, kept[candidate.config], external) != candidate.weights_digest:
            raise InputError(
                f"{candidate.config} was made once more, and its weights are not those that were sealed: another machine, device or "
                "library rounds otherwise; go on where the run began, or search again in a new --out"
            )


def refuse_written(folder: Path, chosen: Candidate, files: Mapping[str, str] | None) -> None:
    """InputError where a model folder does not hold the sealed weights, or the sealed files beside them."""
    if files is not None and weights_digest.beside(hashing.sha256_files(folder)) != files:
        raise InputError(
            "the configuration or tokenizer that was to be saved is not the one that was sealed: another version of a library writes "
            "it otherwise; go on with the versions that the plan names, or search again in a new --out"
        )
    if chosen.weights_digest is not None and weights_digest.of_folder(folder) != chosen.weights_digest:
        raise InputError(
            f"the weights of {chosen.config} that were to be saved are not those that were sealed: another machine, device or "
            "library rounds otherwise; go on where the run began, or search again in a new --out"
        )


def refuse_base(base: Base, known: str | None, external: ExternalModel | None) -> None:
    """InputError where the external model, which is loaded in place of the base model, equals the base model.

    known: the base model's digest, as sealed.

    Its files may hold the same weights in another precision, with another digest.
    """
    if external is not None and known is not None and digest_of(base) == known:
        raise InputError(
            f"{external.folder} is the base model itself, weight by weight: nothing was unlearned; give the unlearned model"
        )


def _digest(base: Base, kept: KeptWeights, external: ExternalModel | None) -> str:
    """Digest of what would be written: a whole external model is copied unchanged, anything else is written from memory."""
    if external is not None and not external.adapted:
        return weights_digest.of_folder(external.folder)
    return of_kept(base, kept)
