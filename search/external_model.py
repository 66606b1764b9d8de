"""An unlearned model from any other tool: one candidate that is measured and certified as it is."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from froc import hashing
from froc.configuration_id import ConfigurationId
from froc.errors import InputError
from froc.models import adapters, inference_files, weights_digest
from froc.models.base import Base, load, written
from froc.models.model_name import refuse_no_folder
from froc.models.trainable import Weights

EXTERNAL_CONFIG = str(ConfigurationId(0))
"""Its name among the candidates."""


@dataclass(frozen=True)
class ExternalModel:
    """A folder with an unlearned model of the base model's shape."""

    folder: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files that would be deployed; the plan names it before anything is measured."""
        refuse_no_folder(self.folder)
        return hashing.sha256_tree({path.name: hashing.sha256_file(path) for path in self._files()})

    @property
    def names(self) -> list[str]:
        """The files that are copied into the run."""
        return [path.name for path in self._files()]

    @property
    def adapted(self) -> bool:
        """Whether it is an adapter, so that its weights are those of the base model with the adapter merged."""
        return adapters.read(self.folder) is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about it for the plan."""
        adapter = adapters.read(self.folder)
        return () if adapter is None else (adapter.note,)

    def weights(self, base: Base) -> Weights:
        """Its parameters by the base model's names, on the CPU, in the base model's precision.

        Raises InputError where they are other ones: a quantised or otherwise restructured model cannot be put in its place.
        """
        self.refuse_other_files(base)
        loaded = load(str(self.folder), device="cpu", dtype=base.dtype, adapter_base=base.name)
        if not self.adapted:
            self._refuse_other_tensors(loaded)
        theirs = dict(loaded.model.named_parameters())
        ours = base.trainable.parameters()
        unshared = sorted({n for n in ours if n not in theirs} | {n for n in theirs if n not in ours})
        shape = [name for name in ours if name in theirs and ours[name].shape != theirs[name].shape]
        if unshared or shape:
            raise InputError(
                f"{self.folder.name} is no model of the base model's shape ({(unshared or shape)[0]} differs); give the base that "
                "it was made from, merge adapters, and save it without quantisation"
            )
        return {name: value.detach() for name, value in theirs.items()}

    def refuse_other_files(self, base: Base) -> None:
        """InputError where files beside the weights make them behave differently from how they are measured: with the base model's files.

        An adapter is measured and written with the base model's files, whatever its folder holds.
        """
        differing = None if self.adapted else inference_files.first_difference(base, self.folder)
        if differing is not None:
            raise InputError(
                f"{self.folder}: {differing} is not what the base model has there, and would have other outputs than those that are "
                "measured; put the base model's file in its place (or take it out, where the base model has none)"
            )

    def _refuse_other_tensors(self, loaded: Base) -> None:
        """InputError where the files lack a tensor, which is then made up when they are loaded, or hold one that nothing loads."""
        files = weights_digest.names(self.folder)
        wanted = set(written(loaded))
        missing = sorted(wanted - files)
        orphans = sorted(name for name in files - wanted if not weights_digest.is_head(name))
        if missing or orphans:
            fault = f"lacks {missing[0]}, which" if missing else f"holds {orphans[0]}, which no part of"
            raise InputError(
                f"{self.folder.name} {fault} the model of its config.json {'has' if missing else 'is'}; save it again with save_pretrained"
            )

    def copy(self, place: Path) -> None:
        """Copy the model's files as they are: what is signed is what was given. InputError for links that lead elsewhere."""
        self._refuse_links()
        place.mkdir(parents=True)
        for path in self._files():
            shutil.copyfile(path, place / path.name)

    def _refuse_links(self) -> None:
        """InputError for a link to a file outside the model, whose text would be copied; those of a hub's cache lead to its blobs."""
        whole = self.folder.resolve()
        blobs = whole.parent.parent / "blobs"
        for path in self._files():
            if not any(path.resolve().is_relative_to(place) for place in (whole, blobs)):
                raise InputError(f"{path} is a link to a file outside the model's folder; put the file itself there")

    def _files(self) -> list[Path]:
        return sorted(
            path for path in self.folder.iterdir() if path.suffix in weights_digest.FILE_SUFFIXES and path.is_file()
        )
